//! The files of certificates and keys, and the configuration made of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig, SupportedProtocolVersion};
use zeroize::Zeroizing;

use super::{ClientCertificates, MinVersion, TlsFiles};

/// What is spoken over TLS, the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Both by default; the newer one alone where that is asked for.
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// Why TLS cannot be served from the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds nothing of what it should.
    #[error("{}: there is no {what} in it, in PEM", path.display())]
    Missing {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Certificate and key do not serve together, or there is something wrong with them.
    #[error("{}: {source}", path.display())]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The certificates of those who issue clients' certificates cannot be used.
    #[error("{}: {source}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: VerifierBuilderError,
    },
}

/// The text of the files.
#[derive(PartialEq, Eq)]
pub(super) struct Read {
    certificates: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

impl std::fmt::Debug for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Read(..)")
    }
}

pub(super) async fn read(files: &TlsFiles) -> Result<Read, TlsError> {
    Ok(Read {
        certificates: bytes(&files.certificates).await?,
        key: Zeroizing::new(bytes(&files.key).await?),
        client_ca: match files.clients.authorities() {
            Some(path) => Some(bytes(path).await?),
            None => None,
        },
    })
}

async fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    tokio::fs::read(path).await.map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

impl ClientCertificates {
    fn authorities(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::Optional(path) | Self::Required(path) => Some(path),
        }
    }
}

impl Read {
    /// Sessions are resumed only under the configuration they began with, so that what was asked of a client then is
    /// still asked now.
    pub(super) fn config(&self, files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
        let unusable = |source| TlsError::Unusable { path: files.certificates.clone(), source };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions = match files.min_version {
            MinVersion::Tls12 => VERSIONS.as_slice(),
            MinVersion::Tls13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(unusable)?;
        let builder = match (&self.client_ca, files.clients.authorities()) {
            (Some(pem), Some(path)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(pem, path)? {
                    roots
                        .add(certificate)
                        .map_err(|source| TlsError::Unusable { path: path.to_owned(), source })?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match files.clients {
                    ClientCertificates::Optional(_) => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                let verifier = verifier
                    .build()
                    .map_err(|source| TlsError::ClientCa { path: path.to_owned(), source })?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| TlsError::Missing { path: files.key.clone(), what: "private key" })?;
        let chain = certificates(&self.certificates, &files.certificates)?;
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let missing = TlsError::Missing { path: path.to_owned(), what: "certificate" };
    read.ok().filter(|certificates| !certificates.is_empty()).ok_or(missing)
}
