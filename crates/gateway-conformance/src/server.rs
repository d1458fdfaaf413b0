//! The listener: HTTP/1.1 and HTTP/2 on one port, in the clear or over TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use agentrouter_gateway::{ProtocolOptions, Protocols, Transcoder};
use anyhow::{Context, Result};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use prost_reflect::DescriptorPool;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;

use crate::proto::conformance_service_server::ConformanceServiceServer;
use crate::proto::{FILE_DESCRIPTOR_SET, ServerCompatRequest};
use crate::service::Conformance;

/// A server that is about to serve.
pub(crate) struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
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
        Ok(Self {
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
            tls: request.use_tls.then(|| acceptor(request)).transpose()?,
            protocols: Protocols::new(&pool, rest, options),
        })
    }

    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until the process is ended.
    pub(crate) async fn serve(self) -> Result<()> {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = tokio::select! {
                accepted = self.listener.accept() => accepted?,
                Some(_) = connections.join_next() => continue,
            };
            stream.set_nodelay(true)?;
            let (tls, protocols) = (self.tls.clone(), self.protocols.clone());
            // A client that breaks off is none of the server's business.
            connections.spawn(async move {
                match tls {
                    None => connection(stream, protocols).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            connection(stream, protocols).await;
                        }
                    }
                }
            });
        }
    }
}

async fn connection<S>(stream: S, protocols: Protocols<Routes>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(protocols)).await;
    drop(served);
}

fn acceptor(request: &ServerCompatRequest) -> Result<TlsAcceptor> {
    let credentials = request.server_creds.as_ref().context("a server with TLS needs a certificate")?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&credentials.cert).collect::<Result<_, _>>().context("certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&credentials.key).context("key")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if request.client_tls_cert.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut trusted = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&request.client_tls_cert) {
            trusted.add(certificate.context("client certificate")?)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), provider).build()?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
