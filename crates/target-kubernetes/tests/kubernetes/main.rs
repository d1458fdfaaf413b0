//! The target on a real API server.

mod apply;
mod content;
mod doctor;
mod refusals;
mod rights;
mod server;
mod upgrade;
