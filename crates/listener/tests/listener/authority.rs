//! An authority of its own for a test: issues certificates, and keeps them in files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentrouter_listener::{ClientCertificates, MinVersion, Tls, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use crate::server::Server;

pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("a file");
        Self { folder, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) fn issue(&self, name: &str, uri: Option<&str>) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(uri) = uri {
            params.subject_alt_names.push(SanType::URI(uri.try_into().expect("a URI")));
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Puts a server's certificate and key into their files.
    pub(crate) fn install(&self, identity: &Identity) {
        std::fs::write(self.path("server.pem"), &identity.certificate).expect("a file");
        std::fs::write(self.path("server.key"), &identity.key).expect("a file");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn files(&self, clients: ClientCertificates, min_version: MinVersion) -> TlsFiles {
        let (certificates, key) = (self.path("server.pem"), self.path("server.key"));
        TlsFiles { certificates, key, clients, min_version }
    }

    /// What a server needs to be `localhost`.
    pub(crate) async fn tls(&self, clients: ClientCertificates, min_version: MinVersion) -> Tls {
        self.install(&self.issue("localhost", None));
        Tls::load(self.files(clients, min_version)).await.expect("good files")
    }
}

/// How a client speaks TLS.
#[derive(Default)]
pub(crate) struct Dialer<'a> {
    pub(crate) identity: Option<&'a Identity>,
    pub(crate) protocols: &'a [&'a [u8]],
    pub(crate) versions: &'a [&'static SupportedProtocolVersion],
}

impl Dialer<'_> {
    /// Shakes hands with a server that is `localhost` by this authority.
    pub(crate) async fn dial(
        &self,
        server: &Server,
        ca_file: &Path,
    ) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca_file).expect("a certificate")).expect("a root");
        let versions =
            if self.versions.is_empty() { tokio_rustls::rustls::ALL_VERSIONS } else { self.versions };
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match self.identity {
            Some(identity) => {
                let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
                builder
                    .with_client_auth_cert(vec![certificate.expect("a certificate")], key.expect("a key"))
                    .expect("they fit")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, server.connect().await).await
    }
}
