//! The target on a real API server.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

mod apply;
mod content;
mod doctor;
mod refusals;
mod rights;
mod server;
mod upgrade;
