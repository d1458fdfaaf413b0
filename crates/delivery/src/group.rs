//! Claims and completions of single calls that come at the same time share a transaction.
//!
//! A commit costs as much for thirty of them as for one. Nobody waits for company: who comes alone goes alone at once,
//! and those who come while a transaction is under way are the next one. Each gets its own answer, and only after the
//! commit.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentrouter_kernel::{Fault, FaultKind};
use agentrouter_storage::{Db, Engine};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::batch::{self, Ask, BATCH_MAX, Report};
use crate::claim::{self, Claimed};
use crate::complete;

/// How many transactions of one kind are under way at most on PostgreSQL: while one waits for its commit, the next one
/// works. SQLite has one writer anyway.
const LANES: usize = 2;

/// Groups single calls into transactions.
#[derive(Debug, Clone)]
pub struct Groups {
    db: Db,
    tasks: TaskTracker,
    claims: Arc<Queue<Ask>>,
    reports: Arc<Queue<Report>>,
}

impl Groups {
    /// Groups over a database.
    pub fn new(db: Db) -> Self {
        let lanes = if db.engine() == Engine::Sqlite { 1 } else { LANES };
        let (claims, reports) = (Arc::new(Queue::new(lanes)), Arc::new(Queue::new(lanes)));
        Self { db, tasks: TaskTracker::new(), claims, reports }
    }

    /// [`claim::acknowledge`], with others.
    ///
    /// # Errors
    /// Those of [`claim::acknowledge`].
    pub async fn acknowledge(&self, ask: Ask) -> Result<Claimed, Fault> {
        self.run(&self.claims, ask).await
    }

    /// [`complete::complete`], with others.
    ///
    /// # Errors
    /// Those of [`complete::complete`].
    pub async fn complete(&self, report: Report) -> Result<bool, Fault> {
        self.run(&self.reports, report).await
    }

    async fn run<W: Work>(&self, queue: &Arc<Queue<W>>, work: W) -> Result<W::Answer, Fault> {
        // The trace of a call shows what was done for it, not for others.
        if self.db.telemetry().tracer().is_some_and(|tracer| tracer.current().is_some()) {
            return work.alone(&self.db).await;
        }
        let (answer, answered) = oneshot::channel();
        if let Some(lane) = queue.push(work, answer) {
            let db = self.db.clone();
            self.tasks.spawn(async move { lane.run(&db).await });
        }
        answered.await.map_err(|_| Fault::internal("a group of calls was given up"))?
    }
}

/// What can be done alone or together.
trait Work: Sized + Send + Sync + 'static {
    type Answer: std::fmt::Debug + Send + 'static;

    fn alone(&self, db: &Db) -> impl Future<Output = Result<Self::Answer, Fault>> + Send;

    fn together(
        db: &Db,
        group: &[Self],
    ) -> impl Future<Output = Result<Vec<Result<Self::Answer, Fault>>, Fault>> + Send;
}

impl Work for Ask {
    type Answer = Claimed;

    async fn alone(&self, db: &Db) -> Result<Claimed, Fault> {
        claim::acknowledge(db, &self.reach, self.event, &self.worker, self.lease).await
    }

    async fn together(db: &Db, group: &[Self]) -> Result<Vec<Result<Claimed, Fault>>, Fault> {
        batch::acknowledge_all(db, group).await
    }
}

impl Work for Report {
    type Answer = bool;

    async fn alone(&self, db: &Db) -> Result<bool, Fault> {
        complete::complete(db, &self.reach, &self.completion).await
    }

    async fn together(db: &Db, group: &[Self]) -> Result<Vec<Result<bool, Fault>>, Fault> {
        batch::complete_all(db, group).await
    }
}

type Answering<W> = oneshot::Sender<Result<<W as Work>::Answer, Fault>>;

#[derive(Debug)]
struct Queue<W: Work> {
    lanes: usize,
    waiting: Mutex<Waiting<W>>,
}

#[derive(Debug)]
struct Waiting<W: Work> {
    works: VecDeque<(W, Answering<W>)>,
    /// Lanes that run.
    lanes: usize,
}

impl<W: Work> Queue<W> {
    fn new(lanes: usize) -> Self {
        Self { lanes, waiting: Mutex::new(Waiting { works: VecDeque::new(), lanes: 0 }) }
    }

    /// Puts a work into the queue. Where a lane is free, the caller is to run it.
    fn push(self: &Arc<Self>, work: W, answer: Answering<W>) -> Option<Lane<W>> {
        let mut waiting = self.lock();
        waiting.works.push_back((work, answer));
        if waiting.lanes == self.lanes {
            return None;
        }
        waiting.lanes += 1;
        Some(Lane { queue: Arc::clone(self), is_free: false })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<W>> {
        // Nothing that can panic runs under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane of a queue, free again when it is dropped.
struct Lane<W: Work> {
    queue: Arc<Queue<W>>,
    is_free: bool,
}

impl<W: Work> Drop for Lane<W> {
    fn drop(&mut self) {
        if !self.is_free {
            self.queue.lock().lanes -= 1;
        }
    }
}

impl<W: Work> Lane<W> {
    /// Works until the queue is empty.
    async fn run(mut self, db: &Db) {
        while let Some((works, answers)) = self.next() {
            for (answer, result) in answers.into_iter().zip(results(db, &works).await) {
                // Who went away is not told; the work is done all the same, as when an answer gets lost.
                let _ = answer.send(result);
            }
        }
    }

    fn next(&mut self) -> Option<(Vec<W>, Vec<Answering<W>>)> {
        let mut waiting = self.queue.lock();
        let size = waiting.works.len().min(BATCH_MAX);
        if size == 0 {
            // Under the lock of this look, so that nothing is put into the queue in between.
            waiting.lanes -= 1;
            self.is_free = true;
            return None;
        }
        Some(waiting.works.drain(..size).unzip())
    }
}

async fn results<W: Work>(db: &Db, works: &[W]) -> Vec<Result<W::Answer, Fault>> {
    if let [only] = works {
        return vec![only.alone(db).await];
    }
    match W::together(db, works).await {
        Ok(results) => results,
        // Each for itself would wait for the same database.
        Err(fault) if fault.kind() == FaultKind::Unavailable => {
            works.iter().map(|_| Err(repeat(&fault))).collect()
        }
        // One of them made all fail, or they met another transaction.
        Err(_) => {
            let mut results = Vec::with_capacity(works.len());
            for work in works {
                results.push(work.alone(db).await);
            }
            results
        }
    }
}

fn repeat(fault: &Fault) -> Fault {
    let repeated = Fault::new(fault.kind(), fault.reason(), fault.message());
    match fault.retry_after() {
        Some(after) => repeated.with_retry_after(after),
        None => repeated,
    }
}
