//! The suite's messages and service, generated from its protos.

#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]

tonic::include_proto!("connectrpc.conformance.v1");

/// The descriptors of all of it.
pub(crate) const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
