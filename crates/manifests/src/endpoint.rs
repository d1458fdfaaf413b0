//! A URL as Agent Router wants it: taken apart.

use std::net::Ipv4Addr;

use url::{Host, Url};

use crate::spec::{
    BackendEndpoint, BackendSpec, BackendTLSPolicySpec, ENVOY_GROUP, Reference, TlsValidation,
};

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: BackendEndpoint,
    /// Whose certificate it must show; none without TLS.
    tls_hostname: Option<String>,
    /// Without the last slash; empty for none.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
}

/// Takes a URL apart, or says what is wrong with it. The reason does not repeat the URL.
pub(crate) fn parse(text: &str) -> Result<Endpoint, &'static str> {
    let url = Url::parse(text).map_err(|_| "the URL is not valid")?;
    let tls = match url.scheme() {
        "https" => true,
        "http" => false,
        _ => return Err("the URL is neither http nor https"),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL has a user in it");
    }
    let port = url.port_or_known_default().filter(|port| *port > 0).ok_or("the URL has no port")?;
    let (address, hostname) = match url.host() {
        Some(Host::Domain(name)) => {
            let hostname = name.strip_suffix('.').unwrap_or(name).to_owned();
            if !is_hostname(&hostname) {
                return Err("the host of the URL is not a DNS name");
            }
            (BackendEndpoint::Fqdn { hostname: hostname.clone(), port }, hostname)
        }
        // By name, since addresses have a fault of their own (see `providers::check_apart`).
        Some(Host::Ipv4(ip)) if ip == Ipv4Addr::LOCALHOST => {
            (BackendEndpoint::Fqdn { hostname: "localhost".to_owned(), port }, ip.to_string())
        }
        Some(Host::Ipv4(ip)) => (BackendEndpoint::Ip { address: ip.to_string(), port }, ip.to_string()),
        Some(Host::Ipv6(_)) if tls => {
            return Err("a certificate cannot be checked against an IPv6 address; use a host name");
        }
        Some(Host::Ipv6(ip)) => (BackendEndpoint::Ip { address: ip.to_string(), port }, String::new()),
        None => return Err("the URL has no host"),
    };
    Ok(Endpoint {
        address,
        tls_hostname: tls.then_some(hostname),
        path: url.path().trim_end_matches('/').to_owned(),
        query: url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
    })
}

impl Endpoint {
    pub(crate) fn has_name(&self) -> bool {
        matches!(self.address, BackendEndpoint::Fqdn { .. })
    }

    pub(crate) fn backend(&self) -> BackendSpec {
        BackendSpec { endpoints: vec![self.address.clone()] }
    }

    /// What proves that the backend of this name is the one that was meant; none without TLS.
    pub(crate) fn tls(&self, backend: &str) -> Option<BackendTLSPolicySpec> {
        let hostname = self.tls_hostname.clone()?;
        Some(BackendTLSPolicySpec {
            target_refs: vec![backend_ref(backend)],
            validation: TlsValidation { well_known_ca_certificates: "System", hostname },
        })
    }
}

pub(crate) fn backend_ref(name: &str) -> Reference {
    Reference { group: ENVOY_GROUP, kind: "Backend", name: name.to_owned() }
}

fn is_hostname(name: &str) -> bool {
    let fit = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let fqdn = |hostname: &str, port| BackendEndpoint::Fqdn { hostname: hostname.to_owned(), port };
        let ip = |address: &str, port| BackendEndpoint::Ip { address: address.to_owned(), port };
        for (url, address, tls, path) in [
            ("https://api.openai.com/v1", fqdn("api.openai.com", 443), Some("api.openai.com"), "/v1"),
            ("https://API.OpenAI.com:8443/v1/", fqdn("api.openai.com", 8443), Some("api.openai.com"), "/v1"),
            ("http://localhost:11434", fqdn("localhost", 11434), None, ""),
            ("http://127.0.0.1:9/a/b", fqdn("localhost", 9), None, "/a/b"),
            ("http://127.0.0.2:9/", ip("127.0.0.2", 9), None, ""),
            ("https://10.0.0.1", ip("10.0.0.1", 443), Some("10.0.0.1"), ""),
            ("http://[::1]:80/", ip("::1", 80), None, ""),
            (
                "https://bücher.example/",
                fqdn("xn--bcher-kva.example", 443),
                Some("xn--bcher-kva.example"),
                "",
            ),
        ] {
            let endpoint = parse(url).unwrap();
            assert_eq!(endpoint.address, address, "{url}");
            assert_eq!(endpoint.tls_hostname.as_deref(), tls, "{url}");
            assert_eq!(endpoint.path, path, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_reached_is_refused() {
        for url in [
            "",
            "x",
            "ftp://a/",
            "http://",
            "https://[::1]/",
            "http://a:0/",
            "http://u@a/",
            "http://a_b/",
            "http://-a/",
            "file:///etc/passwd",
            "unix:/run/x",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }
}
