//! Who is measured, and how each is started.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use xtask::tools::Tool;

use super::orders::{DESCRIPTORS, Routes};
use super::{by_hand, cores, ours};
use crate::server::{Process, free_port};

const ENVOY: &str = include_str!("envoy.yaml");

/// A server on a core of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rival {
    ByHand,
    Ours,
    Everything,
    Routes10,
    Routes1000,
    OursProxy,
    GrpcGateway,
    GrpcGatewayProxied,
    Vanguard,
    Envoy,
}

impl Rival {
    /// All of them, what the others are compared with first.
    pub(crate) const ALL: [Self; 10] = [
        Self::ByHand,
        Self::Ours,
        Self::Everything,
        Self::Routes10,
        Self::Routes1000,
        Self::OursProxy,
        Self::GrpcGateway,
        Self::GrpcGatewayProxied,
        Self::Vanguard,
        Self::Envoy,
    ];

    /// What it is called in the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::ByHand => "axum and serde by hand",
            Self::Ours => "ours",
            Self::Everything => "ours as in production",
            Self::Routes10 => "ours with 10 routes",
            Self::Routes1000 => "ours with 1,000 routes",
            Self::OursProxy => "ours, remote service",
            Self::GrpcGateway => "grpc-gateway",
            Self::GrpcGatewayProxied => "grpc-gateway, over gRPC",
            Self::Vanguard => "vanguard-go",
            Self::Envoy => "Envoy, remote service",
        }
    }

    /// Whether it is somebody else's.
    pub(crate) fn is_foreign(self) -> bool {
        matches!(self, Self::GrpcGateway | Self::GrpcGatewayProxied | Self::Vanguard | Self::Envoy)
    }

    fn own(self) -> Option<Own> {
        Some(match self {
            Self::ByHand => Own::ByHand,
            Self::Ours => Own::Ours,
            Self::Everything => Own::Everything,
            Self::Routes10 => Own::Routes10,
            Self::Routes1000 => Own::Routes1000,
            Self::OursProxy => Own::Proxy,
            _ => return None,
        })
    }

    /// Starts it on the core of the servers, and the service it needs on that of the clients.
    pub(crate) fn start(self, folder: &Path) -> Result<Running> {
        let needs_upstream = matches!(self, Self::OursProxy | Self::Envoy);
        let upstream = needs_upstream.then(free_port).transpose()?;
        let remote = upstream
            .map(|port| {
                cores::on(cores::client()?, || {
                    Process::spawn(again(Own::Upstream, port, None, folder)?, port)
                })
            })
            .transpose()?;
        let port = free_port()?;
        let command = match self {
            Self::GrpcGateway => go("grpc-gateway", port)?,
            Self::GrpcGatewayProxied => go("grpc-gateway-proxied", port)?,
            Self::Vanguard => go("vanguard", port)?,
            Self::Envoy => envoy(folder, port, upstream.context("an upstream")?)?,
            _ => again(self.own().context("one of ours")?, port, upstream, folder)?,
        };
        let process = cores::on(cores::server()?, || Process::spawn(command, port))?;
        Ok(Running { rival: self, process, remote })
    }
}

/// A server that runs, and the service behind it where that is another process.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) rival: Rival,
    pub(crate) process: Process,
    pub(crate) remote: Option<Process>,
}

/// This program as one of the servers.
fn again(own: Own, port: u16, upstream: Option<u16>, folder: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let name = own.to_possible_value().context("a name")?;
    command.args(["rival", name.get_name(), &port.to_string()]).arg(folder);
    command.args(upstream.map(|port| port.to_string()));
    Ok(command)
}

fn go(name: &str, port: u16) -> Result<Command> {
    let mut command = Command::new(Tool::Rivals.path()?);
    command.args([name, &port.to_string()]);
    Ok(command)
}

fn envoy(folder: &Path, port: u16, upstream: u16) -> Result<Command> {
    let descriptors = folder.join("descriptor.bin");
    fs::write(&descriptors, DESCRIPTORS)?;
    let text = ENVOY
        .replace("{{port}}", &port.to_string())
        .replace("{{upstream}}", &upstream.to_string())
        .replace("{{descriptors}}", &descriptors.to_string_lossy());
    let config = folder.join("envoy.yaml");
    fs::write(&config, text)?;
    let mut command = Command::new(Tool::Envoy.path()?);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--config-path"]);
    command.arg(config);
    Ok(command)
}

/// One of the servers of this program.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[arg(value_enum)]
    own: Own,
    /// Where it listens, on the loopback interface.
    port: u16,
    /// Where it may keep files.
    folder: PathBuf,
    /// The port of the service behind it, where that is another process.
    upstream: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Own {
    ByHand,
    Ours,
    Everything,
    Routes10,
    Routes1000,
    Proxy,
    Upstream,
}

impl Serve {
    /// Serves until it is killed.
    pub(crate) async fn run(&self) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await?;
        let router = match self.own {
            Own::ByHand => by_hand::router(),
            Own::Ours => ours::alone(Routes::Two)?,
            Own::Routes10 => ours::alone(Routes::Ten)?,
            Own::Routes1000 => ours::alone(Routes::Thousand)?,
            Own::Proxy => {
                let upstream = self.upstream.context("a proxy needs the port of its upstream")?;
                ours::proxy(SocketAddr::from((Ipv4Addr::LOCALHOST, upstream)))?
            }
            Own::Upstream => ours::upstream(),
            Own::Everything => return ours::everything(listener, &self.folder).await,
        };
        Ok(axum::serve(listener, router).await?)
    }
}
