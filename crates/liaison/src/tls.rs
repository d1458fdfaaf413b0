//! TLS to the management plane: whom this side trusts, and as whom it comes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agentrouter_kernel::Violations;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// The files of a client of TLS, all of them PEM. None is needed where the system trusts the server and the server asks
/// for no certificate.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// Authorities that are trusted besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// The certificate that is shown to a server that asks for one.
    pub cert_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
}

impl ClientTls {
    /// What a connection to this URL needs; none where it is not encrypted, or something is wrong with the files.
    pub fn config(&self, base_url: &str, violations: &mut Violations) -> Option<ClientTlsConfig> {
        let files =
            [("ca_file", &self.ca_file), ("cert_file", &self.cert_file), ("key_file", &self.key_file)];
        if !base_url.starts_with("https://") {
            for (field, file) in files {
                violations.require(file.is_none(), field, "is of no use without an https:// URL");
            }
            return None;
        }
        let [ca, cert, key] = files.map(|(field, file)| read(field, file.as_deref(), violations));
        let both = cert.is_some() == key.is_some();
        violations.require(both, "cert_file", "goes together with key_file");
        let mut config = ClientTlsConfig::new().with_native_roots().timeout(HANDSHAKE);
        if let Some(ca) = ca {
            config = config.ca_certificate(Certificate::from_pem(ca));
        }
        if let (Some(cert), Some(key)) = (cert, key) {
            config = config.identity(Identity::from_pem(cert, key));
        }
        Some(config)
    }
}

fn read(field: &str, file: Option<&Path>, violations: &mut Violations) -> Option<Vec<u8>> {
    let path = file?;
    match std::fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            violations.add(field, format!("{} cannot be read: {error}", path.display()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use agentrouter_kernel::Fault;

    use super::*;

    fn wrong(tls: &ClientTls, url: &str) -> Vec<String> {
        let mut violations = Violations::new();
        let _config = tls.config(url, &mut violations);
        let fault = violations.finish().err();
        let violations = fault.iter().flat_map(Fault::violations);
        violations.map(|violation| violation.field.clone()).collect()
    }

    #[test]
    fn files_are_checked_together() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.pem");
        std::fs::write(&path, "").expect("a file");
        let ca = ClientTls { ca_file: Some(path.clone()), ..ClientTls::default() };
        assert!(wrong(&ca, "https://a").is_empty() && wrong(&ClientTls::default(), "https://a").is_empty());
        assert_eq!(wrong(&ca, "http://a"), ["ca_file"]);
        let half = ClientTls { cert_file: Some(path), ..ClientTls::default() };
        assert_eq!(wrong(&half, "https://a"), ["cert_file"]);
        let none = ClientTls { ca_file: Some(folder.path().join("none.pem")), ..ClientTls::default() };
        assert_eq!(wrong(&none, "https://a"), ["ca_file"]);
    }
}
