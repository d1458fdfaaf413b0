//! Configurations as the resources that Agent Router (Envoy AI Gateway) reads, from a file or from Kubernetes.
//!
//! Owns the types of those resources, their names, and what a configuration means in them. Pure: the same snapshot is
//! the same resources in the same order, and nothing here reads, writes or waits.
//!
//! Deliberately absent: what becomes of the resources, and the slots that Agent Router has no resource for (gateway
//! keys, revoked tokens, users' own keys, MCP profiles).
//!
//! Invariants: a name is a DNS label whatever the id, and no two ids have the same; what cannot be rendered is told
//! with a reason, and the rest is rendered; a secret is written where it belongs and shown nowhere else.

mod endpoint;
mod file;
mod mcp;
mod name;
mod providers;
mod render;
pub mod resource;
mod snapshot;
pub mod spec;

pub use file::to_file;
pub use render::{GatewayOptions, Options, Rejection, Rendered, Routes, render};
pub use resource::{MANAGED_BY, MANAGED_BY_LABEL, Resource, SLOT_LABEL, SecretText};
pub use snapshot::Snapshot;
