//! The process: how it starts, when it is ready, and how it ends.

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::files::Files;
use crate::options::{AgentRouterOptions, Ports};
use crate::{orphans, probe};

/// How often it is asked whether it is ready, and whether open requests have ended.
const LOOK: Duration = Duration::from_millis(100);
/// How long it may take to end once it was told to.
const END: Duration = Duration::from_secs(10);
/// How many lines of what it wrote are kept for the log of a failure.
const TAIL: usize = 20;
/// The longest line, in bytes; a longer one counts as several.
const LINE_MAX: u64 = 64 << 10;
/// What its line begins with that tells the port of Envoy's administration.
const LISTENING: &str = "Envoy AI Gateway listening on ";

/// Why Agent Router does not run. The text reaches people who run the management plane: no paths, no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Of what is around it.
    Environment(String),
    /// Of the file it was given.
    Refused(String),
}

/// A process of Agent Router, with the Envoy that it started.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    written: Arc<Mutex<Written>>,
    readers: JoinSet<()>,
    data_port: u16,
    admin_port: u16,
}

/// What it wrote so far.
#[derive(Debug, Default)]
struct Written {
    tail: VecDeque<String>,
    envoy_admin: Option<u16>,
    port_taken: bool,
}

impl Process {
    /// Starts it, where nothing of an earlier one is left and its ports are free.
    pub(crate) async fn start(options: &AgentRouterOptions, files: &Files) -> Result<Self, Failure> {
        orphans::end(files).await;
        files
            .clean()
            .map_err(|error| Failure::Environment(format!("cannot clean the folder: {}", error.kind())))?;
        let Ports { data, admin } = options.ports;
        if let Some(port) = probe::first_taken([data, admin].into_iter().chain(Ports::FIXED)).await {
            return Err(Failure::Environment(format!("port {port} is used by another program")));
        }
        let mut child = command(options, files).spawn().map_err(|error| {
            Failure::Environment(format!("Agent Router cannot be started: {}", error.kind()))
        })?;
        let written = Arc::<Mutex<Written>>::default();
        let mut readers = JoinSet::new();
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(read(stderr, Arc::clone(&written)));
        }
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(read(stdout, Arc::clone(&written)));
        }
        Ok(Self { child, written, readers, data_port: data, admin_port: admin })
    }

    /// Waits until it serves: Envoy is live, the port of clients answers, and its own administration is well.
    pub(crate) async fn ready(
        &mut self,
        within: Duration,
        routes: bool,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + within;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.ended(status).await);
            }
            if self.serves(routes).await {
                return Ok(());
            }
            if stop.is_cancelled() {
                return Err(Failure::Environment("the worker stops".to_owned()));
            }
            if Instant::now() >= deadline {
                self.log_tail();
                return Err(Failure::Environment(format!(
                    "Agent Router was not ready within {} s",
                    within.as_secs()
                )));
            }
            sleep(LOOK).await;
        }
    }

    async fn serves(&self, routes: bool) -> bool {
        let Some(envoy_admin) = self.envoy_admin() else { return false };
        let answers = |answer: Option<(u16, String)>| answer.is_some_and(|(status, _)| status == 200);
        if !answers(probe::ask(envoy_admin, "GET", "/ready").await)
            || !answers(probe::ask(self.admin_port, "GET", "/health").await)
        {
            return false;
        }
        // Without routes there is nothing that could answer but an error.
        let models = probe::ask(self.data_port, "GET", "/v1/models").await;
        models.is_some_and(|(status, _)| !routes || status == 200)
    }

    async fn ended(&mut self, status: ExitStatus) -> Failure {
        // What it wrote last is read when it has ended.
        let _ = timeout(LOOK, async { while self.readers.join_next().await.is_some() {} }).await;
        self.log_tail();
        if self.written.lock().unwrap_or_else(PoisonError::into_inner).port_taken {
            return Failure::Environment("a port of Agent Router is used by another program".to_owned());
        }
        match status.code() {
            Some(code) => Failure::Refused(format!("Agent Router does not start with it (status {code})")),
            None => Failure::Environment("Agent Router was killed while it started".to_owned()),
        }
    }

    fn log_tail(&self) {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        for line in &written.tail {
            tracing::warn!("aigw: {line}");
        }
    }

    fn envoy_admin(&self) -> Option<u16> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).envoy_admin
    }

    /// Waits until it ends by itself, which it should not.
    pub(crate) async fn died(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Takes no new connections, lets open requests go on for a while, and ends it.
    pub(crate) async fn stop(mut self, drain: Duration) {
        self.drain(drain).await;
        for signal in [Signal::TERM, Signal::KILL] {
            self.signal(signal);
            if timeout(END, self.child.wait()).await.is_ok() {
                break;
            }
        }
    }

    async fn drain(&self, within: Duration) {
        let Some(envoy_admin) = self.envoy_admin() else { return };
        if probe::ask(envoy_admin, "POST", "/drain_listeners").await.is_none() {
            return;
        }
        let statistics = format!("/stats?filter=http%5C.http-{}%5C.downstream_rq_active", self.data_port);
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            match probe::ask(envoy_admin, "GET", &statistics).await {
                Some((_, text)) if probe::sum(&text, ".downstream_rq_active") > 0 => sleep(LOOK).await,
                _ => return,
            }
        }
    }

    /// Only while its end was not seen: the number could be another group's by then.
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // It may have ended.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    /// Where nobody stopped it, as when a test ends early.
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.signal(Signal::KILL);
        }
    }
}

fn command(options: &AgentRouterOptions, files: &Files) -> Command {
    let mut command = Command::new(&options.aigw);
    command
        .arg("run")
        .arg(files.config())
        .arg("--admin-port")
        .arg(options.ports.admin.to_string())
        // Nothing of the worker's environment: it has a token in it, and `aigw` puts variables into its file.
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", files.home())
        .env("ENVOY_VERSION", &options.envoy_version)
        .env("AIGW_CONFIG_HOME", files.home())
        .env("AIGW_DATA_HOME", files.data())
        .env("AIGW_STATE_HOME", files.state())
        .env("AIGW_RUNTIME_DIR", files.runtime())
        .env("AIGW_RUN_ID", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own: a Ctrl-C at a terminal is for the worker, which lets open requests end. Envoy gets
        // another one from `aigw`, and ends with it.
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Reads on to the end, whatever is in it: `aigw` would die of an output that nobody reads.
async fn read(output: impl AsyncRead + Unpin, written: Arc<Mutex<Written>>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut output).take(LINE_MAX).read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        tracing::debug!("aigw: {text}");
        written.lock().unwrap_or_else(PoisonError::into_inner).add(text);
        line.clear();
    }
}

impl Written {
    fn add(&mut self, line: String) {
        if let Some(port) = envoy_admin(&line) {
            self.envoy_admin = Some(port);
        }
        self.port_taken |= line.contains("address already in use");
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}

fn envoy_admin(line: &str) -> Option<u16> {
    let (_, admin) = line.strip_prefix(LISTENING)?.split_once("(admin http://localhost:")?;
    admin.split_once(')')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_envoy_is_found() {
        let line =
            "Envoy AI Gateway listening on http://localhost:1975 (admin http://localhost:36509) after 2.1s";
        assert_eq!(envoy_admin(line), Some(36509));
        assert_eq!(envoy_admin("AI Gateway External Processor is ready"), None);
        let mut written = Written::default();
        for number in 0..100 {
            written.add(format!("line {number}"));
        }
        written.add("listen tcp :1064: bind: address already in use".to_owned());
        assert_eq!((written.tail.len(), written.port_taken), (TAIL, true));
    }
}
