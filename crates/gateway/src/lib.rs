//! REST in front of gRPC, made from descriptors: every method with a
//! `google.api.http` annotation is served over HTTP with JSON, and the crate
//! knows no service by name.
//!
//! [`descriptor_pool`] reads what a compiler wrote, be it proto2, proto3 or of an edition.
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
//! | read | `receive`, `media`, `body`, `inflate`, `upload` | HTTP body, one text or several |
//! | bind | `request`, `content`, `query`, `parts`, `json` | text, gRPC frame |
//! | call | `grpc`, `headers` | frame and metadata, messages |
//! | answer | `answer`, `response`, `stream`, `error`, `json` | wire bytes, body |
//!
//! Text and wire are turned into each other by tables that are made once,
//! without a message in between; [`ProtoJson`] is that codec by itself. What path,
//! query and body say is appended to the request one after the other: protobuf
//! merges messages that come in pieces.
//!
//! [`openapi()`] tells of the same routes as an OpenAPI document, and [`page`] shows
//! that to people.
//!
//! [`Protocols`] stands in front of it where the same backend is called over
//! gRPC, gRPC-Web and Connect, too, and hands it what is no rpc.
//!
//! The services may be in another process and another language: [`remote::Remote`] is a backend that calls them
//! over the network, and [`remote::reflect`] asks them for their descriptors.
//!
//! Not here, on purpose: authentication, limits on concurrency, request ids and
//! CORS (layers around this service), and serving the OpenAPI document.

mod answer;
mod bind;
mod body;
mod codec;
mod content;
mod descriptors;
mod direct;
mod error;
mod escape;
mod failure;
mod grpc;
mod headers;
mod http_rules;
mod inflate;
mod json;
mod mask;
mod media;
mod openapi;
mod options;
mod parts;
mod protocol;
mod query;
mod reading;
mod receive;
mod refusal;
pub mod remote;
mod request;
mod response;
mod router;
mod rule;
mod scalar;
mod stream;
mod template;
mod time;
mod transcoder;
mod upload;
mod wkt;

pub use answer::{AnswerOptions, StreamFormat};
pub use codec::{CodecError, ProtoJson, ReadOptions, WriteOptions};
pub use descriptors::{DescriptorsError, descriptor_pool};
pub use direct::{Direct, DirectRpcs};
pub use error::{ErrorRenderer, http_status};
pub use headers::HeaderPolicy;
pub use http_rules::{CustomHttpPattern, HttpRule, HttpRules, HttpRulesError};
pub use json::{Defaults, JsonOutput, Names};
pub use openapi::{Contract, Header, Info, Page, PageSettings, Rules, Security, openapi, page};
pub use options::Options;
pub use protocol::{DeadlineLayer, GetQuery, Protocol, ProtocolOptions, Protocols, Timed, Trailers};
pub use reading::{RequestOptions, SystemParameters, TrailingSlash, UnknownParameters};
pub use refusal::Caller;
pub use rule::{BuildError, RouteInfo, RuleError};
pub use transcoder::Transcoder;
