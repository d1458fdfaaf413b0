//! The files for a management plane that is reached by https.

use std::path::PathBuf;

use agentrouter_liaison::ClientTls;

/// What every command takes that calls the management plane.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TlsArgs {
    /// Trust the authorities of this file, in PEM, besides those of the system.
    #[arg(long = "ca-file", env = "AGENTROUTER_CA_FILE", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate to show to a management plane that asks for one, in PEM.
    #[arg(long = "cert-file", env = "AGENTROUTER_CERT_FILE", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(long = "key-file", env = "AGENTROUTER_KEY_FILE", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl TlsArgs {
    /// The same, for a connection.
    pub(crate) fn client(&self) -> ClientTls {
        let Self { ca, cert, key } = self.clone();
        ClientTls { ca_file: ca, cert_file: cert, key_file: key }
    }
}
