//! How many full syncs a process lets in: after an outage every worker of a fleet wants one at once.
//!
//! A token bucket with a burst of one second. Who is refused is told when to come back: as far off as the line of those
//! refused before is long, spread by half of that either way, so that they come back at about the rate that is let in.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use agentrouter_kernel::{Fault, FaultKind};
use agentrouter_rpc::bounds;

/// How many full syncs a second a process lets in where nothing else is configured.
pub const FULL_SYNCS_PER_SECOND: u32 = 250;

const SOONEST: Duration = Duration::from_millis(200);
const LATEST: Duration = Duration::from_mins(1);

/// Lets calls in at a bounded rate.
#[derive(Debug)]
pub(crate) struct Admission {
    per_second: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    at: Instant,
    /// Calls that may come in at once.
    tokens: f64,
    /// Calls that were told to come back and have not had their time yet.
    line: f64,
}

impl Admission {
    /// At most `per_second` calls a second, and as many at once after a quiet second.
    pub(crate) fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        let state = State { at: Instant::now(), tokens: per_second, line: 0.0 };
        Self { per_second, state: Mutex::new(state) }
    }

    /// Lets a call in.
    ///
    /// # Errors
    /// UNAVAILABLE `TOO_MANY_FULL_SYNCS` with the time after which to try again.
    pub(crate) fn admit(&self) -> Result<(), Fault> {
        self.decide(Instant::now(), fastrand::f64()).map_err(|delay| {
            Fault::new(
                FaultKind::Unavailable,
                "TOO_MANY_FULL_SYNCS",
                "too many workspaces sync at once; try again after the time that `RetryInfo` gives",
            )
            .with_retry_after(delay)
        })
    }

    /// `spread` is from 0 to 1.
    fn decide(&self, now: Instant, spread: f64) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = now.saturating_duration_since(state.at).as_secs_f64() * self.per_second;
        state.at = now.max(state.at);
        state.tokens = (state.tokens + gained).min(self.per_second);
        state.line = (state.line - gained).max(0.0);
        if state.tokens >= 1.0 {
            state.tokens -= 1.0;
            return Ok(());
        }
        state.line += 1.0;
        let turn = Duration::from_secs_f64(state.line / self.per_second).clamp(SOONEST, LATEST);
        Err(bounds::spread(turn, spread))
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    #[test]
    fn the_rate_is_bounded_and_the_burst_is_a_second() {
        let admission = Admission::new(10);
        let start = Instant::now();
        let admitted = |at: u64, calls: u32| {
            let now = start + Duration::from_millis(at);
            (0..calls).filter(|_| admission.decide(now, 0.5).is_ok()).count()
        };
        assert_eq!(admitted(0, 50), 10);
        assert_eq!(admitted(100, 50), 1);
        assert_eq!(admitted(600, 50), 5);
        assert_eq!(admitted(60_000, 50), 10, "a quiet minute is worth no more than a second");
    }

    // Behaviour 35: those refused are sent away for as long as the line is, and not all for the same time.
    #[test]
    fn who_is_refused_comes_back_when_the_line_is_over() {
        let admission = Admission::new(100);
        let start = Instant::now();
        let delays: Vec<Duration> = (0..10_100).filter_map(|_| admission.decide(start, 0.5).err()).collect();
        assert_eq!(delays.len(), 10_000);
        assert_eq!((delays[0], delays[4_999], delays[9_999]), (SOONEST, Duration::from_secs(50), LATEST));
        for (spread, expected) in [(0.0, 30), (1.0, 90)] {
            assert_eq!(admission.decide(start, spread), Err(Duration::from_secs(expected)));
        }
        // The line gets shorter by itself.
        let later = start + Duration::from_mins(2);
        assert_eq!(admission.decide(later, 0.5), Ok(()));
        let all = (0..200).filter_map(|_| admission.decide(later, 0.5).err()).max();
        assert!(all.is_some_and(|longest| longest <= Duration::from_millis(1_100)), "{all:?}");
    }

    // Behaviour 35: ten thousand that come back as they are told are all let in within a minute.
    #[test]
    fn a_herd_that_comes_back_as_told_is_drained() {
        let admission = Admission::new(FULL_SYNCS_PER_SECOND);
        let mut random = fastrand::Rng::with_seed(7);
        let start = Instant::now();
        let mut due: BinaryHeap<_> = (0..10_000).map(|_| Reverse(Duration::ZERO)).collect();
        let (mut calls, mut last) = (0, Duration::ZERO);
        while let Some(Reverse(now)) = due.pop() {
            calls += 1;
            match admission.decide(start + now, random.f64()) {
                Ok(()) => last = now,
                Err(delay) => due.push(Reverse(now + delay)),
            }
        }
        assert!(last <= Duration::from_mins(1), "{last:?}");
        assert!(calls <= 30_000, "{calls} calls for 10,000 syncs");
    }
}
