//! The transcoder over a real gRPC server, one request at a time. Test names
//! and comments cite the rows of the gateway checklist they decide ("A2 #37").

#![expect(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

mod answers;
mod backend;
mod binding;
mod bodies;
mod build;
mod errors;
mod forms;
mod headers;
mod json;
mod multipart;
mod openapi;
mod options;
mod partial;
mod patch;
mod paths;
mod rules;
mod streams;
mod uploads;

use std::path::Path;
use std::sync::OnceLock;

use agentrouter_gateway::{Options, Transcoder};
use backend::{Backend, backend};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use prost_reflect::DescriptorPool;
use serde_json::Value;
use tower::ServiceExt as _;

/// The test services with everything they import, compiled once.
fn pool() -> DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let includes = [root.join("tests/proto"), root.join("../../proto")];
        let mut compiler = protox::Compiler::new(includes).expect("the include folders");
        compiler.include_imports(true);
        compiler
            .open_files(["gateway_test.proto", "requests_test.proto", "google/rpc/error_details.proto"])
            .expect("protos that compile");
        compiler.descriptor_pool()
    })
    .clone()
}

fn transcoder() -> Transcoder<Backend> {
    transcoder_with(Options::default())
}

fn transcoder_with(options: Options) -> Transcoder<Backend> {
    Transcoder::with_options(&pool(), backend(pool()), options).expect("rules that can be served")
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// The `field: REASON` of every violation of a 400.
    #[track_caller]
    fn violations(&self) -> Vec<String> {
        assert_eq!(self.status, 400, "{self:?}");
        let json = self.json();
        assert_eq!(json["code"], 3);
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let details = json["details"].as_array().expect("details");
        let bad_request = details
            .iter()
            .find(|detail| detail["@type"] == "type.googleapis.com/google.rpc.BadRequest")
            .unwrap_or_else(|| panic!("no BadRequest: {json}"));
        let violations = bad_request["field_violations"].as_array().expect("violations");
        violations.iter().map(|v| format!("{}: {}", text(&v["field"]), text(&v["reason"]))).collect()
    }

    /// The reason of the `ErrorInfo`.
    fn reason(&self) -> String {
        self.json()["details"][0]["reason"].as_str().unwrap_or_default().to_owned()
    }
}

async fn send(transcoder: &Transcoder<Backend>, request: Request<Full<Bytes>>) -> Answer {
    let response = transcoder.clone().oneshot(request).await.expect("infallible");
    answer(response).await
}

async fn answer(response: Response<tonic::body::Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}

fn request(method: &str, uri: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let method: Method = method.parse().expect("a method");
    let request = Request::builder().method(method).uri(uri);
    request.body(Full::new(body.into())).expect("a request")
}

async fn get(uri: &str) -> Answer {
    send(&transcoder(), request("GET", uri, "")).await
}

async fn post(uri: &str, body: impl Into<Bytes>) -> Answer {
    send(&transcoder(), request("POST", uri, body)).await
}
