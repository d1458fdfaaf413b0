//! The real `agentrouter` program, started and ended as its users do, or worse.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentrouter_kernel::SystemClock;
use agentrouter_storage::{Db, Limits, Target};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;

use super::{Api, Bearer, OPERATOR_KEY};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How a server is started. It sees nothing of the environment but this.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    /// None for the embedded database of the data dir.
    pub(crate) database_url: Option<String>,
    pub(crate) listen: String,
    pub(crate) flags: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Settings {
    /// A server on a free port of the loopback interface, whose first operator key is [`OPERATOR_KEY`].
    pub(crate) fn new(data_dir: &Path, target: &Target) -> Self {
        let database_url = match target {
            Target::Sqlite(_) => None,
            Target::Postgres(url) => Some(url.clone()),
        };
        Self {
            data_dir: data_dir.to_owned(),
            database_url,
            listen: "127.0.0.1:0".to_owned(),
            flags: Vec::new(),
            environment: vec![("AGENTROUTER_BOOTSTRAP_KEY", OPERATOR_KEY.to_owned())],
        }
    }

    /// Opens its database a second time, for looking behind its back.
    pub(crate) async fn open(&self) -> Db {
        let embedded = || Target::Sqlite(self.data_dir.join("agentrouter.db"));
        let target = self.database_url.clone().map_or_else(embedded, Target::Postgres);
        Db::open(&target, Limits::default(), Arc::new(SystemClock)).await.unwrap()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentrouter"));
        command.env_clear().arg("serve").arg("--listen").arg(&self.listen);
        command.arg("--data-dir").arg(&self.data_dir).args(&self.flags);
        command.envs(self.database_url.iter().map(|url| ("AGENTROUTER_DATABASE_URL", url)));
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// What a program wrote to its standard error, so far.
type Log = Arc<Mutex<String>>;

/// A program that was started.
pub(crate) struct Program {
    child: Child,
    log: Log,
    address: watch::Receiver<Option<SocketAddr>>,
    readers: JoinSet<()>,
}

impl Program {
    /// Starts it, and waits for nothing.
    pub(crate) fn spawn(settings: &Settings) -> Self {
        let mut child = settings.command().spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Log::default();
        let (found, address) = watch::channel(None);
        let mut readers = JoinSet::new();
        let written = Arc::clone(&log);
        readers.spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(address) = serving(&line) {
                    found.send_replace(Some(address));
                }
                let mut written = written.lock().unwrap();
                written.push_str(&line);
                written.push('\n');
            }
        });
        Self { child, log, address, readers }
    }

    /// Starts it, and waits until it serves.
    pub(crate) async fn start(settings: &Settings) -> Self {
        let mut program = Self::spawn(settings);
        assert!(program.serves().await, "it does not serve:\n{}", program.log());
        program
    }

    /// Waits until it serves, or shows that it will not.
    pub(crate) async fn serves(&mut self) -> bool {
        // The end of the log ends the wait, too.
        timeout(PATIENCE, self.address.wait_for(Option::is_some)).await.is_ok_and(|serving| serving.is_ok())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.borrow().unwrap()
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// A gRPC channel of its own that sends a bearer token. It connects with the first call.
    pub(crate) fn api(&self, token: &str) -> Api {
        api_at(self.address(), token)
    }

    /// kill -9.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it ends by itself; how it ended, and all it wrote.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let status = timeout(PATIENCE, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("it does not end:\n{}", self.log())).unwrap();
        while self.readers.join_next().await.is_some() {}
        (status, self.log())
    }

    /// Stops it by SIGTERM, which must end well.
    pub(crate) async fn stop(self) {
        self.terminate();
        let (status, log) = self.ended().await;
        assert!(status.success(), "{status}:\n{log}");
    }

    /// Starts a server that must refuse to start; what it wrote.
    pub(crate) async fn refused(settings: &Settings) -> String {
        let (status, log) = Self::spawn(settings).ended().await;
        assert_eq!(status.code(), Some(1), "{log}");
        log
    }
}

/// A gRPC channel of its own to this address that sends a bearer token. It connects with the first call.
pub(crate) fn api_at(address: SocketAddr, token: &str) -> Api {
    let channel = Endpoint::new(format!("http://{address}")).unwrap().connect_lazy();
    InterceptedService::new(channel, Bearer(format!("Bearer {token}").parse().unwrap()))
}

/// The address, where a line of the log says that it is served.
fn serving(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["message"] == "serving" { line["address"].as_str()?.parse().ok() } else { None }
}
