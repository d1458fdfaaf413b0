//! A proxy that gives any gRPC server REST, gRPC-Web and Connect, and needs none of its code.
//!
//! ```text
//! cargo run -p agentrouter-gateway --example proxy -- --upstream http://localhost:50051
//! ```
//!
//! The descriptors are those of the server's reflection service, or of a file such as `buf build -o library.binpb` or
//! `protoc --include_imports --descriptor_set_out=library.binpb` write.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program tells where it listens, or why it does not"
)]

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use agentrouter_gateway::remote::{Remote, reflect};
use agentrouter_gateway::{BuildError, Options, ProtocolOptions, Protocols, Transcoder, descriptor_pool};
use clap::Parser;
use tokio::net::TcpListener;

/// REST, gRPC, gRPC-Web and Connect in front of a gRPC server.
#[derive(Debug, Parser)]
struct Arguments {
    /// The gRPC server, such as http://localhost:50051, https://library.example or unix:/run/library.
    #[arg(long)]
    upstream: String,
    /// A file with a FileDescriptorSet; without it, the server is asked by reflection.
    #[arg(long)]
    descriptors: Option<PathBuf>,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    // Connected when it is needed, and again when it was away.
    let upstream = Remote::connect(&arguments.upstream)?;
    let mut pool = match arguments.descriptors {
        Some(file) => descriptor_pool(&tokio::fs::read(file).await?)?,
        None => reflect(upstream.clone()).await?,
    };
    // Health passes through, whether or not the file tells of it.
    if pool.get_service_by_name("grpc.health.v1.Health").is_none() {
        pool.decode_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)?;
    }

    let rest = match Transcoder::new(&pool, upstream.clone()) {
        // Services without rules have no REST, and all the other protocols.
        Err(BuildError::NoAnnotations) => Transcoder::without_routes(&pool, upstream, Options::default()),
        rest => rest?,
    };
    for route in rest.routes() {
        println!("{:6} {:40} {}", route.method, route.template, route.rpc);
    }
    let app = Protocols::new(&pool, rest, ProtocolOptions::default());

    let listener = TcpListener::bind(arguments.listen).await?;
    println!("http://{} before {}", listener.local_addr()?, arguments.upstream);
    axum::serve(listener, axum::Router::new().fallback_service(app)).await?;
    Ok(())
}
