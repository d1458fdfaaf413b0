//! The listener: takes connections in, speaks HTTP/1.1 and HTTP/2 on them, and lets them go without cutting anybody
//! off.
//!
//! Serves any tower service, and knows nothing of what it answers. What a request says of its caller's connection is
//! a [`Connection`] in its extensions.

mod lingering;
mod serve;

pub use serve::{Connection, serve};
