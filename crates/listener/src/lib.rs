//! The listener: takes connections in, speaks TLS, HTTP/1.1 and HTTP/2 on them within limits, and lets them go
//! without cutting anybody off.
//!
//! Serves any tower service, and knows nothing of what it answers. What it knows of the connection that a request came
//! on is a [`Connection`] in the request's extensions.
//!
//! Not here, on purpose: what a request may say and how often, which the service decides. Only what the service
//! cannot see is bounded here: connections, handshakes, heads, streams, and time without progress.

mod connection;
mod http;
mod limits;
mod opening;
mod serve;
mod socket;
mod tls;

pub use connection::Connection;
pub use limits::{Limits, MaxAge};
pub use serve::{Settings, serve};
pub use tls::{ClientCertificates, MinVersion, PeerCertificate, Tls, TlsError, TlsFiles};
