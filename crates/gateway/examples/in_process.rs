//! A service of tonic's with REST, gRPC, gRPC-Web and Connect on one port, in one process.
//!
//! ```text
//! cargo run -p agentrouter-gateway --example in_process
//! curl localhost:8080/v1/health/library
//! curl -N localhost:8080/v1/health/library:watch
//! curl localhost:8080/grpc.health.v1.Health/Check -H 'content-type: application/json' -d '{"service": "library"}'
//! grpcurl -plaintext -proto crates/gateway/examples/health.proto localhost:8080 grpc.health.v1.Health/Check
//! ```
//!
//! The service is that of tonic-health, for the example to need no generated code; one of your own is served alike.

#![expect(clippy::print_stdout, reason = "a program tells where it listens")]

use std::error::Error;

use agentrouter_gateway::{DeadlineLayer, ProtocolOptions, Protocols, Transcoder};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The service, as tonic serves it. Layers around it (authentication, limits, metrics) see every protocol alike.
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("library", ServingStatus::Serving).await;
    let backend = ServiceBuilder::new().layer(DeadlineLayer).service(Routes::new(health).prepare());

    // Its descriptors. A program that has a build script writes `Compiler::encode_file_descriptor_set` there, and
    // decodes those bytes here.
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let annotations = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
    let mut compiler = protox::Compiler::new([here, annotations])?;
    compiler.include_imports(true).open_file("health.proto")?;
    let pool = compiler.descriptor_pool();

    let rest = Transcoder::new(&pool, backend)?;
    for route in rest.routes() {
        println!("{:6} {:30} {}", route.method, route.template, route.rpc);
    }
    let app = Protocols::new(&pool, rest, ProtocolOptions::default());

    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, axum::Router::new().fallback_service(app)).await?;
    Ok(())
}
