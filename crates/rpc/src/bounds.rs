//! How many calls are under way at once, so that a server with too much to do still does what it took on.

use std::sync::Arc;
use std::time::Duration;

use agentrouter_kernel::{Fault, FaultKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::policy::Policy;

/// When to try again, in the middle: by then what was under way is done.
const LATER: Duration = Duration::from_secs(1);

/// How many calls there may be.
#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    /// Calls under way at once, without those that wait for news.
    pub calls: usize,
    /// More calls that may wait for their turn.
    pub line: usize,
    /// How long they wait.
    pub patience: Duration,
    /// Long polls and streams under way at once: they do next to nothing, and stay long.
    pub waits: usize,
}

impl Default for CallLimits {
    /// Enough for a fleet of ten thousand whose workers all come back in the same second.
    fn default() -> Self {
        Self { calls: 2048, line: 20_000, patience: Duration::from_secs(3), waits: 100_000 }
    }
}

/// What a call weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// It is done as soon as it can be.
    Call,
    /// It waits for news.
    Wait,
    /// It tells whether the server is well, and has to do so when there is too much to do.
    Health,
}

impl Load {
    pub(crate) fn of(path: &str, policy: Option<&Policy>) -> Self {
        match policy {
            Some(policy) if policy.is_streaming || policy.is_waiting => Self::Wait,
            None if path.starts_with("/grpc.health.") => Self::Health,
            None if path.starts_with("/grpc.reflection.") => Self::Wait,
            Some(_) | None => Self::Call,
        }
    }
}

/// Counts calls, and refuses those that are too many.
#[derive(Debug)]
pub(crate) struct Bounds {
    calls: Arc<Semaphore>,
    line: Semaphore,
    patience: Duration,
    waits: Arc<Semaphore>,
}

impl Bounds {
    pub(crate) fn new(limits: CallLimits) -> Self {
        let semaphore = |permits: usize| Semaphore::new(permits.min(Semaphore::MAX_PERMITS));
        Self {
            calls: Arc::new(semaphore(limits.calls.max(1))),
            line: semaphore(limits.line),
            patience: limits.patience,
            waits: Arc::new(semaphore(limits.waits.max(1))),
        }
    }

    /// Lets a call in; it is under way for as long as the permit lives.
    ///
    /// # Errors
    /// UNAVAILABLE `SERVER_BUSY` with the time after which to try again.
    pub(crate) async fn enter(&self, load: Load) -> Result<Option<OwnedSemaphorePermit>, Fault> {
        let semaphore = match load {
            Load::Health => return Ok(None),
            Load::Wait => &self.waits,
            Load::Call => &self.calls,
        };
        if let Ok(permit) = Arc::clone(semaphore).try_acquire_owned() {
            return Ok(Some(permit));
        }
        // Who waits for news would take a place in line for as long.
        if load == Load::Wait {
            return Err(busy());
        }
        let Ok(_place) = self.line.try_acquire() else { return Err(busy()) };
        match timeout(self.patience, Arc::clone(semaphore).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }
}

fn busy() -> Fault {
    Fault::new(
        FaultKind::Unavailable,
        "SERVER_BUSY",
        "too many calls are under way; try again after the time that `RetryInfo` gives",
    )
    .with_retry_after(spread(LATER, fastrand::f64()))
}

/// A delay for one of many who are refused at the same time: from half of it to half more, as `at` goes from 0 to 1,
/// so that they do not all come back at once.
pub fn spread(delay: Duration, at: f64) -> Duration {
    delay.mul_f64(0.5 + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(calls: usize, line: usize, waits: usize) -> Bounds {
        Bounds::new(CallLimits { calls, line, patience: Duration::from_secs(1), waits })
    }

    // A9 #102: more calls than there may be wait a moment, and are told when to come back.
    #[tokio::test(start_paused = true)]
    async fn calls_beyond_the_bound_wait_in_a_short_line() {
        let bounds = bounds(1, 1, 1);
        let first = bounds.enter(Load::Call).await.expect("there is room").expect("it counts");
        let (waiting, refused) = tokio::join!(bounds.enter(Load::Call), bounds.enter(Load::Call));
        for fault in [waiting, refused].map(|entered| entered.map(drop).expect_err("there is no room")) {
            assert_eq!((fault.kind(), fault.reason()), (FaultKind::Unavailable, "SERVER_BUSY"));
            let delay = fault.retry_after().expect("when to come back");
            assert!((LATER / 2..=LATER * 3 / 2).contains(&delay), "{delay:?}");
        }
        let (waiting, ()) = tokio::join!(bounds.enter(Load::Call), async { drop(first) });
        assert!(waiting.is_ok(), "its turn came");
    }

    // A9 #102: who waits for news takes nothing from those who do not.
    #[tokio::test(start_paused = true)]
    async fn waits_and_health_are_not_counted_as_calls() {
        let bounds = bounds(1, 0, 2);
        let _waits = [bounds.enter(Load::Wait).await, bounds.enter(Load::Wait).await];
        assert_eq!(
            bounds.enter(Load::Wait).await.map(drop).map_err(|fault| fault.reason()),
            Err("SERVER_BUSY")
        );
        let _call = bounds.enter(Load::Call).await.expect("it has room of its own");
        assert!(bounds.enter(Load::Health).await.is_ok_and(|permit| permit.is_none()));
    }
}
