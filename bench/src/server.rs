//! Servers to measure: one in this process, or the release program as a child.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agentrouter::config::edge::EdgeConfig;
use agentrouter::config::{Config, Observability, Secrets, StoreConfig};
use agentrouter::server::{self, Running};
use agentrouter_envelope::{Keyring, Secret};
use agentrouter_storage::Target;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::peer::Peer;

/// The operator key of every measured server.
pub(crate) const KEY: &str = "bench";
/// Their key-encryption key.
const KEK: &str = "bench:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
/// The most connections of a server to its database: one for each of the 32 calls in flight, and some to spare.
const CONNECTIONS: u32 = 34;

/// The keys of every measured server, so that credentials can be made without asking one.
pub(crate) fn keyring() -> Result<Keyring> {
    Ok(Keyring::parse(KEK)?)
}

/// Starts a server in this process.
pub(crate) async fn in_process(data_dir: &Path, target: &Target) -> Result<Running> {
    server::start(Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        store: StoreConfig {
            data_dir: data_dir.to_owned(),
            target: target.clone(),
            max_connections: CONNECTIONS,
        },
        log: String::new(),
        observability: Observability::default(),
        full_syncs_per_second: None,
        edge: EdgeConfig::default(),
        allow_weak_bootstrap_key: false,
        webhook_allow_private: false,
        oidc_issuers: Vec::new(),
        // The same key for every server: one database sees several.
        secrets: Secrets { bootstrap_key: Some(Secret::new(KEY)), keyring: Some(keyring()?) },
    })
    .await
}

/// A program that serves on a known port, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    pub(crate) base_url: String,
}

impl Process {
    /// Starts `agentrouter serve` on an empty folder.
    pub(crate) fn agentrouter(data_dir: &Path, port: u16) -> Result<Self> {
        Self::serve(data_dir, None, port)
    }

    /// Starts `agentrouter serve` over a database.
    pub(crate) fn over(target: &Target, data_dir: &Path, port: u16) -> Result<Self> {
        Self::serve(data_dir, Some(target), port)
    }

    fn serve(data_dir: &Path, target: Option<&Target>, port: u16) -> Result<Self> {
        let program = program()?;
        let listen = format!("127.0.0.1:{port}");
        let mut command = Command::new(&program);
        command.args(["serve", "--log", "warn", "--listen", &listen, "--data-dir"]).arg(data_dir);
        command.env("AGENTROUTER_BOOTSTRAP_KEY", KEY).env("AGENTROUTER_KEK", KEK);
        match target {
            Some(Target::Sqlite(path)) => {
                command.env("AGENTROUTER_DATABASE_URL", format!("sqlite:{}", path.display()));
            }
            Some(Target::Postgres(url)) => {
                command.env("AGENTROUTER_DATABASE_URL", url);
                command.env("AGENTROUTER_MAX_CONNECTIONS", CONNECTIONS.to_string());
            }
            None => {}
        }
        Self::spawn(command, port).with_context(|| format!("{}: build it first", program.display()))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts this program again, with workers and nothing else in it.
    pub(crate) fn workers(server: &Self, tokens: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["workers", &server.base_url]).arg(tokens);
        // Workers listen to nobody.
        Self::spawn(command, 0)
    }

    /// Asks it to stop, as a rollout of a new version does, and waits until it has.
    pub(crate) fn terminate(mut self) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts a peer over a database.
    pub(crate) fn peer(peer: Peer, database: &Path, port: u16) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["peer", peer.name(), &port.to_string()]).arg(database);
        Self::spawn(command, port)
    }

    /// Starts a program that serves on this port of the loopback interface.
    pub(crate) fn spawn(mut command: Command, port: u16) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self { child, address, base_url: format!("http://{address}") })
    }

    /// Waits until a path answers.
    pub(crate) async fn ready(&self, client: &reqwest::Client, path: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let answer = client.get(format!("{}{path}", self.base_url)).bearer_auth(KEY).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bail!("{} is not ready after 20 s", self.base_url)
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most memory that was resident so far, in KiB.
    pub(crate) fn peak_kib(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &'static str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context(field)?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
    }

    /// Statements it has sent to its database; none where it does not tell.
    pub(crate) async fn statements(&self, client: &reqwest::Client) -> Option<f64> {
        let url = format!("{}/metrics", self.base_url);
        let answer = client.get(url).bearer_auth(KEY).send().await.ok()?.error_for_status().ok()?;
        let text = answer.text().await.ok()?;
        let samples = text.lines().filter(|line| line.contains("db_statements_total"));
        let values: Vec<f64> = samples.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// The time that its threads have had a core so far. Counted in nanoseconds, unlike ticks; those of threads that
    /// have ended are missing.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let mut nanos = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end meanwhile.
            let Ok(text) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            nanos += text.split_whitespace().next().context("schedstat")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// User and system time so far, in ticks of 10 ms.
    pub(crate) fn cpu_ticks(&self) -> Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is the name in parentheses, and may hold spaces.
        let rest = stat.rsplit_once(')').context("stat")?.1;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |index: usize| -> Result<u64> { Ok(fields.get(index).context("stat")?.parse()?) };
        Ok(ticks(11)? + ticks(12)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is gone already, or goes now; nothing else is to be done about it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A free port of the loopback interface.
pub(crate) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

pub(crate) type Api = InterceptedService<Channel, Bearer>;

/// Sends a key with every call.
#[derive(Debug, Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A gRPC connection of its own that calls with this key.
pub(crate) async fn api(address: SocketAddr, key: &str) -> Result<Api> {
    with_key(connect(address).await?, key)
}

/// A connection.
pub(crate) async fn connect(address: SocketAddr) -> Result<Channel> {
    Ok(Endpoint::new(format!("http://{address}"))?.tcp_nodelay(true).connect().await?)
}

/// A connection that calls with this key.
pub(crate) fn with_key(channel: Channel, key: &str) -> Result<Api> {
    Ok(InterceptedService::new(channel, Bearer(format!("Bearer {key}").parse()?)))
}

/// Lets this process, and those it starts, have so many connections and files open.
pub(crate) fn allow_open_files(wanted: usize) -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(wanted)?;
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    ensure!(
        limit.maximum.is_none_or(|maximum| maximum >= wanted),
        "this takes {wanted} open files, and the system allows {:?} (ulimit -n)",
        limit.maximum
    );
    limit.current = Some(wanted);
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// The program, beside this one.
pub(crate) fn program() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("agentrouter"))
}
