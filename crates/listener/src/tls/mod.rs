//! TLS: the certificate of the listener, what is asked of clients, and both again when their files change.

mod files;
mod peer;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

pub use self::files::TlsError;
pub use self::peer::PeerCertificate;
use crate::socket::Socket;

/// Where the certificates are, and what is asked of those who connect. All files are PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate, and after it those between it and the root.
    pub certificates: PathBuf,
    /// The certificate's private key, PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// What is asked of clients.
    pub clients: ClientCertificates,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
}

/// What is asked of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Nothing.
    None,
    /// A certificate that one of this file has issued, where they have one. A wrong one is refused.
    Optional(PathBuf),
    /// The same, from everybody.
    Required(PathBuf),
}

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MinVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// TLS with what was last read from its files.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: TlsFiles,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    read: files::Read,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub async fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let read = files::read(&files).await?;
        let config = read.config(&files)?;
        Ok(Self(Arc::new(Inner { files, current: RwLock::new(Current { read, config }) })))
    }

    /// Reads the files again and again until `stop`. New connections get what is new; those there are stay as they
    /// are. While the files cannot be used, such as when only one of two was replaced, what was last good stays.
    pub async fn follow(self, every: Duration, stop: CancellationToken) {
        let mut refused = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(every) => {}
            }
            match self.reload().await {
                Ok(true) => {
                    tracing::info!("new TLS certificates are in use");
                    refused = None;
                }
                Ok(false) => refused = None,
                Err(error) => {
                    let text = error.to_string();
                    // Once, and not at every look.
                    if refused.as_ref() != Some(&text) {
                        tracing::error!(%error, "changed TLS files cannot be used; the last good ones stay");
                        refused = Some(text);
                    }
                }
            }
        }
    }

    /// Reads the files again. Whether there was anything new.
    ///
    /// # Errors
    /// Names the file that cannot be used; what was read before stays in use.
    pub async fn reload(&self) -> Result<bool, TlsError> {
        let read = files::read(&self.0.files).await?;
        if self.0.current.read().unwrap_or_else(PoisonError::into_inner).read == read {
            return Ok(false);
        }
        let config = read.config(&self.0.files)?;
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = Current { read, config };
        Ok(true)
    }

    /// Shakes hands. The socket comes back where that fails.
    pub(crate) async fn accept(
        &self,
        socket: Socket,
    ) -> Result<(TlsStream<Socket>, Option<PeerCertificate>), (io::Error, Socket)> {
        let config = Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner).config);
        let stream = TlsAcceptor::from(config).accept(socket).into_fallible().await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = shown.map(|der| PeerCertificate::new(der));
        Ok((stream, certificate))
    }
}
