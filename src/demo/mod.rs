//! The main job, shown on an embedded database: a change made through the public API reaches a data plane's
//! worker and is reported back as applied.

mod data_plane;
mod upstream;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agentrouter_api::configurator::ConfigType;
use agentrouter_api::providers as providers_pb;
use agentrouter_api::providers::providers_service_client::ProvidersServiceClient;
use agentrouter_api::tenancy as tenancy_pb;
use agentrouter_api::tenancy::projects_service_client::ProjectsServiceClient;
use agentrouter_api::tenancy::tenancy_service_client::TenancyServiceClient;
use agentrouter_api::workspaces as workspaces_pb;
use agentrouter_api::workspaces::workspaces_service_client::WorkspacesServiceClient;
use agentrouter_envelope::Secret;
use agentrouter_liaison::{DirTarget, Report, Token, Worker, WorkerConfig};
use agentrouter_storage::Target;
use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::config::edge::EdgeConfig;
use crate::config::{Config, Observability, Secrets, StoreConfig};
use crate::server::Signals;
use crate::{server, store, telemetry};

/// How long the loop may take to converge.
const CONVERGE: Duration = Duration::from_secs(20);
const CUSTOMER: &str = "acme";
const PROJECT: &str = "assistants";
const WORKSPACE: &str = "edge-1";

/// Options of the demo.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the data in this folder. [default: a temporary one]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// End when the loop has converged; fail if it has not within 20 s (two minutes with a data plane).
    #[arg(long)]
    once: bool,
    /// Run a real data plane, and send a request through it. It needs no key of any provider: the demo brings an
    /// upstream of its own.
    #[arg(long, value_enum, value_name = "KIND")]
    data_plane: Option<data_plane::Kind>,
    #[command(flatten)]
    programs: data_plane::ProgramArgs,
    /// What to log, such as `info`.
    #[arg(long, env = "AGENTROUTER_LOG", default_value = "warn", value_name = "FILTER")]
    log: String,
}

/// Runs the demo.
///
/// # Errors
/// Where the loop does not converge in time, or anything on the way fails.
pub async fn run(args: DemoArgs) -> Result<()> {
    telemetry::start(&args.log)?;
    let temporary = tempfile::tempdir().context("a temporary folder")?;
    let data_dir = args.data_dir.unwrap_or_else(|| temporary.path().to_owned());
    let programs = match args.data_plane {
        Some(data_plane::Kind::AgentRouter) => Some(args.programs.find(&data_dir).await?),
        None => None,
    };
    // Before anything runs, since a data plane has to be ended however far the demo came; and after what may be asked
    // or installed, which a signal ends by itself.
    let mut signals = Signals::catch()?;
    let started = Instant::now();
    let key = demo_key(&data_dir)?;
    let running = server::start(config(&data_dir, &key)).await?;
    let base_url = format!("http://{}", running.address);
    say(&format!("server ready after {} at {base_url} (SQLite in {})", millis(started), data_dir.display()))?;

    let demo = Demo { base_url, key, data_dir, stop: CancellationToken::new(), gateway: Mutex::default() };
    let shown = async {
        match programs {
            Some(programs) => within(data_plane::CONVERGE, data_plane::show(&demo, programs)).await,
            None => within(CONVERGE, show(&demo)).await,
        }
    };
    let outcome = tokio::select! {
        shown = shown => {
            match shown {
                Ok(shown) if args.once => Ok(Some(shown.worker)),
                Ok(shown) => {
                    let told = say(&hints(&demo, shown.provider));
                    signals.received().await;
                    told.map(|()| Some(shown.worker))
                }
                Err(error) => Err(error),
            }
        }
        () = signals.received() => Ok(None),
    };
    demo.stop.cancel();
    let outcome = match outcome {
        Ok(Some(worker)) => worker.await.context("the worker"),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    let gateway = demo.gateway.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(gateway) = gateway {
        gateway.stop().await;
    }
    running.stop().await?;
    outcome
}

/// What a demo runs on.
struct Demo {
    base_url: String,
    key: Secret,
    data_dir: PathBuf,
    stop: CancellationToken,
    /// The data plane, once it runs.
    gateway: Mutex<Option<data_plane::Gateway>>,
}

/// What a demo that was shown leaves running.
struct Shown {
    worker: tokio::task::JoinHandle<()>,
    /// A provider to try things with.
    provider: &'static str,
}

async fn within(limit: Duration, shown: impl Future<Output = Result<Shown>>) -> Result<Shown> {
    match tokio::time::timeout(limit, shown).await {
        Ok(shown) => shown,
        Err(_) => bail!("the data plane has not converged within {} s", limit.as_secs()),
    }
}

fn config(data_dir: &Path, key: &Secret) -> Config {
    Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        store: StoreConfig {
            data_dir: data_dir.to_owned(),
            target: Target::Sqlite(data_dir.join("agentrouter.db")),
            max_connections: 8,
        },
        log: String::new(),
        observability: Observability::default(),
        full_syncs_per_second: None,
        edge: EdgeConfig::default(),
        allow_weak_bootstrap_key: false,
        // A demo's receivers listen on the same machine.
        webhook_allow_private: true,
        oidc_issuers: Vec::new(),
        secrets: Secrets { bootstrap_key: Some(key.clone()), keyring: None },
    }
}

/// The operator key of a demo; a kept data dir keeps it, too.
fn demo_key(data_dir: &Path) -> Result<Secret> {
    let path = data_dir.join("demo-key");
    if let Ok(text) = std::fs::read_to_string(&path) {
        return Ok(Secret::new(text.trim()));
    }
    let key = agentrouter_identity::keys::generate_key()?;
    std::fs::create_dir_all(data_dir).with_context(|| format!("--data-dir: {}", data_dir.display()))?;
    store::write_private(&path, key.expose())?;
    Ok(key)
}

type Api = InterceptedService<Channel, Bearer>;

impl Demo {
    async fn connect(&self) -> Result<(Channel, Bearer)> {
        let channel = Endpoint::new(self.base_url.clone())?.connect().await?;
        Ok((channel, Bearer(format!("Bearer {}", self.key.expose()).parse()?)))
    }
}

#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Sets things up through the public API, changes a provider, and tells what arrives.
async fn show(demo: &Demo) -> Result<Shown> {
    let (channel, bearer) = demo.connect().await?;
    let mut providers = ProvidersServiceClient::with_interceptor(channel.clone(), bearer.clone());
    let mut workspaces = WorkspacesServiceClient::with_interceptor(channel.clone(), bearer.clone());
    create_tenant(channel, bearer).await?;
    let token = create_workspace(&mut workspaces).await?;
    for (provider_id, schema, base) in [
        ("openai", providers_pb::ProviderSchema::Openai, "https://api.openai.com/v1"),
        ("anthropic", providers_pb::ProviderSchema::Anthropic, "https://api.anthropic.com"),
    ] {
        create_provider(&mut providers, provider_id, schema, base).await?;
    }
    say(&format!(
        "customer {CUSTOMER}, project {PROJECT}, workspace {WORKSPACE} and two providers are there"
    ))?;

    let folder = demo.data_dir.join("data-plane");
    let target = DirTarget::open(&folder)?;
    let held = target.clone();
    let (reports, mut applied) = mpsc::unbounded_channel();
    let worker = Worker::new(WorkerConfig::new(&demo.base_url, Token::new(token)), Arc::new(target))?
        .on_report(move |report| {
            if let Report::Applied { slot, version, latency, .. } = report {
                // The receiver is gone once the demo has seen enough.
                let _ = reports.send((slot.config_type, *version, *latency));
            }
        });
    #[expect(clippy::disallowed_methods, reason = "the caller awaits it")]
    let worker = tokio::spawn(worker.run(demo.stop.clone()));
    say(&format!("a worker applies to {}", folder.display()))?;
    converged(&mut workspaces).await?;
    while applied.try_recv().is_ok() {}

    let changed = Instant::now();
    let weight = change_provider(&mut providers).await?;
    say(&format!("provider anthropic now has weight {weight}; waiting for the data plane"))?;
    while let Some((config_type, version, latency)) = applied.recv().await {
        if config_type == i32::from(ConfigType::Providers) {
            let latency = latency
                .map_or_else(|| "-".to_owned(), |latency| format!("{:.1} ms", latency.as_secs_f64() * 1e3));
            say(&format!(
                "applied version {version} {} after the call began ({latency} after the event)",
                millis(changed)
            ))?;
            break;
        }
    }
    let status = converged(&mut workspaces).await?;
    say(&table(&status, &held)?)?;
    Ok(Shown { worker, provider: "openai" })
}

async fn create_tenant(channel: Channel, bearer: Bearer) -> Result<()> {
    let mut customers = TenancyServiceClient::with_interceptor(channel.clone(), bearer.clone());
    let mut projects = ProjectsServiceClient::with_interceptor(channel, bearer);
    let customer = tenancy_pb::CreateCustomerRequest {
        customer_id: CUSTOMER.to_owned(),
        display_name: "Acme".to_owned(),
        ..Default::default()
    };
    let project = tenancy_pb::CreateProjectRequest {
        customer_id: CUSTOMER.to_owned(),
        project_id: PROJECT.to_owned(),
        ..Default::default()
    };
    new_or_there(customers.create_customer(customer).await)?;
    new_or_there(projects.create_project(project).await)
}

async fn create_workspace(workspaces: &mut WorkspacesServiceClient<Api>) -> Result<String> {
    let request = workspaces_pb::CreateWorkspaceRequest {
        customer_id: CUSTOMER.to_owned(),
        workspace_id: WORKSPACE.to_owned(),
        ..Default::default()
    };
    new_or_there(workspaces.create_workspace(request).await)?;
    let request = workspaces_pb::IssueWorkspaceTokenRequest {
        customer_id: CUSTOMER.to_owned(),
        workspace_id: WORKSPACE.to_owned(),
    };
    Ok(workspaces.issue_workspace_token(request).await?.into_inner().token)
}

async fn create_provider(
    providers: &mut ProvidersServiceClient<Api>,
    provider_id: &str,
    schema: providers_pb::ProviderSchema,
    base_url: &str,
) -> Result<()> {
    let request = providers_pb::CreateProviderRequest {
        customer_id: CUSTOMER.to_owned(),
        provider_id: provider_id.to_owned(),
        schema: schema.into(),
        base_url: base_url.to_owned(),
        models: vec!["demo-model".to_owned()],
        api_key: "not-a-real-key".to_owned(),
        ..Default::default()
    };
    new_or_there(providers.create_provider(request).await)
}

async fn change_provider(providers: &mut ProvidersServiceClient<Api>) -> Result<i32> {
    let name = || (CUSTOMER.to_owned(), "anthropic".to_owned());
    let (customer_id, provider_id) = name();
    let now = providers
        .get_provider(providers_pb::GetProviderRequest { customer_id, provider_id })
        .await?
        .into_inner();
    let (customer_id, provider_id) = name();
    let request = providers_pb::UpdateProviderRequest {
        customer_id,
        provider_id,
        weight: Some(now.weight + 1),
        ..Default::default()
    };
    Ok(providers.update_provider(request).await?.into_inner().weight)
}

/// Waits until the workspace runs the newest version of everything.
async fn converged(workspaces: &mut WorkspacesServiceClient<Api>) -> Result<workspaces_pb::WorkspaceStatus> {
    loop {
        let request = workspaces_pb::GetWorkspaceStatusRequest {
            customer_id: CUSTOMER.to_owned(),
            workspace_id: WORKSPACE.to_owned(),
        };
        let status = workspaces.get_workspace_status(request).await?.into_inner();
        if status.converged && !status.slots.is_empty() {
            return Ok(status);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A kept data dir has it already.
fn new_or_there<T>(created: Result<T, Status>) -> Result<()> {
    match created {
        Err(status) if status.code() != Code::AlreadyExists => Err(status.into()),
        _ => Ok(()),
    }
}

fn table(status: &workspaces_pb::WorkspaceStatus, held: &DirTarget) -> Result<String> {
    let observed = held.observed().context("the worker's folder")?;
    let mut text = format!("workspace {WORKSPACE} has converged:\n");
    writeln!(text, "  {:<16} {:<8} {:>7} {:>7} {:>5}  FILE", "SLOT", "USER", "DESIRED", "APPLIED", "HOLDS")?;
    for slot in &status.slots {
        let name = slot.config_type().as_str_name().trim_start_matches("CONFIG_TYPE_").to_lowercase();
        let seen = observed.iter().find(|seen| {
            (seen.config_type, &seen.user_id, &seen.key_id) == (slot.config_type, &slot.user_id, &slot.key_id)
        });
        let (holds, file) = seen.map_or((0, None), |seen| (seen.version, held.file(&seen.into())));
        let file = file.map_or_else(|| "-".to_owned(), |file| file.display().to_string());
        let (user, desired, applied) = (&slot.user_id, slot.desired_version, slot.applied_version);
        writeln!(text, "  {name:<16} {user:<8} {desired:>7} {applied:>7} {holds:>5}  {file}")?;
    }
    Ok(text.trim_end().to_owned())
}

fn hints(demo: &Demo, provider: &str) -> String {
    let Demo { base_url, key, .. } = demo;
    let address = base_url.trim_start_matches("http://");
    let key = key.expose();
    format!(
        "\nIt stays up until Ctrl-C. Paste these into another terminal:\n\n\
         export AGENTROUTER_BASE_URL={base_url} AGENTROUTER_API_KEY={key}\n\
         curl -s $AGENTROUTER_BASE_URL/v1/customers/{CUSTOMER}/workspaces/{WORKSPACE}/status -H \"Authorization: Bearer $AGENTROUTER_API_KEY\"\n\
         curl -s -X POST $AGENTROUTER_BASE_URL/v1/customers/{CUSTOMER}/providers/{provider}:disable -H \"Authorization: Bearer $AGENTROUTER_API_KEY\" -d '{{}}'\n\
         grpcurl -plaintext -H \"authorization: Bearer $AGENTROUTER_API_KEY\" {address} agentrouter.tenancy.v1.TenancyService/ListCustomers"
    )
}

fn millis(since: Instant) -> String {
    format!("{:.1} ms", since.elapsed().as_secs_f64() * 1e3)
}

fn say(line: &str) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("standard output")
}
