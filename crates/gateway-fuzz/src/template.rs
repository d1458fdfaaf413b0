//! Path templates, and what they match.

use std::convert::Infallible;
use std::sync::LazyLock;

use agentrouter_gateway::Transcoder;
use http::{Method, Request, Response, Uri};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::DescriptorPool;
use tonic::body::Body;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use crate::answer::{Asked, check};
use crate::backend::Backend;
use crate::requests::split;
use crate::world::{Answer, send};

/// The most rules, and the most requests.
const MOST: usize = 5;

static SHAPE: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let bytes = &include_bytes!(concat!(env!("OUT_DIR"), "/shape.bin"))[..];
    DescriptorPool::decode(bytes).expect("a descriptor set")
});

/// A rule: its number, which is the rpc's name, its method and its template.
#[derive(Debug, Clone, Copy)]
struct Rule<'d> {
    number: usize,
    method: &'d str,
    template: &'d str,
}

/// Lines of `METHOD template`, an empty line, and lines of `METHOD path`.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (rules, requests) = split(text.as_bytes(), b"\n\n");
    let rules: Vec<Rule<'_>> = pairs(rules)
        .enumerate()
        .map(|(number, (method, template))| Rule { number, method, template })
        .collect();
    if rules.is_empty() {
        return;
    }
    let reversed: Vec<Rule<'_>> = rules.iter().rev().copied().collect();
    let (together, reversed) = match (transcoder(&rules), transcoder(&reversed)) {
        (Some(together), Some(reversed)) => (together, reversed),
        (None, None) => return,
        _ => panic!("the order of rules decides whether they can be served: {rules:?}"),
    };
    let alone: Vec<Transcoder<Backend>> = rules
        .iter()
        .map(|rule| transcoder(&[*rule]).expect("a rule that is good beside others is good alone"))
        .collect();
    for (method, path) in pairs(requests) {
        let (Ok(method), Ok(uri)) = (Method::from_bytes(method.as_bytes()), Uri::try_from(path)) else {
            continue;
        };
        let asked = Asked { is_head: method == Method::HEAD, ..Asked::default() };
        let answer = ask(&together, &method, &uri);
        check(asked, &answer);
        assert_eq!(
            answer,
            ask(&reversed, &method, &uri),
            "the order of rules decides: {rules:?} {method} {uri}"
        );
        let alone: Vec<Answer> = alone.iter().map(|one| ask(one, &method, &uri)).collect();
        assert_eq!(
            is_found(&answer),
            alone.iter().any(is_found),
            "rules hide each other: {rules:?} {method} {uri}: {answer:?} {alone:?}"
        );
    }
}

/// Whether a route was found, even if the path is not fit for it.
fn is_found(answer: &Answer) -> bool {
    answer.status != 404 && answer.status != 405
}

fn pairs(lines: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let lines = std::str::from_utf8(lines).unwrap_or_default().lines();
    lines.filter_map(|line| line.split_once(' ')).take(MOST)
}

fn ask(transcoder: &Transcoder<Backend>, method: &Method, uri: &Uri) -> Answer {
    let request = Request::builder().method(method).uri(uri.clone()).body(()).expect("a request");
    send(transcoder.clone(), request, [])
}

/// Serves the rules; none where one of them is refused.
fn transcoder(rules: &[Rule<'_>]) -> Option<Transcoder<Backend>> {
    let mut pool = SHAPE.clone();
    pool.decode_file_descriptor_proto(&file(rules)[..]).expect("a file that is right but for its templates");
    Transcoder::new(&pool, BoxCloneSyncService::new(service_fn(echo))).ok()
}

/// Sends the message back, with the name of the rpc.
async fn echo(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let rpc = request.uri().path().parse().expect("a header value");
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let end = http::HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        http::HeaderValue::from_static("0"),
    )]);
    let frames = [Frame::data(body), Frame::trailers(end)].map(Ok::<_, tonic::Status>);
    let mut response = Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    response.headers_mut().insert("x-rpc", rpc);
    Ok(response)
}

/// A `FileDescriptorProto` with a method for each rule. Descriptors as structs would lose the annotations.
fn file(rules: &[Rule<'_>]) -> Vec<u8> {
    let mut service = field(1, b"Service");
    for Rule { number, method, template } in rules {
        let template = template.as_bytes();
        let pattern = match *method {
            "GET" => field(2, template),
            "PUT" => field(3, template),
            "POST" => field(4, template),
            "DELETE" => field(5, template),
            "PATCH" => field(6, template),
            kind => field(8, &[field(1, kind.as_bytes()), field(2, template)].concat()),
        };
        let rpc = [
            field(1, format!("M{number}").as_bytes()),
            field(2, b".fuzz.Shape"),
            field(3, b".fuzz.Shape"),
            // The options, and among them `google.api.http`.
            field(4, &field(72_295_728, &pattern)),
        ];
        service.extend(field(2, &rpc.concat()));
    }
    let file = [
        field(1, b"fuzz/rules.proto"),
        field(2, b"fuzz"),
        field(3, b"fuzz/shape.proto"),
        field(3, b"google/api/annotations.proto"),
        field(6, &service),
        field(12, b"proto3"),
    ];
    file.concat()
}

/// A field with a length.
fn field(number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut out);
    encode_varint(u64::try_from(value.len()).unwrap_or_default(), &mut out);
    out.extend(value);
    out
}
