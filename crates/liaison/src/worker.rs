//! The worker: poll, deliver, and wait in between only as long as something is wrong.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator::ConfigurationEvent;
use agentrouter_kernel::{Clock, Fault, SystemClock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;

use crate::backoff::{Backoff, Jitter};
use crate::client::Client;
use crate::config::WorkerConfig;
use crate::failure::Failure;
use crate::report::Report;
use crate::target::Target;

/// The longest pause after a poll that was answered but brought nothing forward. Such polls are rare with a server
/// that works, and a short pause keeps the next change fast.
const FRUITLESS_MAX: Duration = Duration::from_secs(1);

type Observer = Arc<dyn Fn(&Report) + Send + Sync>;

/// Brings configurations from the management plane to a [`Target`], until it is told to stop.
pub struct Worker {
    pub(crate) config: WorkerConfig,
    pub(crate) target: Arc<dyn Target>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) jitter: Jitter,
    endpoint: Endpoint,
    bearer: MetadataValue<Ascii>,
    observer: Observer,
}

impl Worker {
    /// A worker that is not running yet.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with every wrong setting.
    pub fn new(config: WorkerConfig, target: Arc<dyn Target>) -> Result<Self, Fault> {
        let (endpoint, bearer) = config.check()?;
        Ok(Self {
            config,
            target,
            clock: Arc::new(SystemClock),
            jitter: Jitter::new(fastrand::Rng::new()),
            endpoint,
            bearer,
            observer: Arc::new(|_| {}),
        })
    }

    /// The same worker, which tells what happens. The callback runs between the worker's steps, so it must be quick.
    #[must_use]
    pub fn on_report(mut self, observer: impl Fn(&Report) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// The same worker with another clock. It is only used to tell how long a change took to arrive.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same worker with another source of randomness for its pauses.
    #[must_use]
    pub fn with_rng(mut self, rng: fastrand::Rng) -> Self {
        self.jitter = Jitter::new(rng);
        self
    }

    /// The id it claims with.
    pub fn id(&self) -> &str {
        &self.config.worker_id
    }

    /// Works until `stop` fires. Then it claims nothing more, finishes the running apply, tries for a few seconds to
    /// report it, and returns.
    pub async fn run(self, stop: CancellationToken) {
        let client = Client::new(
            &self.endpoint,
            self.bearer.clone(),
            self.config.worker_id.clone(),
            self.config.lease,
        );
        let run = Run { worker: self, client, stop };
        // Boxed, because it is large and most of it is only in use while an event is delivered.
        Box::pin(run.work()).await;
        run.report(&Report::Stopped);
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("config", &self.config)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// A running worker.
pub(crate) struct Run {
    pub(crate) worker: Worker,
    pub(crate) client: Client,
    pub(crate) stop: CancellationToken,
}

/// What a poll brought.
enum Round {
    /// Events that were worked on, or the full wait without one.
    Good,
    /// An answer that would come again at once.
    Fruitless,
}

/// What the worker learned from the rounds so far.
#[derive(Default)]
struct Memory {
    /// Whether the last round reached the server.
    connected: bool,
    /// The workspace that the token stands for, by its events.
    workspace: Option<String>,
}

impl Run {
    async fn work(&self) {
        let config = &self.worker.config;
        let mut failures = self.backoff();
        let mut fruitless = Backoff::new(
            config.backoff_min,
            FRUITLESS_MAX.clamp(config.backoff_min, config.backoff_max),
            self.worker.jitter.clone(),
        );
        let mut memory = Memory::default();
        loop {
            let round = self.round(&mut memory).await;
            if self.stop.is_cancelled() {
                return;
            }
            let pause = match round {
                Ok(Round::Good) => {
                    failures.reset();
                    fruitless.reset();
                    continue;
                }
                Ok(Round::Fruitless) => {
                    failures.reset();
                    fruitless.next(None)
                }
                Err(failure) => {
                    memory.connected = false;
                    self.after(failure, &mut failures)
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One poll, and the delivery of what it brought, one event after the other.
    async fn round(&self, memory: &mut Memory) -> Result<Round, Failure> {
        // The first poll does not wait, so that it is known at once whether the server is there.
        let wait = if memory.connected { self.worker.config.wait } else { Duration::ZERO };
        let started = Instant::now();
        let events = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(Round::Good),
            events = self.client.poll(wait) => events?,
        };
        if !memory.connected {
            memory.connected = true;
            self.report(&Report::Connected);
        }
        memory.check_workspace(&events)?;
        if events.is_empty() {
            return Ok(if started.elapsed() < wait / 2 { Round::Fruitless } else { Round::Good });
        }
        let mut round = Round::Fruitless;
        for event in &events {
            if self.stop.is_cancelled() {
                break;
            }
            let report = self.deliver(event).await?;
            if matches!(report, Report::Applied { .. } | Report::Failed { .. }) {
                round = Round::Good;
            }
            self.report(&report);
        }
        Ok(round)
    }

    /// Tells about a failed round, and how long to leave the server alone.
    fn after(&self, failure: Failure, failures: &mut Backoff) -> Duration {
        let code = failure.code_name();
        if failure.is_transient() {
            let retry_in = failures.next(failure.retry_after);
            self.report(&Report::Unreachable { code, message: failure.message, retry_in });
            return retry_in;
        }
        let retry_in = self.worker.config.refused_pause.max(failures.next(failure.retry_after));
        self.report(&Report::Refused { code, reason: failure.reason, message: failure.message, retry_in });
        retry_in
    }

    pub(crate) fn backoff(&self) -> Backoff {
        let config = &self.worker.config;
        Backoff::new(config.backoff_min, config.backoff_max, self.worker.jitter.clone())
    }

    pub(crate) fn report(&self, report: &Report) {
        tracing::debug!(?report, "worker");
        (self.worker.observer)(report);
    }
}

impl Memory {
    /// A worker serves one workspace. A credential that reaches several (a management API key does) would take
    /// events away from the workers they are meant for.
    fn check_workspace(&mut self, events: &[ConfigurationEvent]) -> Result<(), Failure> {
        for event in events {
            let workspace = self.workspace.get_or_insert_with(|| event.workspace_id.clone());
            if *workspace != event.workspace_id {
                return Err(Failure::local(
                    Code::FailedPrecondition,
                    format!(
                        "the token reaches the workspaces {workspace:?} and {:?}; use a workspace token",
                        event.workspace_id
                    ),
                ));
            }
        }
        Ok(())
    }
}
