//! Descriptors from the upstream itself.

use std::net::SocketAddr;

use agentrouter_gateway::remote::{ReflectError, Remote, reflect};
use agentrouter_gateway::{Options, ProtocolOptions, Protocols, Transcoder};
use futures::stream::{BoxStream, StreamExt as _};
use prost_reflect::DescriptorPool;
use serde_json::json;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::server_reflection_server::{ServerReflection, ServerReflectionServer};
use tonic_reflection::pb::v1::{
    ErrorResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest,
    ServerReflectionResponse, ServiceResponse,
};

use crate::upstream::{Upstream, services, with_backend};
use crate::{PROTOCOLS, call, descriptors, front, get, pool, request, send, wire};

/// A reflection service as servers in other languages have it: one file an answer, with its annotations.
struct Files {
    pool: DescriptorPool,
    /// What it does not send though others import it.
    hidden: &'static str,
}

impl Files {
    fn answer(&self, question: Option<MessageRequest>) -> MessageResponse {
        let file = match question {
            Some(MessageRequest::ListServices(_)) => {
                let named = self.pool.services().map(|service| service.full_name().to_owned());
                let service = named.chain(["not.described.Service".to_owned()]);
                let service = service.map(|name| ServiceResponse { name }).collect();
                return MessageResponse::ListServicesResponse(ListServiceResponse { service });
            }
            Some(MessageRequest::FileContainingSymbol(name)) => {
                self.pool.get_service_by_name(&name).map(|service| service.parent_file())
            }
            Some(MessageRequest::FileByFilename(name)) => {
                self.pool.get_file_by_name(&name).filter(|_| name != self.hidden)
            }
            _ => None,
        };
        match file {
            Some(file) => MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                file_descriptor_proto: vec![file.encode_to_vec()],
            }),
            None => MessageResponse::ErrorResponse(ErrorResponse {
                error_code: i32::from(Code::NotFound),
                error_message: "not here".to_owned(),
            }),
        }
    }
}

#[tonic::async_trait]
impl ServerReflection for Files {
    type ServerReflectionInfoStream = BoxStream<'static, Result<ServerReflectionResponse, Status>>;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let (pool, hidden) = (self.pool.clone(), self.hidden);
        let answers = request.into_inner().map(move |question| {
            let files = Files { pool: pool.clone(), hidden };
            let message_response = Some(files.answer(question?.message_request));
            Ok(ServerReflectionResponse { message_response, ..ServerReflectionResponse::default() })
        });
        Ok(Response::new(answers.boxed()))
    }
}

fn describing(hidden: &'static str) -> Upstream {
    let reflection = ServerReflectionServer::new(Files { pool: pool(), hidden });
    Upstream::start(with_backend(Routes::new(reflection), pool()))
}

fn remote(upstream: &Upstream) -> Remote {
    Remote::connect(&upstream.uri()).expect("an address")
}

/// Nothing but an address is needed.
#[tokio::test]
async fn all_protocols_by_reflection() {
    let upstream = describing("");
    let reflected = reflect(remote(&upstream)).await.expect("descriptors");
    let front = front(&upstream.uri(), &reflected);
    let item = get(&front, "/v2/items/a%2Fb?numbers=1&numbers=2").await;
    assert_eq!(item.status, 200, "{item:?}");
    assert_eq!((&item.json()["s"], &item.json()["numbers"]), (&json!("a/b"), &json!([1, 2])));
    let message = wire("gateway.test.v1.Everything", &json!({"s": "a"}));
    for protocol in PROTOCOLS {
        let chat = call(&front, protocol, "Chat", &[], &[message.clone(), message.clone()]).await;
        assert_eq!((chat.messages.len(), chat.code), (2, 0), "{protocol}");
    }
}

/// Servers that only have the older name of the service are asked by that.
#[tokio::test]
async fn tonics_reflection_of_both_versions() {
    let builder =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(descriptors());
    let v1 = Routes::new(builder().build_v1().expect("descriptors"));
    let v1alpha = Routes::new(builder().build_v1alpha().expect("descriptors"));
    for (version, routes) in [("v1", v1), ("v1alpha", v1alpha)] {
        let upstream = Upstream::start(with_backend(routes, pool()));
        let reflected = reflect(remote(&upstream)).await.expect(version);
        let front = front(&upstream.uri(), &reflected);
        assert_eq!(get(&front, "/v2/items/a").await.json()["s"], "a", "{version}");
        let message = wire("gateway.test.v1.Everything", &json!({"s": "a"}));
        for protocol in PROTOCOLS {
            let chat = call(&front, protocol, "Chat", &[], std::slice::from_ref(&message)).await;
            assert_eq!((chat.messages.len(), chat.code), (1, 0), "{version} {protocol}");
        }
    }
}

/// Services without a single annotation are served by the rpc protocols.
#[tokio::test]
async fn services_without_annotations() {
    let (_, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("descriptors");
    let upstream = Upstream::start(Routes::new(health).add_service(reflection));
    let remote = remote(&upstream);
    let reflected = reflect(remote.clone()).await.expect("descriptors");
    assert!(Transcoder::new(&reflected, remote.clone()).is_err());
    let rest = Transcoder::without_routes(&reflected, remote, Options::default());
    let front = Protocols::new(&reflected, rest, ProtocolOptions::default());
    let unary = [("content-type", "application/json")];
    let answer = send(&front, request("POST", "/grpc.health.v1.Health/Check", &unary, "{}")).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"status": "SERVING"})));
    assert_eq!(get(&front, "/v2/items/a").await.status, 404);
}

/// What every implementation of protobuf has need not be sent; anything else that is missing is named.
#[tokio::test]
async fn missing_files() {
    let upstream = describing("google/protobuf/timestamp.proto");
    assert!(reflect(remote(&upstream)).await.is_ok());
    let upstream = describing("google/api/annotations.proto");
    match reflect(remote(&upstream)).await {
        Err(ReflectError::MissingFile(name)) => assert_eq!(name, "google/api/annotations.proto"),
        other => panic!("{other:?}"),
    }
}

/// A server without the service says so, and one that is away, too.
#[tokio::test]
async fn no_reflection() {
    let code = |error: ReflectError| match error {
        ReflectError::Call(status) => status.code(),
        other => panic!("{other}"),
    };
    let upstream = Upstream::start(services(pool()));
    assert_eq!(code(reflect(remote(&upstream)).await.expect_err("no service")), Code::Unimplemented);
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let remote = Remote::connect(&format!("http://{nobody}")).expect("an address");
    assert_eq!(code(reflect(remote).await.expect_err("no server")), Code::Unavailable);
}
