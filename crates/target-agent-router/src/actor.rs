//! The one that owns the process: gathers changes, makes them, and keeps it running.

use std::time::Duration;

use agentrouter_api::configurator::Configuration;
use agentrouter_liaison::{Applied, DirTarget, Rejected, Target};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::files::Files;
use crate::options::{AgentRouterOptions, Mode};
use crate::process::{Failure, Process};
use crate::state::{Plan, State};

/// The first pause before a process that died is started again; it doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long each resource may add to the time until it is ready.
const READY_EACH: Duration = Duration::from_millis(250);

/// A configuration that waits, and who waits for it.
pub(crate) struct Change {
    pub(crate) configuration: Configuration,
    pub(crate) answer: oneshot::Sender<Result<Applied, Rejected>>,
}

/// Changes that will be made together.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Batch {
    fn add(&mut self, change: Change) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.changes.push(change);
    }

    /// When they are to be made.
    fn due(&self, options: &AgentRouterOptions) -> Option<Instant> {
        Some((self.last? + options.quiet).min(self.first? + options.max_delay))
    }
}

pub(crate) struct Actor {
    options: AgentRouterOptions,
    files: Files,
    slots: DirTarget,
    /// What runs, or ran last.
    state: State,
    /// What it was started with.
    plan: Option<Plan>,
    process: Option<Process>,
    down: watch::Sender<Option<String>>,
    /// When to start it again, and the pause after that.
    restart: Option<(Instant, Duration)>,
    stop: CancellationToken,
}

impl Actor {
    pub(crate) fn new(
        options: AgentRouterOptions,
        files: Files,
        slots: DirTarget,
        state: State,
        down: watch::Sender<Option<String>>,
        stop: CancellationToken,
    ) -> Self {
        // What the folder holds is started at once.
        let restart = (options.mode == Mode::Run && !state.is_empty()).then(|| (Instant::now(), PAUSE));
        if restart.is_some() {
            down.send_replace(Some("Agent Router starts".to_owned()));
        }
        Self { options, files, slots, state, plan: None, process: None, down, restart, stop }
    }

    pub(crate) async fn run(mut self, mut arriving: mpsc::UnboundedReceiver<Change>) {
        let mut batch = Batch::default();
        let stop = self.stop.clone();
        loop {
            let due = batch.due(&self.options);
            let restart = self.restart.map(|(at, _)| at);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = at(restart) => self.start_again().await,
                status = died(&mut self.process) => self.died(&status),
                Some(change) = arriving.recv() => batch.add(change),
                () = at(due) => self.make(std::mem::take(&mut batch).changes).await,
            }
        }
        // Who still waits is told by what is dropped here.
        if let Some(process) = self.process.take() {
            process.stop(self.options.drain).await;
        }
    }

    fn died(&mut self, status: &str) {
        tracing::error!("Agent Router ended by itself: {status}");
        self.process = None;
        self.down.send_replace(Some("Agent Router does not run".to_owned()));
        self.restart = Some((Instant::now(), PAUSE));
    }

    async fn start_again(&mut self) {
        let pause = self.restart.take().map_or(PAUSE, |(_, pause)| pause);
        let plan = match self.plan.clone().map_or_else(|| self.state.plan(None, &self.options), Ok) {
            Ok(plan) => plan,
            Err(error) => return tracing::error!("the configuration cannot be written: {error}"),
        };
        match self.start(&plan).await {
            Ok(()) => self.plan = Some(plan),
            Err(Failure::Environment(why) | Failure::Refused(why)) => {
                tracing::error!(retry_in_s = pause.as_secs(), "Agent Router does not run: {why}");
                self.down.send_replace(Some(why));
                self.restart = Some((Instant::now() + pause, (pause * 2).min(PAUSE_MAX)));
            }
        }
    }

    /// Starts it with a plan, and waits until it serves.
    async fn start(&mut self, plan: &Plan) -> Result<(), Failure> {
        let began = Instant::now();
        self.files.write_config(&plan.text).map_err(|error| {
            // An error of the system names no path by itself.
            Failure::Environment(format!("cannot write the file: {error}"))
        })?;
        let mut process = Process::start(&self.options, &self.files).await?;
        let each = READY_EACH * u32::try_from(plan.resources).unwrap_or(u32::MAX);
        let ready = process.ready(self.options.ready.saturating_add(each), plan.routes, &self.stop).await;
        if let Err(failure) = ready {
            process.stop(Duration::ZERO).await;
            return Err(failure);
        }
        let ready_ms = began.elapsed().as_millis();
        tracing::info!(ready_ms, resources = plan.resources, "Agent Router runs");
        self.process = Some(process);
        self.restart = None;
        self.down.send_replace(None);
        Ok(())
    }

    /// Makes changes, and answers those who wait for them.
    async fn make(&mut self, changes: Vec<Change>) {
        let mut next = self.state.clone();
        let (old, new): (Vec<Change>, Vec<Change>) =
            changes.into_iter().partition(|change| self.state.newer(&change.configuration).is_some());
        for change in &new {
            next.put(&change.configuration);
        }
        let Ok(plan) = next.plan(self.plan.as_ref(), &self.options) else {
            return refuse(new, &Rejected::permanent("it cannot be written to a file"));
        };
        for Change { configuration, answer } in old {
            if let Some(held) = self.state.newer(&configuration) {
                // Who asked may be gone.
                let _ = answer.send(Ok(plan.applied(held)));
            }
        }
        if new.is_empty() {
            return;
        }
        match self.change_to(&plan).await {
            Ok(()) => {}
            // What came up before comes up still, so it is the content; of several changes, one by one will tell whose.
            Err(Failure::Refused(_)) if self.process.is_some() && new.len() > 1 => {
                for change in new {
                    Box::pin(self.make(vec![change])).await;
                }
                return;
            }
            Err(Failure::Refused(why)) if self.process.is_some() => {
                return refuse(new, &Rejected::permanent(why));
            }
            // Where nothing comes up, it may as well be the machine.
            Err(Failure::Refused(why) | Failure::Environment(why)) => {
                return refuse(new, &Rejected::transient(why));
            }
        }
        self.plan = Some(plan.clone());
        self.state = next;
        for Change { configuration, answer } in new {
            let kept = self.slots.apply(&configuration).await;
            let _ = answer.send(kept.map(|_| plan.applied(&configuration)));
        }
    }

    /// Runs a plan, or what ran before.
    async fn change_to(&mut self, plan: &Plan) -> Result<(), Failure> {
        let same = self.plan.as_ref().is_some_and(|running| running.means(plan));
        if self.options.mode == Mode::WriteOnly || same && self.process.is_some() {
            return self.files.write_config(&plan.text).map_err(|error| {
                // An error of the system names no path by itself.
                Failure::Environment(format!("cannot write the file: {error}"))
            });
        }
        let began = Instant::now();
        if let Some(process) = self.process.take() {
            process.stop(self.options.drain).await;
        }
        // Starting what would be ended at once only makes a stop take longer.
        let stops = || Failure::Environment("the worker stops".to_owned());
        if self.stop.is_cancelled() {
            return Err(stops());
        }
        let Err(failure) = self.start(plan).await else {
            let took_ms = began.elapsed().as_millis();
            tracing::info!(took_ms, "changed");
            return Ok(());
        };
        if self.stop.is_cancelled() {
            return Err(stops());
        }
        let (Failure::Environment(why) | Failure::Refused(why)) = &failure;
        tracing::error!("a change did not come up: {why}");
        if self.plan.is_some() || !self.state.is_empty() {
            self.start_again().await;
        } else {
            self.down.send_replace(Some(why.clone()));
        }
        Err(failure)
    }
}

fn refuse(changes: Vec<Change>, rejected: &Rejected) {
    for change in changes {
        // Who asked may be gone.
        let _ = change.answer.send(Err(rejected.clone()));
    }
}

/// Waits until then; for ever where there is no time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn died(process: &mut Option<Process>) -> String {
    match process {
        Some(process) => process.died().await,
        None => std::future::pending().await,
    }
}
