//! Documents of issuers: over https, without redirects, bounded in size and time.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Url};
use serde::de::DeserializeOwned;

/// Larger than any key set of a sane issuer.
const SIZE_MAX: usize = 256 * 1024;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a document was not read. Shown in the log only.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the URL is not https")]
    Url,
    #[error("no answer")]
    Network(#[from] reqwest::Error),
    #[error("the answer has the status {0}")]
    Status(u16),
    #[error("the answer is larger than {SIZE_MAX} bytes")]
    Size,
    #[error("the answer is not the document it should be")]
    Form,
}

/// Reads documents.
pub(crate) struct Https(Client);

impl Https {
    pub(crate) fn new(ca_certificates: Option<&[u8]>) -> Result<Self, reqwest::Error> {
        let mut client = Client::builder()
            .https_only(true)
            .redirect(Policy::none())
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent("agentrouter");
        if let Some(pem) = ca_certificates {
            client = client.tls_certs_merge(Certificate::from_pem_bundle(pem)?);
        }
        Ok(Self(client.build()?))
    }

    pub(crate) async fn json<T: DeserializeOwned>(&self, url: &str) -> Result<T, FetchError> {
        let url = Url::parse(url).ok().filter(|url| url.scheme() == "https").ok_or(FetchError::Url)?;
        let mut response = self.0.get(url).header("accept", "application/json").send().await?;
        if response.status() != 200 {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > SIZE_MAX {
                return Err(FetchError::Size);
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| FetchError::Form)
    }
}
