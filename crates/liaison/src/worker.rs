//! The worker as its owner sets it up.

use std::fmt;
use std::sync::Arc;

use agentrouter_kernel::{Clock, Fault, SystemClock};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::backoff::Jitter;
use crate::client::Client;
use crate::config::WorkerConfig;
use crate::doctor::Doctor;
use crate::monitor::Monitor;
use crate::report::Report;
use crate::run::{Run, Shared};
use crate::state::Store;
use crate::target::Target;
use crate::token::Token;

pub(crate) type Observer = Arc<dyn Fn(&Report) + Send + Sync>;

/// Brings configurations from the management plane to a [`Target`], until it is told to stop.
pub struct Worker {
    pub(crate) config: WorkerConfig,
    pub(crate) target: Arc<dyn Target>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) jitter: Jitter,
    pub(crate) doctor: Option<Arc<dyn Doctor>>,
    pub(crate) store: Store,
    pub(crate) observer: Observer,
    endpoint: Endpoint,
    channel: Option<Channel>,
    shared: Option<Arc<Shared>>,
}

impl Worker {
    /// A worker that is not running yet. Reads what an earlier one has kept in the state folder, if there is one.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with every wrong setting.
    pub fn new(config: WorkerConfig, target: Arc<dyn Target>) -> Result<Self, Fault> {
        let (endpoint, _) = config.check()?;
        let store = match &config.state_dir {
            None => Store::volatile(),
            Some(path) => Store::open(path).map_err(|error| {
                Fault::invalid_field("state_dir", format!("{} cannot be used: {error}", path.display()))
            })?,
        };
        if let Some(claims) = config.token.claims() {
            store.belong_to(&claims.ws);
        }
        if let Some(kept) = store.token()
            && !succeeds(&kept, &config.token)
        {
            // Whoever gave a newer token, or one of another workspace, wants it used.
            store.forget_token();
        }
        Ok(Self {
            config,
            target,
            clock: Arc::new(SystemClock),
            jitter: Jitter::new(fastrand::Rng::new()),
            doctor: None,
            store,
            observer: Arc::new(|_| {}),
            endpoint,
            channel: None,
            shared: None,
        })
    }

    /// The same worker, which tells what happens. The callback runs between the worker's steps, so it must be quick.
    #[must_use]
    pub fn on_report(mut self, observer: impl Fn(&Report) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// The same worker with another clock. It is only used to tell how long a change took to arrive, and when to renew
    /// the token.
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

    /// The same worker on a connection that it shares with others, instead of one of its own.
    #[must_use]
    pub fn with_channel(mut self, channel: Channel) -> Self {
        self.channel = Some(channel);
        self.shared = None;
        self
    }

    /// The same worker, which also tells how the doctor job beside it is doing.
    #[must_use]
    pub fn with_doctor(mut self, doctor: Arc<dyn Doctor>) -> Self {
        self.doctor = Some(doctor);
        self
    }

    /// The id it claims with.
    pub fn id(&self) -> &str {
        &self.config.worker_id
    }

    /// A look at the worker for probes and metrics. Has to be called inside a Tokio runtime, after
    /// [`Self::with_channel`].
    pub fn monitor(&mut self) -> Monitor {
        Monitor::new(self.shared())
    }

    fn shared(&mut self) -> Arc<Shared> {
        if let Some(shared) = &self.shared {
            return Arc::clone(shared);
        }
        let token = self.store.token().unwrap_or_else(|| self.config.token.clone());
        let channel = self.channel.clone().unwrap_or_else(|| self.endpoint.connect_lazy());
        let client = Client::new(channel, &token, self.config.worker_id.clone(), self.config.lease);
        let shared = Arc::new(Shared::new(client, token, self.config.lease));
        self.shared = Some(Arc::clone(&shared));
        shared
    }

    /// Works until `stop` fires. Then it claims nothing more, gives back what it has not begun to apply, finishes what
    /// is being applied, tries for a few seconds to report it, and returns.
    pub async fn run(mut self, stop: CancellationToken) {
        let shared = self.shared();
        // Boxed, because it is large and most of it is only in use while an event is delivered.
        Box::pin(Run::new(self, shared, stop).work()).await;
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

/// Whether a kept token takes the place of the given one.
fn succeeds(kept: &Token, given: &Token) -> bool {
    match (kept.claims(), given.claims()) {
        (Some(kept), Some(given)) => kept.succeeds(&given),
        _ => false,
    }
}
