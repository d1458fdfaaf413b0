//! The target on a real API server.

mod apply;
mod content;
mod server;
