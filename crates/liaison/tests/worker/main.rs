//! The worker against a management plane in memory, over real sockets.

#![expect(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

mod delivery;
mod plane;
mod running;
mod shutdown;
mod trouble;
