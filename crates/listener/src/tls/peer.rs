//! The certificate that a client has shown, once it was verified.

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// Who a client is, by a certificate that its issuer and its key vouch for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Its subject, such as `CN=edge-1, O=Example`. Empty where it cannot be read.
    pub subject: String,
    /// What else it stands for: DNS names, addresses of mail, URIs such as SPIFFE's, each with its kind in front as
    /// in `DNS:edge-1.example` or `URI:spiffe://example/edge-1`.
    pub names: Vec<String>,
    /// SHA-256 of the whole certificate.
    pub digest: [u8; 32],
}

impl PeerCertificate {
    pub(super) fn new(der: &[u8]) -> Self {
        let mut sha256 = [0; 32];
        for (to, from) in sha256.iter_mut().zip(digest(&SHA256, der).as_ref()) {
            *to = *from;
        }
        // It was verified, so that what cannot be read is at worst of no use.
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Self { subject: String::new(), names: Vec::new(), digest: sha256 };
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(name).collect();
        Self { subject: certificate.subject().to_string(), names, digest: sha256 }
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(format!("DNS:{name}")),
        GeneralName::URI(uri) => Some(format!("URI:{uri}")),
        GeneralName::RFC822Name(mail) => Some(format!("email:{mail}")),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| format!("IP:{address}")),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from)).ok()
}
