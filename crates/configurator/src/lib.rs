//! ConfiguratorService: triggers, configurations, and the traffic with workers.
//!
//! Owns the shape of its requests, who may reach which workspace, long polls and presence. The state machine of
//! versions and events is the delivery crate's.

mod admission;
mod batches;
mod byok;
mod configurations;
mod dataplane_url;
mod diff;
mod drift;
mod events;
mod history;
mod mcp_catalog;
mod presence;
mod reveal;
mod revocations;
mod rollout;
mod rpc;
mod slots;
mod triggers;
mod upgrade;
mod wait;
mod watch;

pub use admission::FULL_SYNCS_PER_SECOND;
pub use presence::Presence;
pub use rpc::Configurator;
pub use upgrade::sweep_upgrade_credentials;
