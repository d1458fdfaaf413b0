//! ConfiguratorService: triggers, configurations, and the traffic with workers.
//!
//! Owns the shape of its requests, who may reach which workspace, long polls and presence. The state machine of
//! versions and events is the delivery crate's.

mod configurations;
mod events;
mod presence;
mod rpc;
mod slots;
mod triggers;
mod wait;

pub use presence::Presence;
pub use rpc::Configurator;
