//! REST in front of gRPC, made from descriptors: every method with a
//! `google.api.http` annotation is served over HTTP with JSON, and the crate
//! knows no service by name.
//!
//! A [`Transcoder`] reads the annotations of a descriptor pool once, refusing a
//! pool with a faulty rule, and is a [`tower::Service`] to be mounted behind the
//! gRPC routes. A request is matched, bound from path, query and body, framed as
//! gRPC and handed to the backend in process, with its headers as metadata and
//! its extensions as they are; the answer comes back as JSON.
//!
//! The stages, and the seams between them:
//!
//! | stage | module | in, out |
//! |---|---|---|
//! | read the rules | `template`, `rule` | descriptors, routes |
//! | match | `router` | method and raw path, route and captures |
//! | bind | `body`, `request`, `query`, `json` | text, gRPC frame |
//! | call | `grpc`, `headers` | frame and metadata, messages |
//! | answer | `response`, `stream`, `error`, `json` | wire bytes, JSON |
//!
//! [`openapi()`] tells of the same routes as an OpenAPI document, and [`page`] shows
//! that to people.
//!
//! Answers go from the wire to text by tables that are made once, without a
//! message in between. Requests are dynamic messages between text and wire; only
//! `request`, `query` and what they call know that.
//!
//! Not here, on purpose: authentication, limits on time and concurrency, request
//! ids, CORS and compression (layers around this service), other protocols
//! (gRPC itself, gRPC-Web, Connect), and serving the OpenAPI document.

mod bind;
mod body;
mod error;
mod escape;
mod failure;
mod grpc;
mod headers;
mod json;
mod openapi;
mod options;
mod query;
mod request;
mod response;
mod router;
mod rule;
mod scalar;
mod stream;
mod template;
mod transcoder;
mod wkt;

pub use error::{ErrorRenderer, http_status};
pub use headers::HeaderPolicy;
pub use openapi::{Contract, Header, Info, Page, PageSettings, Rules, Security, openapi, page};
pub use options::Options;
pub use rule::{BuildError, RouteInfo, RuleError};
pub use transcoder::Transcoder;
