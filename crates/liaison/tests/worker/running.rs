//! Workers under test, and targets to watch them by.

use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator::Configuration;
use agentrouter_liaison::{Applied, Rejected, Report, Target, Token, Worker, WorkerConfig};
use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::plane::{PATIENCE, Plane, TOKEN};

/// Short pauses, so that tests are fast.
pub(crate) fn config(plane: &Plane) -> WorkerConfig {
    WorkerConfig {
        worker_id: "worker-1".to_owned(),
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(100),
        refused_pause: Duration::from_millis(200),
        ..WorkerConfig::new(plane.base_url(), Token::new(TOKEN))
    }
}

/// A worker at work.
pub(crate) struct Running {
    pub(crate) stop: CancellationToken,
    tasks: JoinSet<()>,
    reports: watch::Receiver<Vec<Report>>,
}

impl Running {
    pub(crate) fn start(config: WorkerConfig, target: Arc<dyn Target>) -> Self {
        Self::start_with(config, target, |worker| worker)
    }

    /// Starts a worker with more than a target.
    pub(crate) fn start_with(
        config: WorkerConfig,
        target: Arc<dyn Target>,
        with: impl FnOnce(Worker) -> Worker,
    ) -> Self {
        let (sender, reports) = watch::channel(Vec::new());
        let worker = Worker::new(config, target)
            .expect("the configuration is good")
            .with_rng(fastrand::Rng::with_seed(7))
            .on_report(move |report| sender.send_modify(|reports| reports.push(report.clone())));
        let worker = with(worker);
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(worker.run(stop.clone()));
        Self { stop, tasks, reports }
    }

    /// Waits for a report.
    pub(crate) async fn until(&self, mut is: impl FnMut(&Report) -> bool) -> Report {
        let mut reports = self.reports.clone();
        let waiting = reports.wait_for(|reports| reports.iter().any(&mut is));
        let found = match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(reports) => reports.expect("the worker lives").iter().find(|report| is(report)).cloned(),
            Err(_) => None,
        };
        found.unwrap_or_else(|| panic!("it was never reported: {:?}", self.reports()))
    }

    pub(crate) fn reports(&self) -> Vec<Report> {
        self.reports.borrow().clone()
    }

    pub(crate) fn is_over(&mut self) -> bool {
        self.tasks.try_join_next().is_some()
    }

    /// Waits for the end, without asking for it.
    pub(crate) async fn ended(&mut self) {
        let ended = tokio::time::timeout(PATIENCE, self.tasks.join_next()).await;
        ended.expect("it ends in time").expect("it was running").expect("it does not panic");
    }

    pub(crate) async fn stop(mut self) -> Vec<Report> {
        self.stop.cancel();
        self.ended().await;
        self.reports()
    }
}

/// A target whose applies wait until they are let through.
#[derive(Debug)]
pub(crate) struct Gated {
    pub(crate) started: watch::Sender<Vec<i64>>,
    pub(crate) open: watch::Sender<bool>,
}

impl Gated {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { started: watch::Sender::new(Vec::new()), open: watch::Sender::new(false) })
    }

    pub(crate) async fn until_started(&self, version: i64) {
        let mut started = self.started.subscribe();
        let waiting = started.wait_for(|started| started.contains(&version));
        tokio::time::timeout(PATIENCE, waiting).await.expect("an apply in time").expect("the target lives");
    }
}

#[async_trait]
impl Target for Gated {
    async fn apply(&self, configuration: &Configuration) -> Result<Applied, Rejected> {
        self.started.send_modify(|started| started.push(configuration.version));
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.map_err(|_| Rejected::transient("the gate is gone"))?;
        Ok(Applied {
            version: configuration.version,
            checksum: configuration.checksum.clone(),
            ..Applied::default()
        })
    }
}

/// A target that takes nothing.
#[derive(Debug)]
pub(crate) struct Refusing(pub(crate) Rejected);

#[async_trait]
impl Target for Refusing {
    async fn apply(&self, _: &Configuration) -> Result<Applied, Rejected> {
        Err(self.0.clone())
    }
}
