//! Simulated workers: tasks that wait for events, claim and complete them, many on a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use anyhow::{Context, Result, bail, ensure};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::retry::{Retry, is_passing};
use crate::server::{self, Api};

pub(crate) type Client = ConfiguratorServiceClient<Api>;

/// Workers on one connection. A server takes 200 calls at once on each, and a worker may have two.
const PER_CONNECTION: usize = 100;
/// How long a poll is held open.
const WAIT: Duration = Duration::from_mins(1);

/// How a worker learns of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Asks now and then.
    Poll(Duration),
    /// Asks, and the server answers when there is something.
    LongPoll,
    /// Has a stream open.
    Watch,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Poll(_) => "polling every 5 s",
            Self::LongPoll => "long-polling",
            Self::Watch => "watching",
        }
    }

    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Watch, Self::LongPoll, Self::Poll(Duration::from_secs(5))];
}

/// Connections that many workers share.
#[derive(Debug)]
pub(crate) struct Lines(Vec<Channel>);

impl Lines {
    /// Enough for so many workers.
    pub(crate) async fn open(address: SocketAddr, workers: usize) -> Result<Self> {
        let mut lines = Vec::new();
        for _ in 0..workers.div_ceil(PER_CONNECTION) {
            lines.push(server::connect(address).await?);
        }
        Ok(Self(lines))
    }

    /// The client of a worker.
    pub(crate) fn client(&self, worker: usize, key: &str) -> Result<Client> {
        let channel = self.0.get(worker / PER_CONNECTION).context("a connection")?.clone();
        Ok(ConfiguratorServiceClient::new(server::with_key(channel, key)?))
    }
}

/// A point of (0, 1) for each worker, evenly spread and the same in every run.
pub(crate) fn spread(worker: usize) -> f64 {
    (crate::stats::figure(worker) * 0.618_033_988_749_895).fract()
}

/// An event that a worker applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applied {
    pub(crate) worker: usize,
    pub(crate) version: i64,
    /// When the worker got it.
    pub(crate) received: Instant,
    /// When its completion was answered.
    pub(crate) completed: Instant,
}

/// Workers at work. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Swarm {
    tasks: JoinSet<Result<()>>,
    applied: UnboundedReceiver<Applied>,
    retries: Arc<AtomicUsize>,
}

impl Swarm {
    /// Starts a worker for each token.
    pub(crate) async fn start(address: SocketAddr, tokens: &[String], mode: Mode) -> Result<Self> {
        let lines = Lines::open(address, tokens.len()).await?;
        let (sender, applied) = mpsc::unbounded_channel();
        let retries = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for (index, token) in tokens.iter().enumerate() {
            let worker = Worker {
                index,
                id: format!("worker-{index}"),
                client: lines.client(index, token)?,
                applied: sender.clone(),
                retries: Arc::clone(&retries),
                retry: Retry::new(index),
            };
            tasks.spawn(worker.run(mode));
        }
        Ok(Self { tasks, applied, retries })
    }

    /// How many calls were tried again since the last look.
    pub(crate) fn retries(&self) -> usize {
        self.retries.swap(0, Ordering::Relaxed)
    }

    /// The next event that any worker applies.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Result<Applied> {
        tokio::select! {
            applied = self.applied.recv() => applied.context("all workers ended"),
            Some(ended) = self.tasks.join_next() => {
                ended??;
                bail!("a worker ended")
            }
            () = tokio::time::sleep_until(deadline) => bail!("the workers took too long"),
        }
    }

    /// The next so many.
    pub(crate) async fn take(&mut self, count: usize, within: Duration) -> Result<Vec<Applied>> {
        let deadline = Instant::now() + within;
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            let next = self.next(deadline).await;
            taken.push(next.with_context(|| format!("{} of {count} events", taken.len()))?);
        }
        Ok(taken)
    }
}

struct Worker {
    index: usize,
    id: String,
    client: Client,
    applied: UnboundedSender<Applied>,
    retries: Arc<AtomicUsize>,
    retry: Retry,
}

impl Worker {
    async fn run(mut self, mode: Mode) -> Result<()> {
        match mode {
            Mode::Poll(period) => {
                tokio::time::sleep(period.mul_f64(spread(self.index))).await;
                let mut ticks = tokio::time::interval(period);
                loop {
                    ticks.tick().await;
                    self.poll(Duration::ZERO).await?;
                }
            }
            Mode::LongPoll => loop {
                self.poll(WAIT).await?;
            },
            Mode::Watch => self.watch().await,
        }
    }

    async fn poll(&mut self, wait: Duration) -> Result<()> {
        let request = pb::ListPendingEventsRequest {
            wait: Some(wait.try_into()?),
            worker_id: self.id.clone(),
            ..Default::default()
        };
        let polled =
            self.patiently(&request, async |client, request| client.list_pending_events(request).await);
        let events = polled.await?.events;
        self.apply(events).await
    }

    async fn watch(&mut self) -> Result<()> {
        let mut cursor = String::new();
        loop {
            let request = pb::WatchPendingEventsRequest {
                cursor: cursor.clone(),
                worker_id: self.id.clone(),
                ..Default::default()
            };
            let opened =
                self.patiently(&request, async |client, request| client.watch_pending_events(request).await);
            let mut stream = opened.await?;
            loop {
                match stream.message().await {
                    Ok(Some(news)) => {
                        self.apply(news.events).await?;
                        cursor = news.cursor;
                    }
                    Ok(None) => break,
                    Err(status) => {
                        self.pause(status).await?;
                        break;
                    }
                }
            }
        }
    }

    async fn apply(&mut self, events: Vec<pb::ConfigurationEvent>) -> Result<()> {
        let received = Instant::now();
        for event in events {
            // Somebody newer may have taken its place; then that one comes, too.
            if self.claim_and_complete(&event.id).await? {
                let (worker, version, completed) = (self.index, event.version, Instant::now());
                let _ = self.applied.send(Applied { worker, version, received, completed });
            }
        }
        Ok(())
    }

    async fn claim_and_complete(&mut self, event_id: &str) -> Result<bool, Status> {
        let claim = claim(event_id, &self.id);
        let claim =
            self.patiently(&claim, async |client, claim| client.acknowledge_event(claim).await).await?;
        if !claim.success {
            return Ok(false);
        }
        let done = completion(event_id, &claim.claim_token);
        Ok(self.patiently(&done, async |client, done| client.complete_event(done).await).await?.success)
    }

    /// Makes a call until the server has time for it.
    async fn patiently<Q: Clone, A>(
        &mut self,
        request: &Q,
        call: impl AsyncFn(&mut Client, Q) -> Result<Response<A>, Status>,
    ) -> Result<A, Status> {
        loop {
            match call(&mut self.client, request.clone()).await {
                Ok(response) => {
                    self.retry.succeeded();
                    return Ok(response.into_inner());
                }
                Err(status) => self.pause(status).await?,
            }
        }
    }

    /// Waits, where waiting helps.
    async fn pause(&mut self, status: Status) -> Result<(), Status> {
        if !is_passing(&status) {
            return Err(status);
        }
        self.retries.fetch_add(1, Ordering::Relaxed);
        self.retry.pause(&status).await;
        Ok(())
    }
}

/// Claims and completes an event; false where it was superseded meanwhile.
pub(crate) async fn claim_and_complete(
    client: &mut Client,
    event_id: &str,
    worker_id: &str,
) -> Result<bool, Status> {
    let claim = client.acknowledge_event(claim(event_id, worker_id)).await?.into_inner();
    if !claim.success {
        return Ok(false);
    }
    let done = completion(event_id, &claim.claim_token);
    Ok(client.complete_event(done).await?.into_inner().success)
}

/// A claim with the lease that the server chooses.
fn claim(event_id: &str, worker_id: &str) -> pb::AcknowledgeEventRequest {
    pb::AcknowledgeEventRequest {
        event_id: event_id.to_owned(),
        worker_id: worker_id.to_owned(),
        lease: None,
    }
}

/// A report of success under a claim.
pub(crate) fn completion(event_id: &str, claim_token: &str) -> pb::CompleteEventRequest {
    pb::CompleteEventRequest {
        event_id: event_id.to_owned(),
        success: true,
        claim_token: claim_token.to_owned(),
        ..Default::default()
    }
}

/// Claims and completes up to 100 events with two calls. Fails where any of them is refused.
pub(crate) async fn batch(client: &mut Client, event_ids: &[String], worker_id: &str) -> Result<()> {
    let claims = pb::BatchAcknowledgeEventsRequest {
        event_ids: event_ids.to_vec(),
        worker_id: worker_id.to_owned(),
        lease: None,
    };
    let claims = client.batch_acknowledge_events(claims).await?.into_inner().results;
    let mut completions = Vec::with_capacity(claims.len());
    for result in claims {
        let claim =
            result.response.with_context(|| format!("{}: {}", result.event_id, result.error_reason))?;
        ensure!(claim.success, "{} is held by {:?}", result.event_id, claim.holder);
        completions.push(completion(&result.event_id, &claim.claim_token));
    }
    let done = pb::BatchCompleteEventsRequest { completions };
    for result in client.batch_complete_events(done).await?.into_inner().results {
        let done =
            result.response.with_context(|| format!("{}: {}", result.event_id, result.error_reason))?;
        ensure!(done.success, "{} is not completed", result.event_id);
    }
    Ok(())
}
