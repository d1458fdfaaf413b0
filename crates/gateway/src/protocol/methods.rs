//! The rpcs that can be called, by their path.

use std::sync::Arc;

use http::uri::PathAndQuery;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use prost_types::method_options::IdempotencyLevel;
use rustc_hash::FxHashMap;

use crate::json::{MessageId, Tables};

/// One rpc, as much of it as framing needs.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) path: PathAndQuery,
    pub(super) input: MessageId,
    pub(super) output: MessageId,
    pub(super) is_client_streaming: bool,
    pub(super) is_server_streaming: bool,
    /// Declared `NO_SIDE_EFFECTS`, and unary: GET may call it.
    pub(super) is_gettable: bool,
}

impl Method {
    pub(super) fn is_unary(&self) -> bool {
        !self.is_client_streaming && !self.is_server_streaming
    }
}

/// All rpcs of a descriptor pool. Clients add none, so the hash may be a fast one.
#[derive(Debug)]
pub(super) struct Methods(FxHashMap<String, Arc<Method>>);

impl Methods {
    /// The tables are those of the pool.
    pub(super) fn new(pool: &DescriptorPool, tables: &Tables) -> Self {
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        Self(methods.filter_map(|method| entry(&method, tables)).collect())
    }

    pub(super) fn get(&self, path: &str) -> Option<&Arc<Method>> {
        self.0.get(path)
    }
}

fn entry(method: &MethodDescriptor, tables: &Tables) -> Option<(String, Arc<Method>)> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let is_unary = !method.is_client_streaming() && !method.is_server_streaming();
    let options = method.method_descriptor_proto().options.as_ref();
    let level = options.map(prost_types::MethodOptions::idempotency_level);
    let entry = Method {
        // Names of protobuf are path characters, so nothing is left out here.
        path: path.parse().ok()?,
        input: tables.find(method.input().full_name())?,
        output: tables.find(method.output().full_name())?,
        is_client_streaming: method.is_client_streaming(),
        is_server_streaming: method.is_server_streaming(),
        is_gettable: is_unary && level == Some(IdempotencyLevel::NoSideEffects),
    };
    Some((path, Arc::new(entry)))
}
