//! The listener from the outside: bytes in, bytes out.

#![expect(clippy::expect_used, reason = "a helper that fails fails its test")]

mod authority;
mod flood;
mod frames;
mod limits;
mod server;
mod stop;
mod tls;
