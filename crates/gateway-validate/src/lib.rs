//! The rules of protovalidate (`buf.validate`), kept for every rpc of a gateway.
//!
//! [`Validation`] reads the rules of a descriptor pool once, and is a [`tower::Layer`] for the backend of
//! `agentrouter_gateway::Transcoder` and `Protocols`. What REST, Connect, gRPC-Web and gRPC make of a request is the
//! same gRPC call there, so the same rules hold in all of them, and break in the same words: INVALID_ARGUMENT with a
//! `google.rpc.BadRequest` of all that is wrong.
//!
//! ```
//! # fn gateway(
//! #     pool: &prost_reflect::DescriptorPool,
//! #     routes: tonic::service::Routes,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use tower::Layer as _;
//!
//! let validation = agentrouter_gateway_validate::Validation::new(pool)?;
//! let rest = agentrouter_gateway::Transcoder::new(pool, validation.layer(routes))?;
//! # let _ = rest;
//! # Ok(())
//! # }
//! ```
//!
//! | module | does |
//! |---|---|
//! | `rules` | which rpcs have rules, and whether all of them work |
//! | `checker` | one message against them |
//! | `refusal` | what is told of those that it breaks |
//! | `service` | calls with one message |
//! | `stream` | calls with many |
//!
//! The rules are evaluated by `prost-protovalidate`, CEL included, which is why this is a crate of its own. It knows
//! nothing of the gateway: it can stand in front of any gRPC service of tonic's. It reads a call's messages before the
//! service does and bounds none of them: what calls it has to, as the gateway does.

mod checker;
mod refusal;
mod rules;
mod service;
mod stream;

pub use rules::{FaultyRule, FaultyRules};
pub use service::{Validated, Validation, ValidationOptions};
