//! The edge of a whole server: TLS, limits and rates, in every protocol. What takes no part in a database is tested on
//! one engine.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

#[path = "../common/mod.rs"]
mod common;
mod load;
mod pages;
mod rates;
mod slow;
mod tls;
