//! The AI providers of a customer, their credentials, and the MCP servers of its catalog.
//!
//! Owns the tables `providers` and `credentials`, and the API's view of `mcp_catalog_servers`. Every change that data
//! planes can see is delivered in the transaction that makes it.
//!
//! Invariants: an API key is stored sealed, bound to its row, provider and tenant, and leaves this crate in no answer,
//! log, audit entry or `Debug`; a new value is a new version of the credential, the same value is not.
//!
//! Deliberately absent: opening credentials for data planes and writing the catalog (the configurator), and any call
//! to a provider's URL. MCP profiles are declared but not served yet.

mod convert;
mod credentials;
mod mcp_rpc;
mod model;
mod rpc;
mod service;
mod store;

pub use mcp_rpc::{McpProfiles, McpServers};
pub use rpc::Providers;
