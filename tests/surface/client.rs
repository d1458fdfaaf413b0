//! Any RPC by its descriptor, over real gRPC: JSON in the test, bytes on the wire, no generated client.

use std::collections::HashMap;
use std::sync::LazyLock;

use agentrouter_api::DESCRIPTOR_POOL;
use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use prost_types::method_options::IdempotencyLevel;
use serde_json::Value;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// What a call came to.
pub(crate) type Outcome = Result<Value, Refusal>;

/// What a caller is told of a call that failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) details: Value,
}

impl Refusal {
    /// Code and reason.
    pub(crate) fn kind(&self) -> (Code, &str) {
        (self.code, &self.reason)
    }

    /// The fields that are wrong.
    pub(crate) fn violations(&self) -> Vec<&str> {
        let details = self.details.as_array().into_iter().flatten();
        let violations = details.filter_map(|detail| detail["field_violations"].as_array()).flatten();
        violations.filter_map(|violation| violation["field"].as_str()).collect()
    }

    /// What the answer to a batch of one tells of an item that failed, which has a reason and no code; or the answer,
    /// where nothing failed.
    pub(crate) fn of_item(answer: Value) -> Result<Self, Value> {
        let Some(reason) = item_failure(&answer) else { return Err(answer) };
        let code = if reason.ends_with("_NOT_FOUND") { Code::NotFound } else { Code::FailedPrecondition };
        Ok(Self { code, reason: reason.to_owned(), message: String::new(), details: answer })
    }

    /// The same with a name left out wherever it is quoted.
    pub(crate) fn without_name(&self, name: &str) -> Self {
        let details = self.details.to_string().replace(name, "<name>");
        Self {
            message: self.message.replace(name, "<name>"),
            details: serde_json::from_str(&details).unwrap(),
            ..self.clone()
        }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let details = if status.details().is_empty() {
            Value::Null
        } else {
            let envelope = DESCRIPTOR_POOL.get_message_by_name("google.rpc.Status").unwrap();
            to_json(&envelope, status.details())["details"].take()
        };
        let info = details.as_array().into_iter().flatten().find(|detail| detail["domain"] == "agentrouter");
        let reason = info.and_then(|info| info["reason"].as_str()).unwrap_or_default().to_owned();
        Self { code: status.code(), reason, message: status.message().to_owned(), details }
    }
}

/// Why the one item of a batch failed; none where the answer is of no batch, or the item succeeded.
pub(crate) fn item_failure(answer: &Value) -> Option<&str> {
    answer["results"][0]["error_reason"].as_str().filter(|reason| !reason.is_empty())
}

/// Everything that an outcome tells, as one text.
pub(crate) fn told(outcome: &Outcome) -> String {
    match outcome {
        Ok(answer) => answer.to_string(),
        Err(refusal) => format!("{}\n{}", refusal.message, refusal.details),
    }
}

/// An RPC by the short name of its service, such as `TenancyService/GetCustomer`.
pub(crate) fn method(name: &str) -> &'static MethodDescriptor {
    static METHODS: LazyLock<HashMap<String, MethodDescriptor>> =
        LazyLock::new(|| methods().map(|method| (short_name(&method), method)).collect());
    METHODS.get(name).unwrap_or_else(|| panic!("there is no RPC {name}"))
}

/// Every RPC of this API.
pub(crate) fn methods() -> impl Iterator<Item = MethodDescriptor> {
    let ours = DESCRIPTOR_POOL.services().filter(|service| service.full_name().starts_with("agentrouter."));
    ours.flat_map(|service| service.methods().collect::<Vec<_>>())
}

/// Whether an RPC says of itself that it changes nothing.
pub(crate) fn only_reads(name: &str) -> bool {
    let options = method(name).method_descriptor_proto().options.as_ref();
    options.is_some_and(|options| options.idempotency_level() == IdempotencyLevel::NoSideEffects)
}

pub(crate) fn short_name(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().name(), method.name())
}

/// Calls the RPCs of one server.
#[derive(Clone)]
pub(crate) struct Client(pub(crate) Channel);

impl Client {
    /// Calls an RPC with a bearer token, or without. Of a stream, the first message is the answer.
    pub(crate) async fn call(&self, name: &str, request: &Value, token: Option<&str>) -> Outcome {
        self.call_with(name, request, token, &[]).await
    }

    /// The same with metadata.
    pub(crate) async fn call_with(
        &self,
        name: &str,
        request: &Value,
        token: Option<&str>,
        metadata: &[(&'static str, &str)],
    ) -> Outcome {
        let method = method(name);
        let message = DynamicMessage::deserialize(method.input(), request)
            .unwrap_or_else(|error| panic!("{name} {request}: {error}"));
        let mut request = Request::new(Bytes::from(message.encode_to_vec()));
        let authorization = token.map(|token| format!("Bearer {token}"));
        let authorization = authorization.iter().map(|value| ("authorization", value.as_str()));
        for (key, value) in metadata.iter().copied().chain(authorization) {
            request.metadata_mut().insert(key, value.parse().unwrap());
        }
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let path = PathAndQuery::try_from(path).unwrap();
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.unwrap();
        let bytes = if method.is_server_streaming() {
            let mut stream = grpc.server_streaming(request, path, Raw).await?.into_inner();
            stream.message().await?.unwrap_or_default()
        } else {
            grpc.unary(request, path, Raw).await?.into_inner()
        };
        Ok(to_json(&method.output(), &bytes))
    }

    /// A call that must succeed.
    pub(crate) async fn ask(&self, name: &str, request: &Value, token: &str) -> Value {
        let outcome = self.call(name, request, Some(token)).await;
        outcome.unwrap_or_else(|refusal| panic!("{name} {request}: {refusal:?}"))
    }
}

pub(crate) fn to_json(desc: &MessageDescriptor, bytes: &[u8]) -> Value {
    let message = DynamicMessage::decode(desc.clone(), bytes).unwrap();
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}

/// Passes encoded messages through as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
