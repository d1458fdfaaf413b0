//! A running worker: several loops over one state, in one task. Events come in ([`crate::intake`]), are delivered side
//! by side ([`crate::deliver`], [`crate::upgrading`]), claims are kept ([`crate::keeper`]), drift is looked for
//! ([`crate::sweep`]), and the token is renewed ([`crate::renewal`]).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentrouter_api::configurator::ConfigurationEvent;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::backoff::Backoff;
use crate::client::Client;
use crate::failure::Failure;
use crate::inbox::{Claiming, Inbox};
use crate::leases::Leases;
use crate::metrics::{Metrics, Outcome};
use crate::renewal::Refusals;
use crate::report::Report;
use crate::slot::Slot;
use crate::token::Token;
use crate::upgrading::Underway;
use crate::worker::Worker;

/// The longest pause after something that went through but brought nothing forward. Such things are rare with a server
/// that works, and a short pause keeps the next change fast.
const FRUITLESS_MAX: Duration = Duration::from_secs(1);
/// How long changes of the state are gathered before they are written.
const GATHER: Duration = Duration::from_secs(1);

/// What a worker has that others may look at.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) leases: Leases,
    pub(crate) metrics: Metrics,
    connected: AtomicBool,
    pub(crate) watching: AtomicBool,
    token: Mutex<Token>,
    trouble: Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn new(client: Client, token: Token, lease: Duration) -> Self {
        Self {
            client,
            leases: Leases::new(lease),
            metrics: Metrics::new(),
            connected: AtomicBool::new(false),
            watching: AtomicBool::new(false),
            token: Mutex::new(token),
            trouble: Mutex::new(None),
        }
    }

    pub(crate) fn token(&self) -> Token {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls with another token from now on, if it can be one.
    pub(crate) fn use_token(&self, token: &Token) -> bool {
        let Some(header) = token.header() else { return false };
        self.client.use_token(header);
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token.clone();
        true
    }

    /// What the last failure was, while there is no contact.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Brings the gauges up to date.
    pub(crate) fn measure(&self) {
        self.metrics.connected.set(i64::from(self.is_connected()));
        self.metrics.watching.set(i64::from(self.watching.load(Ordering::Relaxed)));
        self.metrics.held.set(i64::try_from(self.leases.count()).unwrap_or(i64::MAX));
        let expires = self.token().claims().map_or(0, |claims| claims.exp);
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
        self.metrics.token_expires.set(expires as f64);
    }
}

/// A running worker.
pub(crate) struct Run {
    pub(crate) worker: Worker,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stop: CancellationToken,
    pub(crate) inbox: Inbox,
    /// Asks the keeper to look at what waits, soon.
    pub(crate) look: Notify,
    /// Told when the server answered for the first time, or again.
    pub(crate) reached: Notify,
    /// How many applies have ended: what was observed before one of them is out of date.
    pub(crate) applies: AtomicU64,
    pub(crate) refusals: Mutex<Refusals>,
    pub(crate) upgrades: Underway,
    /// The workspace that the token stands for, by its events.
    workspace: Mutex<Option<String>>,
}

impl Run {
    pub(crate) fn new(worker: Worker, shared: Arc<Shared>, stop: CancellationToken) -> Self {
        Self {
            worker,
            shared,
            stop,
            inbox: Inbox::default(),
            look: Notify::new(),
            reached: Notify::new(),
            applies: AtomicU64::new(0),
            refusals: Mutex::default(),
            upgrades: Underway::default(),
            workspace: Mutex::new(None),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.shared.client
    }

    /// All of it, until the worker has stopped.
    pub(crate) async fn work(self) {
        // Claims are kept for as long as something is being applied, which is longer than new events are taken in.
        let delivered = CancellationToken::new();
        let deliveries = async {
            self.deliveries().await;
            delivered.cancel();
        };
        tokio::join!(
            self.intake(),
            deliveries,
            self.keep(&delivered),
            self.sweeps(),
            self.renew_tokens(),
            self.follow_up_upgrades(),
            self.save_state(&delivered),
        );
        self.worker.store.save().await;
        self.report(&Report::Stopped);
    }

    /// Delivers what comes in, several slots at once.
    async fn deliveries(&self) {
        let most = self.worker.config.concurrency;
        let mut running: FuturesUnordered<BoxFuture<'_, _>> = FuturesUnordered::new();
        let mut failures = self.backoff();
        let mut fruitless = self.fruitless();
        // After trouble, nothing is begun for a while.
        let mut pause_until: Option<Instant> = None;
        let mut over_at: Option<Instant> = None;
        loop {
            if pause_until.is_some_and(|until| until <= Instant::now()) {
                pause_until = None;
            }
            while over_at.is_none()
                && pause_until.is_none()
                && !self.stop.is_cancelled()
                && let Some((event, claiming)) = self.inbox.next(most)
            {
                running.push(Box::pin(self.attempt(event, claiming)));
            }
            if over_at.is_some() && running.is_empty() {
                return;
            }
            let far = Instant::now() + Duration::from_hours(24);
            tokio::select! {
                biased;
                Some((event, result)) = running.next() => {
                    let pause = Box::pin(self.ended(event, result, &mut failures, &mut fruitless)).await;
                    if let Some(pause) = pause {
                        pause_until = pause_until.max(Some(Instant::now() + pause));
                    }
                }
                () = self.stop.cancelled(), if over_at.is_none() => {
                    over_at = Some(Instant::now() + self.worker.config.stop_grace);
                }
                () = self.inbox.offered.notified() => {}
                () = sleep_until(pause_until.unwrap_or(far)), if pause_until.is_some() => {}
                () = sleep_until(over_at.unwrap_or(far)), if over_at.is_some() => {
                    tracing::warn!(applies = running.len(), "what is being applied takes too long and is left");
                    return;
                }
            }
        }
    }

    async fn attempt(
        &self,
        event: ConfigurationEvent,
        claiming: Claiming<'_>,
    ) -> (ConfigurationEvent, Result<Report, Failure>) {
        let result = self.deliver(&event, claiming).await;
        (event, result)
    }

    /// Notes how the work on an event ended, and returns how long to begin nothing else.
    async fn ended(
        &self,
        event: ConfigurationEvent,
        result: Result<Report, Failure>,
        failures: &mut Backoff,
        fruitless: &mut Backoff,
    ) -> Option<Duration> {
        let report = match result {
            Ok(report) => report,
            Err(failure) => {
                self.inbox.ended(event, !self.stop.is_cancelled(), false);
                if self.stop.is_cancelled() {
                    return None;
                }
                return Some(self.after(failure, failures).await);
            }
        };
        failures.reset();
        let outcome = match &report {
            Report::Applied { rejected, .. } if !rejected.is_empty() => Some(Outcome::partial),
            Report::Applied { .. } => Some(Outcome::applied),
            Report::Failed { .. } => Some(Outcome::failed),
            Report::Stale { .. } => Some(Outcome::stale),
            Report::Released { .. } => Some(Outcome::released),
            Report::NotClaimed { .. } => Some(Outcome::not_claimed),
            _ => None,
        };
        if let Some(outcome) = outcome {
            self.shared.metrics.ended(&Slot::from(&event), outcome);
        }
        let is_stale = matches!(report, Report::Stale { .. });
        self.inbox.ended(
            event,
            false,
            outcome.is_none_or(|outcome| outcome != Outcome::not_claimed) && !is_stale,
        );
        self.report(&report);
        if is_stale {
            // The server may offer it again without the watch telling so.
            self.look.notify_one();
            return Some(fruitless.next(None));
        }
        fruitless.reset();
        None
    }

    /// Writes the state a little after it changed.
    async fn save_state(&self, done: &CancellationToken) {
        if !self.worker.store.is_kept() {
            return;
        }
        loop {
            tokio::select! {
                () = done.cancelled() => return,
                () = self.worker.store.changed.notified() => {}
            }
            tokio::select! {
                () = done.cancelled() => return,
                () = sleep(GATHER) => self.worker.store.save().await,
            }
        }
    }

    /// The server answered.
    pub(crate) fn contacted(&self) {
        self.client().touch();
        self.forget_replaced_token();
        if !self.shared.connected.swap(true, Ordering::Relaxed) {
            *self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.report(&Report::Connected);
            self.reached.notify_waiters();
        }
    }

    /// Waits until the server has answered. False where the worker stops before.
    pub(crate) async fn until_reached(&self) -> bool {
        loop {
            let reached = self.reached.notified();
            if self.shared.is_connected() {
                return !self.stop.is_cancelled();
            }
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = reached => {}
            }
        }
    }

    /// Sleeps, or stops. False where the worker stops.
    pub(crate) async fn rest(&self, pause: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = sleep(pause) => true,
        }
    }

    /// Tells about a failure, and how long to leave the server alone.
    pub(crate) async fn after(&self, failure: Failure, failures: &mut Backoff) -> Duration {
        let code = failure.code_name();
        self.shared.connected.store(false, Ordering::Relaxed);
        self.shared.metrics.reconnects.inc();
        let trouble = format!("{code}: {}", failure.message);
        *self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
        if failure.is_transient() {
            let retry_in = failures.next(failure.retry_after);
            self.report(&Report::Unreachable { code, message: failure.message, retry_in });
            return retry_in;
        }
        let mut retry_in = failures.next(failure.retry_after);
        // A call that was made before the token was renewed says nothing of the new one.
        let is_of_old_token = failure.token.is_some_and(|token| token != self.client().token());
        let has_other_token =
            failure.code == Code::Unauthenticated && (is_of_old_token || Box::pin(self.reload_token()).await);
        if !has_other_token {
            retry_in = retry_in.max(self.worker.jitter.spread(self.worker.config.refused_pause));
        }
        self.report(&Report::Refused { code, reason: failure.reason, message: failure.message, retry_in });
        retry_in
    }

    pub(crate) fn backoff(&self) -> Backoff {
        let config = &self.worker.config;
        Backoff::new(config.backoff_min, config.backoff_max, self.worker.jitter.clone())
    }

    /// The pauses after what went through without bringing anything forward.
    pub(crate) fn fruitless(&self) -> Backoff {
        let config = &self.worker.config;
        let longest = FRUITLESS_MAX.clamp(config.backoff_min, config.backoff_max);
        Backoff::new(config.backoff_min, longest, self.worker.jitter.clone())
    }

    pub(crate) fn report(&self, report: &Report) {
        tracing::debug!(?report, "worker");
        (self.worker.observer)(report);
    }

    /// A worker serves one workspace. A credential that reaches several (a management API key does) would take
    /// events away from the workers they are meant for.
    pub(crate) fn check_workspace(&self, events: &[ConfigurationEvent]) -> Result<(), Failure> {
        let mut known = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            let workspace = known.get_or_insert_with(|| event.workspace_id.clone());
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
