//! A gRPC backend over dynamic messages. Framing, status and streams are
//! tonic's own server, so the transcoder meets what a real service sends.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _};
use http::{Request as HttpRequest, Response as HttpResponse};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, Value};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::service_fn;
use tower::util::BoxCloneSyncService;

/// What a layer around the gateway left for the service.
#[derive(Debug, Clone)]
pub(crate) struct Principal(pub(crate) &'static str);

pub(crate) type Backend = BoxCloneSyncService<HttpRequest<Body>, HttpResponse<Body>, Infallible>;

/// Answers every method with its request, but for `Fail`, `GetBook` and streams of one side.
pub(crate) fn backend(pool: DescriptorPool) -> Backend {
    BoxCloneSyncService::new(service_fn(move |request: HttpRequest<Body>| {
        let pool = pool.clone();
        async move { Ok::<_, Infallible>(serve(&pool, request).await) }
    }))
}

async fn serve(pool: &DescriptorPool, request: HttpRequest<Body>) -> HttpResponse<Body> {
    assert_eq!(request.method(), http::Method::POST);
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let method = method(pool, request.uri().path());
    let Some(method) = method.filter(|method| method.name() != "NotThere") else {
        return Status::unimplemented("no such method").into_http();
    };
    let codec = DynamicCodec(method.input());
    let mut grpc = tonic::server::Grpc::new(codec);
    // The messages of the probes have one field of every kind.
    let is_probe = method.output().get_field_by_name("strings").is_some();
    match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => {
            let service = service_fn(move |request| {
                let method = method.clone();
                async move { unary(&method, request) }
            });
            grpc.unary(service, request).await
        }
        (false, true) => {
            let output = method.output();
            let service = service_fn(move |request: Request<DynamicMessage>| {
                let output = output.clone();
                async move { count(&output, request.get_ref()).map(Response::new) }
            });
            grpc.server_streaming(service, request).await
        }
        (true, false) if is_probe => {
            let output = method.output();
            let service = service_fn(move |request: Request<Streaming<DynamicMessage>>| {
                let output = output.clone();
                async move { collect(output, request.into_inner()).await.map(Response::new) }
            });
            grpc.client_streaming(service, request).await
        }
        (true, true) if is_probe => {
            let service = service_fn(|request: Request<Streaming<DynamicMessage>>| async {
                Ok(Response::new(request.into_inner()))
            });
            grpc.streaming(service, request).await
        }
        (true, _) => streams_in(method, grpc, request).await,
    }
}

/// Gives back what comes in, at the end or message by message.
async fn streams_in(
    method: MethodDescriptor,
    mut grpc: tonic::server::Grpc<DynamicCodec>,
    request: HttpRequest<Body>,
) -> HttpResponse<Body> {
    let is_streaming = method.is_server_streaming();
    let field = method.output().fields().find(|field| field.is_list() && field.number() == 1);
    let output = method.output();
    if is_streaming {
        let service = service_fn(|request: Request<Streaming<DynamicMessage>>| async move {
            let echo = request.into_inner().map(|item| match item {
                Ok(item) if text(&item, "text") == "fail" => Err(Status::aborted("as asked")),
                other => other,
            });
            Ok(Response::new(echo))
        });
        return grpc.streaming(service, request).await;
    }
    let service = service_fn(move |request: Request<Streaming<DynamicMessage>>| {
        let (output, field) = (output.clone(), field.clone());
        async move {
            let mut messages = request.into_inner();
            let mut all = Vec::new();
            loop {
                match messages.message().await {
                    Ok(Some(message)) => all.push(Value::Message(message)),
                    Ok(None) => break,
                    // A service that thinks nothing of errors.
                    Err(_) if all.len() == 1 => break,
                    Err(status) => return Err(status),
                }
            }
            let mut answer = DynamicMessage::new(output);
            if let Some(field) = field {
                answer.set_field(&field, Value::List(all));
            }
            Ok(Response::new(answer))
        }
    });
    grpc.client_streaming(service, request).await
}

pub(crate) fn method(pool: &DescriptorPool, path: &str) -> Option<MethodDescriptor> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    pool.get_service_by_name(service)?.methods().find(|method| method.name() == name)
}

fn unary(
    method: &MethodDescriptor,
    request: Request<DynamicMessage>,
) -> Result<Response<DynamicMessage>, Status> {
    let seen: Vec<(String, http::HeaderValue)> = request
        .metadata()
        .as_ref()
        .iter()
        .map(|(name, value)| (format!("x-seen-{name}"), value.clone()))
        .collect();
    let principal = request.extensions().get::<Principal>().map(|principal| principal.0);
    let request = request.into_inner();

    let answer = match method.name() {
        "Fail" => return Err(failure(&request)),
        "GetBook" => book(&method.output(), &request),
        "PutBlob" => {
            let mut file = DynamicMessage::new(method.output());
            file.set_field_by_name("content", Value::Message(request));
            file
        }
        _ if method.output() == method.input() => request,
        _ => DynamicMessage::new(method.output()),
    };
    let mut response = Response::new(answer);
    let headers = response.metadata_mut().as_mut();
    headers.insert("x-rpc", method.full_name().parse().expect("a header value"));
    for (name, value) in seen {
        headers.append(http::HeaderName::try_from(name).expect("a header name"), value);
    }
    if let Some(principal) = principal {
        headers.insert("x-principal", principal.parse().expect("a header value"));
    }
    headers.append("set-cookie", http::HeaderValue::from_static("a=1"));
    headers.append("set-cookie", http::HeaderValue::from_static("b=2"));
    Ok(response)
}

fn book(desc: &MessageDescriptor, request: &DynamicMessage) -> DynamicMessage {
    let mut book = DynamicMessage::new(desc.clone());
    let id = request.get_field_by_name("id").expect("a field").into_owned();
    let etag = format!("v1-{}", id.as_str().expect("a string"));
    book.set_field_by_name("id", id);
    book.set_field_by_name("etag", Value::String(etag));
    book
}

fn failure(request: &DynamicMessage) -> Status {
    let details = request.get_field_by_name("details").expect("a field");
    let details = details.as_list().expect("a list").iter().filter_map(Value::as_message);
    let status = tonic_types::pb::Status {
        code: number(request, "code"),
        message: text(request, "message"),
        details: details.map(|any| any.transcode_to().expect("an Any")).collect(),
    };
    let mut failure = if status.details.is_empty() {
        Status::new(Code::from(status.code), status.message)
    } else {
        Status::with_details(Code::from(status.code), status.message.clone(), status.encode_to_vec().into())
    };
    failure.metadata_mut().insert("x-error-metadata", "kept".parse().expect("a metadata value"));
    failure
}

pub(crate) type Numbers = Pin<Box<dyn Stream<Item = Result<DynamicMessage, Status>> + Send>>;

fn count(output: &MessageDescriptor, request: &DynamicMessage) -> Result<Numbers, Status> {
    let (to, fail) = (number(request, "to"), number(request, "fail"));
    if to < 0 {
        return Err(Status::out_of_range("cannot count down"));
    }
    let output = output.clone();
    let numbers = stream::iter(1..=to).map(move |number| {
        let mut message = DynamicMessage::new(output.clone());
        message.set_field_by_name("number", Value::I32(number));
        message.set_field_by_name("square", Value::I64(i64::from(number) * i64::from(number)));
        Ok(message)
    });
    let end = stream::iter((fail != 0).then(|| Err(Status::new(Code::from(fail), "counted enough"))));
    let delay = request.get_field_by_name("delay").and_then(|delay| {
        let seconds = delay.as_message()?.get_field_by_name("seconds")?.as_i64()?;
        u64::try_from(seconds).ok()
    });
    let begin = stream::once(tokio::time::sleep(Duration::from_secs(delay.unwrap_or_default())))
        .filter_map(|()| async { None });
    Ok(Box::pin(begin.chain(numbers).chain(end)))
}

/// The last message, with `s` of all of them.
async fn collect(
    output: MessageDescriptor,
    mut requests: Streaming<DynamicMessage>,
) -> Result<DynamicMessage, Status> {
    let mut last = DynamicMessage::new(output);
    let mut texts = Vec::new();
    while let Some(request) = requests.message().await? {
        texts.push(Value::String(text(&request, "s")));
        last = request;
    }
    last.set_field_by_name("strings", Value::List(texts));
    Ok(last)
}

pub(crate) fn number(message: &DynamicMessage, field: &str) -> i32 {
    message.get_field_by_name(field).and_then(|value| value.as_i32()).expect("an int32 field")
}

pub(crate) fn text(message: &DynamicMessage, field: &str) -> String {
    message
        .get_field_by_name(field)
        .and_then(|value| value.as_str().map(str::to_owned))
        .expect("a string field")
}

pub(crate) struct DynamicCodec(pub(crate) MessageDescriptor);

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = DynamicEncoder;
    type Decoder = DynamicDecoder;

    fn encoder(&mut self) -> DynamicEncoder {
        DynamicEncoder
    }

    fn decoder(&mut self) -> DynamicDecoder {
        DynamicDecoder(self.0.clone())
    }
}

pub(crate) struct DynamicEncoder;

impl Encoder for DynamicEncoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

pub(crate) struct DynamicDecoder(MessageDescriptor);

impl Decoder for DynamicDecoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.0.clone(), buffer);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
