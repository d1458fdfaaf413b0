//! The gateway on the product's own listener: HTTP/1.1 and HTTP/2 on one port, in the clear or over TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use agentrouter_gateway::{ProtocolOptions, Protocols, Transcoder};
use agentrouter_listener::{ClientCertificates, Limits, MinVersion, Settings, Tls, TlsFiles};
use anyhow::{Context, Result};
use prost_reflect::DescriptorPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::proto::conformance_service_server::ConformanceServiceServer;
use crate::proto::{FILE_DESCRIPTOR_SET, ServerCompatRequest};
use crate::service::Conformance;

/// A server that is about to serve.
pub(crate) struct Server {
    listener: TcpListener,
    settings: Settings,
    protocols: Protocols<Routes>,
}

impl Server {
    pub(crate) async fn bind(request: &ServerCompatRequest) -> Result<Self> {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET)?;
        let limit = match request.message_receive_limit {
            0 => usize::MAX,
            limit => usize::try_from(limit)?,
        };
        let service = ConformanceServiceServer::new(Conformance).max_decoding_message_size(usize::MAX);
        let rest = Transcoder::new(&pool, Routes::new(service))?;
        // Whatever can be compressed shall be, so that it is tested.
        let options = ProtocolOptions { max_message_bytes: limit, compress_from: 1 };
        let tls = if request.use_tls { Some(tls(request).await?) } else { None };
        Ok(Self {
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
            // The runner's own clients keep idle connections for as long as they like.
            settings: Settings { tls, limits: Limits { head: Duration::from_hours(1), ..Limits::default() } },
            protocols: Protocols::new(&pool, rest, options),
        })
    }

    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until the process is ended.
    pub(crate) async fn serve(self) -> Result<()> {
        let stop = CancellationToken::new();
        Ok(agentrouter_listener::serve(self.listener, self.settings, self.protocols, stop).await?)
    }
}

/// What the request brings as bytes, as the files that the listener reads.
async fn tls(request: &ServerCompatRequest) -> Result<Tls> {
    let credentials = request.server_creds.as_ref().context("a server with TLS needs a certificate")?;
    let folder = tempfile::tempdir()?;
    let file = async |name: &str, pem: &[u8]| write(folder.path(), name, pem).await;
    let clients = if request.client_tls_cert.is_empty() {
        ClientCertificates::None
    } else {
        ClientCertificates::Required(file("clients.pem", &request.client_tls_cert).await?)
    };
    let files = TlsFiles {
        certificates: file("server.pem", &credentials.cert).await?,
        key: file("key.pem", &credentials.key).await?,
        clients,
        min_version: MinVersion::default(),
    };
    Ok(Tls::load(files).await?)
}

async fn write(folder: &Path, name: &str, pem: &[u8]) -> Result<std::path::PathBuf> {
    let path = folder.join(name);
    tokio::fs::write(&path, pem).await?;
    Ok(path)
}
