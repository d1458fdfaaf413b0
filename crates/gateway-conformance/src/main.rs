//! The server that the runner of the Connect conformance suite tests: the suite's service behind the gateway's
//! protocols, one process for each way of serving (A11 #110).
//!
//! The runner tells on standard input how to serve, and is told on standard output where. `cargo xtask conformance`
//! runs it all.

mod answer;
mod proto;
mod seen;
mod server;
mod service;
mod streams;

use std::io::{Read as _, Write as _};

use anyhow::{Context, Result};
use prost::Message as _;
use proto::{ServerCompatRequest, ServerCompatResponse};

#[tokio::main]
async fn main() -> Result<()> {
    let mut stdin = std::io::stdin();
    let mut length = [0; 4];
    stdin.read_exact(&mut length).context("the length of the request")?;
    let mut bytes = vec![0; usize::try_from(u32::from_be_bytes(length))?];
    stdin.read_exact(&mut bytes).context("the request")?;
    let request = ServerCompatRequest::decode(&*bytes).context("the request")?;

    let server = server::Server::bind(&request).await?;
    let address = server.address()?;
    let pem_cert = request.server_creds.map(|credentials| credentials.cert).unwrap_or_default();
    let response =
        ServerCompatResponse { host: address.ip().to_string(), port: address.port().into(), pem_cert };
    let bytes = response.encode_to_vec();
    let mut stdout = std::io::stdout();
    stdout.write_all(&u32::try_from(bytes.len())?.to_be_bytes())?;
    stdout.write_all(&bytes)?;
    stdout.flush()?;

    server.serve().await
}
