//! The AI providers of a customer, their credentials, the MCP servers of its catalog, and MCP profiles.
//!
//! Owns the tables `providers`, `credentials` and `mcp_profiles`, and the API's view of `mcp_catalog_servers`. Every change that data
//! planes can see is delivered in the transaction that makes it.
//!
//! Invariants: an API key is stored sealed, bound to its row, provider and tenant, and leaves this crate in no answer,
//! log, audit entry or `Debug`; a new value is a new version of the credential, the same value is not.
//!
//! Deliberately absent: opening credentials for data planes and writing the catalog (the configurator), and any call
//! to a provider's URL.

mod convert;
mod credentials;
mod mcp_rpc;
mod model;
mod profiles;
mod rpc;
mod service;
mod store;

pub use mcp_rpc::McpServers;
pub use profiles::McpProfiles;
pub use rpc::Providers;
