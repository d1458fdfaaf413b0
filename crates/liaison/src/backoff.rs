//! How long to wait after a failure: exponential, with full jitter, never less than a least pause.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The longest pause that a server can ask for.
const ASKED_MAX: Duration = Duration::from_mins(10);

/// The worker's only source of randomness.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(Arc<Mutex<fastrand::Rng>>);

impl Jitter {
    pub(crate) fn new(rng: fastrand::Rng) -> Self {
        Self(Arc::new(Mutex::new(rng)))
    }

    /// A length from `length` on, longer by up to a fifth of it: what recurs in many workers must not recur in all of
    /// them at once.
    pub(crate) fn spread(&self, length: Duration) -> Duration {
        length.mul_f64(1.0 + 0.2 * self.fraction())
    }

    /// A length up to `length`.
    pub(crate) fn within(&self, length: Duration) -> Duration {
        length.mul_f64(self.fraction())
    }

    /// A number from 0 to 1.
    fn fraction(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).f64()
    }
}

/// The pauses after failures in a row.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    jitter: Jitter,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration, jitter: Jitter) -> Self {
        Self { min, max, failures: 0, jitter }
    }

    /// The pause after one more failure, on top of what the server asked for: workers that were sent away together
    /// do not come back together.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let ceiling = self.min.saturating_mul(1 << self.failures.min(16)).min(self.max);
        let jittered = self.min + ceiling.saturating_sub(self.min).mul_f64(self.jitter.fraction());
        asked.unwrap_or_default().min(ASKED_MAX) + jittered
    }

    /// Something succeeded.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(15);

    fn backoff(seed: u64) -> Backoff {
        Backoff::new(MIN, MAX, Jitter::new(fastrand::Rng::with_seed(seed)))
    }

    #[test]
    fn grows_within_bounds_and_starts_anew() {
        for seed in 0..200 {
            let mut backoff = backoff(seed);
            for ceiling in [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 15_000, 15_000] {
                let pause = backoff.next(None);
                assert!(pause >= MIN && pause <= Duration::from_millis(ceiling), "{pause:?} of {ceiling} ms");
            }
            backoff.reset();
            assert!(backoff.next(None) <= Duration::from_millis(200));
        }
    }

    #[test]
    fn spreads_over_the_whole_range() {
        let eighth = |seed| {
            let mut backoff = backoff(seed);
            (0..8).map(|_| backoff.next(None)).last().unwrap_or_default()
        };
        let pauses: Vec<_> = (0..200).map(eighth).collect();
        assert!(pauses.iter().any(|pause| *pause < Duration::from_secs(2)));
        assert!(pauses.iter().any(|pause| *pause > Duration::from_secs(13)));
    }

    #[test]
    fn the_server_sets_the_least_pause_within_reason() {
        let asked = Duration::from_secs(7);
        let pause = backoff(1).next(Some(asked));
        assert!(pause > asked && pause <= asked + Duration::from_millis(200));
        assert!(backoff(1).next(Some(Duration::MAX)) < ASKED_MAX + MAX);
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut backoff = backoff(3);
        backoff.failures = u32::MAX - 1;
        assert!(backoff.next(None) <= MAX);
        assert!(backoff.next(None) <= MAX);
    }
}
