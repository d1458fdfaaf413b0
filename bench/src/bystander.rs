//! A tenant with one workspace, whose triggers should not notice what others do.

use std::net::SocketAddr;
use std::time::Duration;

use agentrouter_storage::Db;
use anyhow::Result;
use tokio::time::Instant;

use crate::fleet::Fleet;
use crate::server::{self, Api, KEY};
use crate::stats::Millis;
use crate::worker::{Mode, Swarm};

const PATIENCE: Duration = Duration::from_mins(1);
/// Between two triggers.
const PAUSE: Duration = Duration::from_millis(20);

/// The tenant, with its worker.
#[derive(Debug)]
pub(crate) struct Bystander {
    db: Db,
    api: Api,
    fleet: Fleet,
    worker: Swarm,
}

impl Bystander {
    /// Connects a worker that has nothing to do.
    pub(crate) async fn start(
        db: &Db,
        address: SocketAddr,
        fleet: &Fleet,
        tokens: &[String],
    ) -> Result<Self> {
        let api = server::api(address, KEY).await?;
        let worker = Swarm::start(address, tokens, Mode::LongPoll).await?;
        let mut bystander = Self { db: db.clone(), api, fleet: fleet.clone(), worker };
        bystander.trigger().await?;
        Ok(bystander)
    }

    /// From the call of a trigger to its completion by the worker.
    pub(crate) async fn trigger(&mut self) -> Result<Duration> {
        self.fleet.change(&self.db).await?;
        let started = Instant::now();
        self.fleet.trigger(&self.api).await?;
        self.worker.take(1, PATIENCE).await?;
        Ok(started.elapsed())
    }

    /// Triggers again and again until something else ends.
    pub(crate) async fn until<T>(&mut self, other: impl Future<Output = T>) -> Result<(Millis, T)> {
        let mut other = std::pin::pin!(other);
        let mut took = Vec::new();
        loop {
            took.push(self.trigger().await?);
            tokio::select! {
                ended = &mut other => return Ok((Millis::new(took), ended)),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}
