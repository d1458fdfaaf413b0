//! Waiting for events: a long poll ends with the first event, the time-out, or the server's shutdown.

use std::time::Duration;

use agentrouter_kernel::id::{Customer, Id};
use agentrouter_storage::Db;
use agentrouter_telemetry::metrics::{Wait, Waiting};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How much shorter than asked for a poll may be, as a part of it.
const WAIT_SPREAD: f64 = 0.1;

/// A long poll under way. Make it before the first read, so that nothing is missed between the two.
#[derive(Debug)]
pub(crate) struct Waiter {
    news: watch::Receiver<u64>,
    deadline: Instant,
    shutdown: CancellationToken,
    _waiting: Option<Waiting>,
}

impl Waiter {
    pub(crate) fn new(db: &Db, customer: Id<Customer>, wait: Duration, shutdown: &CancellationToken) -> Self {
        let news = db.notifier().subscribe(customer);
        let waits = || db.telemetry().metrics().wakeups.wait(Wait::LongPoll);
        let waiting = (!wait.is_zero()).then(waits);
        // Polls that began together, as after a restart, do not all come back together.
        let wait = wait.mul_f64(1.0 - WAIT_SPREAD * fastrand::f64());
        Self { news, deadline: Instant::now() + wait, shutdown: shutdown.clone(), _waiting: waiting }
    }

    /// Waits for news since the last call. Returns false when the poll is to end without any.
    pub(crate) async fn news(&mut self) -> bool {
        tokio::select! {
            // The sender lives as long as somebody is subscribed.
            changed = self.news.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(self.deadline) => false,
            () = self.shutdown.cancelled() => false,
        }
    }
}
