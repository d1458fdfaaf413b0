//! A load that does not end: two fleets take turns, one being drained while the other one is triggered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use agentrouter_storage::Db;
use anyhow::{Context, Result, bail};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;

use crate::bench::Site;
use crate::fleet::Fleet;
use crate::retry::is_passing;
use crate::server::{self, Api, KEY};
use crate::stats::figure;
use crate::worker::{Client, claim_and_complete};

const WORKERS: usize = 32;
/// Between two tries of a call that failed for the moment.
const AGAIN: Duration = Duration::from_millis(50);

/// How long the database may be away.
const AWAY_MAX: Duration = Duration::from_mins(1);

/// An event to claim and complete.
#[derive(Debug)]
struct Job {
    event: String,
    fleet: usize,
    /// What is left of the round that it belongs to.
    left: Arc<AtomicUsize>,
}

/// Workers under load.
#[derive(Debug)]
pub(crate) struct Load {
    fleets: [Fleet; 2],
    shared: Arc<Shared>,
    feeders: JoinSet<Result<()>>,
    workers: JoinSet<Result<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    completed: AtomicU64,
    retries: AtomicU64,
    ending: AtomicBool,
}

impl Load {
    pub(crate) async fn start(site: &Site, workspaces: usize) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (sender, receiver) = mpsc::unbounded_channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let (mut feeders, mut workers) = (JoinSet::new(), JoinSet::new());
        let mut fleets = Vec::new();
        let mut keys = Vec::new();
        for (index, slug) in ["load-a", "load-b"].into_iter().enumerate() {
            let fleet = Fleet::new(site.db(), slug, workspaces).await?;
            keys.push(fleet.admin_key(&site.api).await?);
            let api = server::api(site.running.address, KEY).await?;
            let (db, jobs, shared) = (site.db().clone(), sender.clone(), Arc::clone(&shared));
            feeders.spawn(feed(index, fleet.clone(), db, api, jobs, shared));
            fleets.push(fleet);
        }
        for index in 0..WORKERS {
            let mut clients = Vec::new();
            for key in &keys {
                clients.push(Client::new(server::api(site.running.address, key).await?));
            }
            workers.spawn(work(
                format!("worker-{index}"),
                clients,
                Arc::clone(&receiver),
                Arc::clone(&shared),
            ));
        }
        let fleets = fleets.try_into().ok().context("two fleets")?;
        Ok(Self { fleets, shared, feeders, workers })
    }

    /// Events completed per second over the next while.
    pub(crate) async fn rate(&mut self, length: Duration) -> Result<f64> {
        let (before, started) = (self.completed(), Instant::now());
        tokio::select! {
            () = tokio::time::sleep(length) => {}
            Some(ended) = self.workers.join_next() => { ended??; bail!("a worker ended") }
            Some(ended) = self.feeders.join_next() => { ended??; bail!("a feeder ended") }
        }
        Ok(figure(self.completed() - before) / started.elapsed().as_secs_f64())
    }

    fn completed(&self) -> u64 {
        self.shared.completed.load(Ordering::Relaxed)
    }

    /// Lets the last round end. Returns how many workspaces are not at the newest version, how many events were completed,
    /// and how many calls had to be repeated.
    pub(crate) async fn stop(mut self, site: &Site) -> Result<(i64, u64, u64)> {
        self.shared.ending.store(true, Ordering::Relaxed);
        while let Some(ended) = self.feeders.join_next().await {
            ended??;
        }
        // The queue is closed now; the workers end with it.
        while let Some(ended) = self.workers.join_next().await {
            ended??;
        }
        let mut behind = 0;
        for fleet in &self.fleets {
            behind += fleet.behind(site.db()).await?;
        }
        Ok((behind, self.completed(), self.shared.retries.load(Ordering::Relaxed)))
    }
}

/// Triggers a fleet again whenever it is all but done.
async fn feed(
    index: usize,
    fleet: Fleet,
    db: Db,
    api: Api,
    jobs: mpsc::UnboundedSender<Job>,
    shared: Arc<Shared>,
) -> Result<()> {
    while !shared.ending.load(Ordering::Relaxed) {
        let deadline = Instant::now() + AWAY_MAX;
        let events = loop {
            // What fails half-way has triggered or not: the next one makes new events for all either way.
            match fleet.events(&db, &api).await {
                Ok(events) => break events,
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        let left = Arc::new(AtomicUsize::new(events.len()));
        let few = events.len() / 20;
        for event in events {
            jobs.send(Job { event, fleet: index, left: Arc::clone(&left) }).context("no worker is left")?;
        }
        while left.load(Ordering::Relaxed) > few {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    Ok(())
}

async fn work(
    worker_id: String,
    mut clients: Vec<Client>,
    jobs: Arc<Mutex<mpsc::UnboundedReceiver<Job>>>,
    shared: Arc<Shared>,
) -> Result<()> {
    loop {
        let next = jobs.lock().await.recv().await;
        let Some(Job { event, fleet, left }) = next else { return Ok(()) };
        let client = clients.get_mut(fleet).context("a client")?;
        loop {
            match claim_and_complete(client, &event, &worker_id).await {
                // False: completed by a call whose answer was lost, or superseded by such a trigger.
                Ok(_) => break,
                // Aborted: the lease ended while the database was away.
                Err(status) if is_passing(&status) || status.code() == Code::Aborted => {
                    shared.retries.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(AGAIN).await;
                }
                Err(status) => return Err(status.into()),
            }
        }
        shared.completed.fetch_add(1, Ordering::Relaxed);
        left.fetch_sub(1, Ordering::Relaxed);
    }
}
