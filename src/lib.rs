//! The AgentRouter server: configuration, wiring and the one port. The services are crates of their own.

pub mod bootstrap;
pub mod cli;
pub mod config;
pub mod copy_store;
pub mod demo;
pub mod edge;
pub mod http;
pub mod keys;
pub mod openapi;
pub mod rotate;
pub mod sealed;
pub mod server;
pub mod store;
pub mod telemetry;

mod jobs;
mod metrics;
mod wire;
