//! ConfiguratorService: triggers, configurations, and the traffic with workers.
//!
//! Owns the shape of its requests, who may reach which workspace, long polls and presence. The state machine of
//! versions and events is the delivery crate's.

mod byok;
mod configurations;
mod dataplane_url;
mod diff;
mod events;
mod history;
mod mcp_catalog;
mod presence;
mod reveal;
mod revocations;
mod rpc;
mod slots;
mod triggers;
mod upgrade;
mod wait;

pub use presence::Presence;
pub use rpc::Configurator;
pub use upgrade::sweep_upgrade_credentials;
