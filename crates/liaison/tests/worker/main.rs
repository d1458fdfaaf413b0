//! The worker against a management plane in memory, over real sockets.

#![expect(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

mod delivery;
mod memory;
mod monitoring;
mod plane;
mod running;
mod shutdown;
mod side_by_side;
mod sweeping;
mod tokens;
mod trouble;
mod upgrades;
mod watching;
