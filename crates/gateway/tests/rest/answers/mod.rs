//! What answers look like: their form, status, headers and encoding, by what a request asks for.

mod conditions;
mod encodings;
mod forms;
mod service;
mod statuses;
mod streams;

use std::path::Path;
use std::sync::OnceLock;

use agentrouter_gateway::{AnswerOptions, Options, Transcoder};
use http::{HeaderName, HeaderValue};

use prost_reflect::DescriptorPool;

use super::backend::Backend;
use super::{Answer, request, send};

/// The service, alone.
fn pool() -> DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let includes = [root.join("tests/proto"), root.join("../../proto")];
        let mut compiler = protox::Compiler::new(includes).expect("the include folders");
        compiler.include_imports(true).open_files(["answers_test.proto"]).expect("protos that compile");
        compiler.descriptor_pool()
    })
    .clone()
}

pub(super) fn with(answers: AnswerOptions) -> Transcoder<Backend> {
    let options = Options { answers, ..Options::default() };
    Transcoder::with_options(&pool(), service::backend(pool()), options).expect("rules that can be served")
}

pub(super) fn asking(
    uri: &str,
    headers: &[(&'static str, &'static str)],
) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let mut request = request("GET", uri, "");
    for (name, value) in headers {
        request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    request
}

pub(super) async fn get(
    answers: AnswerOptions,
    uri: &str,
    headers: &[(&'static str, &'static str)],
) -> Answer {
    send(&with(answers), asking(uri, headers)).await
}
