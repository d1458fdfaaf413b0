//! Pauses between tries: exponential, with jitter, never less than the server asks for.

use std::time::Duration;

use tonic::Status;
use tonic_types::StatusExt;

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
/// The longest pause that a server can ask for.
const ASKED_MAX: Duration = Duration::from_mins(5);

/// The pauses after failures in a row.
#[derive(Debug)]
pub(crate) struct Pauses {
    failures: u32,
    rng: fastrand::Rng,
}

impl Pauses {
    pub(crate) fn new(rng: fastrand::Rng) -> Self {
        Self { failures: 0, rng }
    }

    /// The pause after one more failure.
    pub(crate) fn after(&mut self, status: &Status) -> Duration {
        let asked = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or_default();
        self.failures = self.failures.saturating_add(1);
        let ceiling = SHORTEST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        asked.min(ASKED_MAX) + SHORTEST + ceiling.saturating_sub(SHORTEST).mul_f64(self.rng.f64())
    }

    /// Something succeeded.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn grow_within_bounds_and_heed_the_server() {
        let mut pauses = Pauses::new(fastrand::Rng::with_seed(1));
        for _ in 0..40 {
            let pause = pauses.after(&Status::unavailable("away"));
            assert!(pause >= SHORTEST && pause <= LONGEST, "{pause:?}");
        }
        pauses.reset();
        assert!(pauses.after(&Status::unavailable("away")) <= SHORTEST * 2);
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(Duration::from_secs(20)));
        let busy = Status::with_error_details(tonic::Code::Unavailable, "busy", details);
        assert!(pauses.after(&busy) >= Duration::from_secs(20));
    }
}
