//! The connection to a management plane: made once, with the caller's key, for the caller's customer.

use std::path::PathBuf;
use std::time::Duration;

use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_api::identity::WhoAmIRequest;
use agentrouter_api::identity::sessions_service_client::SessionsServiceClient;
use agentrouter_api::workspaces::workspaces_service_client::WorkspacesServiceClient;
use agentrouter_kernel::Violations;
use anyhow::anyhow;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::credential;
use crate::exit::Failure;
use crate::refusal;
use crate::tls::TlsArgs;

/// How long the server may take to begin its answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// The largest answer: the status of a workspace with everything a customer has.
const ANSWER_MAX: usize = 64 << 20;
const CUSTOMER: &str = "x-agentrouter-customer";

/// Where the management plane is, and as whom it is called.
#[derive(Debug, clap::Args)]
pub(crate) struct Connect {
    /// Where the management plane is: `http://host:port` or `https://host:port`.
    #[arg(long, env = "AGENTROUTER_BASE_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    base_url: String,
    #[command(flatten)]
    tls: TlsArgs,
    /// A file with the API key, instead of AGENTROUTER_API_KEY.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// The customer to look at, by slug. Operators may name any [default: the one of the API key]
    #[arg(long, value_name = "CUSTOMER")]
    customer: Option<String>,
}

/// A connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
    bearer: MetadataValue<Ascii>,
    /// For calls without the customer in their path; operators only.
    header: Option<MetadataValue<Ascii>>,
    /// For calls with it.
    pub(crate) customer: String,
    base_url: String,
}

/// Puts the key, and where it is needed the customer, on every call.
#[derive(Debug, Clone)]
pub(crate) struct Headers {
    bearer: MetadataValue<Ascii>,
    customer: Option<MetadataValue<Ascii>>,
}

type Api = InterceptedService<Channel, Headers>;

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.bearer.clone());
        if let Some(customer) = &self.customer {
            request.metadata_mut().insert(CUSTOMER, customer.clone());
        }
        Ok(request)
    }
}

impl Client {
    /// Connects, and asks the server whom the key stands for.
    pub(crate) async fn open(connect: &Connect) -> Result<Self, Failure> {
        let endpoint = endpoint(&connect.base_url, &connect.tls)?;
        let key = credential::KEY.read(connect.api_key_file.as_deref())?;
        let bearer = zeroize::Zeroizing::new(format!("Bearer {}", key.trim()));
        let mut bearer = MetadataValue::try_from(bearer.as_str())
            .map_err(|_| Failure::usage(anyhow!("an API key is one line of visible ASCII characters")))?;
        bearer.set_sensitive(true);
        let mut client = Self {
            channel: endpoint.connect_lazy(),
            bearer,
            header: None,
            customer: String::new(),
            base_url: connect.base_url.clone(),
        };
        let mut sessions = SessionsServiceClient::new(client.api(None));
        let caller = sessions.who_am_i(WhoAmIRequest {}).await.map_err(|status| client.failure(&status))?;
        let own = caller.into_inner().customer_id;
        client.customer = connect.customer.clone().unwrap_or_else(|| own.clone());
        if client.customer != own {
            let header = MetadataValue::try_from(client.customer.as_str())
                .map_err(|_| Failure::usage(anyhow!("--customer must be a slug or a row id")))?;
            client.header = Some(header);
        }
        Ok(client)
    }

    fn api(&self, customer: Option<MetadataValue<Ascii>>) -> Api {
        InterceptedService::new(self.channel.clone(), Headers { bearer: self.bearer.clone(), customer })
    }

    pub(crate) fn workspaces(&self) -> WorkspacesServiceClient<Api> {
        WorkspacesServiceClient::new(self.api(None)).max_decoding_message_size(ANSWER_MAX)
    }

    pub(crate) fn configurator(&self) -> ConfiguratorServiceClient<Api> {
        ConfiguratorServiceClient::new(self.api(self.header.clone())).max_decoding_message_size(ANSWER_MAX)
    }

    /// The end of a command whose call failed.
    pub(crate) fn failure(&self, status: &Status) -> Failure {
        refusal::failure(status, &self.base_url)
    }

    /// Why a call failed that is tried again.
    pub(crate) fn sentence(&self, status: &Status) -> String {
        refusal::sentence(status, &self.base_url)
    }
}

fn endpoint(base_url: &str, tls: &TlsArgs) -> Result<Endpoint, Failure> {
    let mut violations = Violations::new();
    violations.http_url("--base-url", base_url);
    let authority = base_url.trim_end_matches('/').split_once("://").map(|(_, rest)| rest);
    let has_path = authority.is_some_and(|authority| authority.contains(['/', '?', '#']));
    violations.require(
        !has_path,
        "--base-url",
        "must not have a path: gRPC has none in front of its services",
    );
    let tls = tls.client().config(base_url, &mut violations);
    violations.finish().map_err(|fault| {
        let first = fault.violations().first();
        Failure::usage(anyhow!(
            first
                .map_or_else(|| fault.to_string(), |wrong| format!("{}: {}", wrong.field, wrong.description))
        ))
    })?;
    let build = || {
        let endpoint = Endpoint::from_shared(base_url.to_owned())?
            .user_agent(concat!("tare/", env!("CARGO_PKG_VERSION")))?
            .connect_timeout(Duration::from_secs(5))
            .timeout(DEADLINE)
            // A stream on a dead connection would look like one without news.
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        match tls.clone() {
            Some(tls) => endpoint.tls_config(tls),
            None => Ok(endpoint),
        }
    };
    build().map_err(|error: tonic::transport::Error| {
        Failure::usage(anyhow::Error::new(error).context("--base-url cannot be used"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        for good in ["http://localhost:8080", "http://[::1]:8080/", "https://example.com"] {
            assert!(endpoint(good, &TlsArgs::default()).is_ok(), "{good}");
        }
        for wrong in ["", "localhost:8080", "ftp://x", "http://x/api", "http://x?y", "http://user@x"] {
            let failure = endpoint(wrong, &TlsArgs::default()).map(|_| ()).expect_err(wrong);
            assert_eq!(failure.code(), 2);
            assert!(failure.to_string().starts_with("--base-url: "), "{failure}");
        }
    }
}
