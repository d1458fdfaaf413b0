//! WatchPendingEvents: a stream per worker, of which most are idle.
//!
//! A stream asks the database only where there is news for its workspace. Which workspaces have news is asked once for
//! all streams of a customer. A reader that is slow holds its own stream back, and gets the newest state when it reads
//! on: nothing is kept for it but its place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_delivery::event::EventRow;
use agentrouter_delivery::watch::{self, Position, Together};
use agentrouter_kernel::id::{Customer, Id, Workspace};
use agentrouter_kernel::page::{CursorValue, PageScope};
use agentrouter_kernel::{Fault, FaultKind, Timestamp, Violations};
use agentrouter_rpc::{Call, Deps, into_status};
use agentrouter_storage::{Db, StorageError};
use agentrouter_telemetry::metrics::{Wait, Waiting};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch as news;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use crate::events::{WORKER_ID_MAX, named_workspace, reach};
use crate::presence::Presence;

/// How long a stream is silent at most.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a cursor is good. What was given out before it and never claimed is not given out again, so a worker that
/// was away for longer lists again.
const CURSOR_KEPT: Duration = Duration::from_hours(1);
/// The most events of one message.
const MESSAGE_MAX: i64 = 100;
/// What the streams of a customer share is read anew after this time even without news, should one have been lost.
const OFFERS_KEPT: Duration = Duration::from_secs(30);
/// While an event waits for an older one of its slot, it is asked for at least this often.
const HELD_BACK: Duration = Duration::from_secs(1);

/// What the streams of one process share.
#[derive(Debug)]
pub(crate) struct Watches {
    heartbeat: Duration,
    customers: Mutex<HashMap<Id<Customer>, Weak<tokio::sync::Mutex<Offers>>>>,
}

impl Watches {
    pub(crate) fn new(heartbeat: Duration) -> Self {
        Self { heartbeat, customers: Mutex::default() }
    }

    /// What the streams of a customer share; gone with the last of them.
    fn of(&self, customer: Id<Customer>) -> Arc<tokio::sync::Mutex<Offers>> {
        let mut customers = self.customers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = customers.get(&customer).and_then(Weak::upgrade) {
            return shared;
        }
        customers.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::default();
        customers.insert(customer, Arc::downgrade(&shared));
        shared
    }
}

/// From how many workspaces with news on these are read together.
const TOGETHER_MIN: usize = 8;

/// How far the offers of a customer's workspaces have come, as of some news, and what they are.
#[derive(Debug, Default)]
struct Offers {
    as_of: Option<u64>,
    read_at: Option<Instant>,
    offered: HashMap<Id<Workspace>, i64>,
    together: Together,
}

impl Offers {
    /// How far a workspace's have come, as of `now` or later. The first of many streams that heard the same news asks;
    /// the others are told.
    async fn get(
        &mut self,
        db: &Db,
        customer: Id<Customer>,
        workspace: Id<Workspace>,
        now: u64,
        watches: usize,
    ) -> Result<i64, StorageError> {
        let is_old = self.read_at.is_none_or(|read_at| read_at.elapsed() > OFFERS_KEPT);
        if is_old || self.as_of.is_none_or(|as_of| as_of < now) {
            let read_at = Instant::now();
            (self.offered, self.together) = self.read(db, customer, watches).await?;
            // Once it is done: the stream that asks may end before that, and the others would wait for its answer. And
            // not news that came while it read.
            (self.as_of, self.read_at) = (Some(now), Some(read_at));
        }
        Ok(self.offered.get(&workspace).copied().unwrap_or_default())
    }

    async fn read(
        &self,
        db: &Db,
        customer: Id<Customer>,
        watches: usize,
    ) -> Result<(HashMap<Id<Workspace>, i64>, Together), StorageError> {
        let offered = watch::offered_to_all(db, customer).await?;
        let moved: Vec<_> = self
            .offered
            .iter()
            .filter(|(workspace, before)| offered.get(workspace).is_some_and(|now| now > before))
            .map(|(workspace, before)| (*workspace, *before))
            .collect();
        // Where most of them are watched at another replica, or not at all, it would be read for nobody.
        let is_worthwhile = moved.len() >= TOGETHER_MIN && moved.len() / 4 <= watches;
        let together =
            if is_worthwhile { Together::read(db, customer, moved).await? } else { Together::default() };
        Ok((offered, together))
    }
}

/// A stream under way.
struct Stream {
    deps: Deps,
    presence: Arc<Presence>,
    shutdown: CancellationToken,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    worker: String,
    shared: Arc<tokio::sync::Mutex<Offers>>,
    news: news::Receiver<u64>,
    heartbeat: Duration,
    at: Position,
    /// The database's time at some moment.
    started_at: (Timestamp, Instant),
    /// How far the offers had come when it last read.
    seen: i64,
    is_worker: bool,
    _waiting: Waiting,
    /// When it last said something; none before the first message.
    spoke_at: Option<Instant>,
    /// Whether there may be more to read than was read.
    has_more: bool,
    ended: bool,
}

/// The messages of a watch. Nothing runs for them but the call that reads them: what is not read is not made.
pub(crate) type Messages = BoxStream<'static, Result<pb::WatchPendingEventsResponse, Status>>;

/// Starts a stream.
pub(crate) async fn start(
    deps: &Deps,
    watches: &Watches,
    presence: &Arc<Presence>,
    shutdown: &CancellationToken,
    call: &Call,
    request: pb::WatchPendingEventsRequest,
) -> Result<Messages, Fault> {
    let mut violations = Violations::new();
    violations.text("worker_id", &request.worker_id, WORKER_ID_MAX);
    violations.finish()?;
    let reach = reach(deps, call).await?;
    let workspace = named_workspace(deps, call.principal()?, &reach, &request.workspace_id).await?;
    let workspace = workspace
        .ok_or_else(|| Fault::invalid_field("workspace_id", "is required: the caller has no workspace"))?;
    // Before the first read, so that nothing is missed between the two.
    let news = deps.db.notifier().subscribe(reach.customer);
    let started_at = (deps.db.now().await?, Instant::now());
    let at = open_cursor(deps, reach.customer, workspace, &request.cursor, started_at.0).await?;
    let shared = watches.of(reach.customer);
    let offered = watch::offered(&deps.db, reach.customer, workspace).await?;
    let stream = Stream {
        deps: deps.clone(),
        presence: Arc::clone(presence),
        shutdown: shutdown.clone(),
        customer: reach.customer,
        workspace,
        worker: request.worker_id,
        shared,
        news,
        heartbeat: watches.heartbeat,
        at,
        started_at,
        seen: offered.unwrap_or_default(),
        is_worker: reach.workspace.is_some(),
        _waiting: deps.db.telemetry().metrics().wakeups.wait(Wait::Watch),
        spoke_at: None,
        has_more: true,
        ended: false,
    };
    if stream.keeps_claims() {
        stream.presence.begin_watch(stream.workspace, &stream.worker);
    }
    Ok(stream::unfold(stream, Stream::next).boxed())
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.keeps_claims() {
            self.presence.end_watch(self.workspace, &self.worker);
        }
    }
}

impl Stream {
    /// Whether what its worker holds is renewed while it watches.
    fn keeps_claims(&self) -> bool {
        self.is_worker && !self.worker.is_empty()
    }

    /// The next message, and the stream behind it. An error is the last one.
    async fn next(mut self) -> Option<(Result<pb::WatchPendingEventsResponse, Status>, Self)> {
        if self.ended {
            return None;
        }
        let message = self.message().await.map_err(|fault| {
            self.ended = true;
            into_status(fault)
        });
        Some((message, self))
    }

    /// Waits for something to say: news, or that there are none.
    async fn message(&mut self) -> Result<pb::WatchPendingEventsResponse, Fault> {
        loop {
            if self.has_more
                && let Some(message) = self.read_on().await?
            {
                return Ok(message);
            }
            // The first message tells that the stream stands and where, even where nothing waits.
            let Some(spoke_at) = self.spoke_at else { return self.say(&[]) };
            let heartbeat_at = spoke_at + self.heartbeat;
            if Instant::now() >= heartbeat_at {
                return self.say(&[]);
            }
            let recheck_at = (!self.at.held_back.is_empty()).then(|| Instant::now() + HELD_BACK);
            tokio::select! {
                // A sender lives as long as somebody is subscribed.
                changed = self.news.changed() => if changed.is_err() { return Err(shutting_down()) },
                () = tokio::time::sleep_until(recheck_at.map_or(heartbeat_at, |at| at.min(heartbeat_at))) => {}
                () = self.shutdown.cancelled() => return Err(shutting_down()),
            }
            let (offered, events) = self.hear().await?;
            self.has_more = events.is_none() && (offered != self.seen || recheck_at.is_some());
            self.seen = offered;
            if let Some(events) = events.filter(|events| !events.is_empty()) {
                return self.say(&events);
            }
        }
    }

    /// How far the offers to the workspace have come, and what they are where that was read for all watches.
    async fn hear(&mut self) -> Result<(i64, Option<Vec<EventRow>>), Fault> {
        let now = *self.news.borrow_and_update();
        let watches = Arc::strong_count(&self.shared);
        let mut shared = self.shared.lock().await;
        let offered = shared.get(&self.deps.db, self.customer, self.workspace, now, watches).await?;
        let events = shared.together.take(self.workspace, self.seen, &mut self.at, MESSAGE_MAX);
        Ok((offered, events))
    }

    /// Reads on, and says what it finds.
    async fn read_on(&mut self) -> Result<Option<pb::WatchPendingEventsResponse>, Fault> {
        let rows =
            watch::read_on(&self.deps.db, self.customer, self.workspace, &mut self.at, MESSAGE_MAX).await?;
        self.has_more = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= MESSAGE_MAX;
        if rows.is_empty() {
            return Ok(None);
        }
        self.say(&rows).map(Some)
    }

    fn say(&mut self, rows: &[EventRow]) -> Result<pb::WatchPendingEventsResponse, Fault> {
        let events = rows.iter().map(EventRow::to_proto).collect::<Result<_, _>>()?;
        self.spoke_at = Some(Instant::now());
        // A worker that reads is there, and keeps what it holds.
        if self.is_worker {
            self.presence.note(self.workspace);
            self.presence.note_watcher(self.workspace, &self.worker);
        }
        // The database's time, without asking it for every message.
        let now = self.started_at.0.plus(self.started_at.1.elapsed());
        let cursor = seal_cursor(&self.deps, self.workspace, &self.at, now)?;
        Ok(pb::WatchPendingEventsResponse { events, cursor })
    }
}

/// Not all at once: the delay is spread, so that the streams of a replica that goes do not come back in one moment.
fn shutting_down() -> Fault {
    let delay = Duration::from_millis(fastrand::u64(500..2_500));
    Fault::unavailable("this server is stopping; go on with the last cursor at another one", delay)
}

fn scope(workspace: &str) -> PageScope<'_> {
    // Not the caller's credential: a worker goes on after its token was renewed.
    PageScope { method: "WatchPendingEvents", parent: workspace, filter: "", order_by: "", caller: "" }
}

fn seal_cursor(
    deps: &Deps,
    workspace: Id<Workspace>,
    at: &Position,
    now: Timestamp,
) -> Result<String, Fault> {
    let mut values = vec![
        CursorValue::Integer(now.as_micros()),
        CursorValue::Integer(at.offered),
        CursorValue::Integer(at.position),
        CursorValue::Uuid(at.event.as_u128()),
    ];
    values.extend(at.held_back.iter().map(|id| CursorValue::Uuid(id.uuid().as_u128())));
    deps.page_key.seal(scope(&workspace.to_string()), &values)
}

/// The position that a cursor stands for; the beginning for none.
async fn open_cursor(
    deps: &Deps,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    cursor: &str,
    now: Timestamp,
) -> Result<Position, Fault> {
    let not_a_cursor = || Fault::invalid_field("cursor", "is not a cursor of this workspace");
    let Ok(values) = deps.page_key.open(scope(&workspace.to_string()), cursor) else {
        return Err(not_a_cursor());
    };
    let Some(values) = values else { return Ok(Position::default()) };
    let [
        CursorValue::Integer(at),
        CursorValue::Integer(offered),
        CursorValue::Integer(position),
        CursorValue::Uuid(event),
        held_back @ ..,
    ] = values.as_slice()
    else {
        return Err(not_a_cursor());
    };
    let given_at = Timestamp::from_micros(*at);
    let is_old = now.minus(CURSOR_KEPT) > given_at;
    // A database that was restored has not come as far as its copy had.
    let is_ahead = watch::offered(&deps.db, customer, workspace).await?.is_none_or(|now| now < *offered);
    if is_old || is_ahead {
        return Err(Fault::new(
            FaultKind::OutOfRange,
            "CURSOR_EXPIRED",
            "the cursor is too old; list what is pending, and watch without one",
        ));
    }
    let held_back = held_back
        .iter()
        .filter_map(|value| match value {
            CursorValue::Uuid(id) => Some(Id::from_uuid(Uuid::from_u128(*id))),
            _ => None,
        })
        .collect();
    Ok(Position { offered: *offered, position: *position, event: Uuid::from_u128(*event), held_back })
}

#[cfg(test)]
mod tests {
    use agentrouter_storage::query;
    use agentrouter_testkit::{TestDb, on_both_engines};
    use futures::FutureExt as _;

    use super::*;

    on_both_engines!(a_stream_that_ends_while_it_asks_takes_no_news_with_it);

    // Behaviour 38: streams that share what is read do not depend on each other.
    async fn a_stream_that_ends_while_it_asks_takes_no_news_with_it(test: TestDb) {
        const OFFER: &str = "UPDATE workspace_sync SET offered = offered + 1 WHERE workspace_id = $1";
        let customer = test.customer("acme").await;
        let workspace = test.workspace(customer, "ws-0").await;
        let mut offers = Offers::default();
        let before = offers.get(&test.db, customer, workspace, 1, 2).await.unwrap();
        let mut tx = test.db.begin().await.unwrap();
        query(OFFER).bind(workspace).execute(&mut tx).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        assert!(offers.get(&test.db, customer, workspace, 2, 2).now_or_never().is_none());
        assert_eq!(offers.get(&test.db, customer, workspace, 2, 2).await.unwrap(), before + 1);
    }
}
