//! How a worker comes back to a server that sent it away: when the server asks for it, or after a growing pause.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::worker::spread;

/// The pauses of a worker whose server does not say when to come back.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// The patience of one worker.
#[derive(Debug)]
pub(crate) struct Retry {
    worker: usize,
    /// In a row.
    failures: u32,
}

impl Retry {
    pub(crate) fn new(worker: usize) -> Self {
        Self { worker, failures: 0 }
    }

    /// Notes that the server is well again.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Waits: exponentially longer, with full jitter, on top of what the server asks for.
    pub(crate) async fn pause(&mut self, status: &Status) {
        self.failures = self.failures.saturating_add(1);
        let ceiling = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        let jitter = spread(self.worker + usize::try_from(self.failures).unwrap_or_default() * 7_919);
        let pause = BACKOFF_MIN + ceiling.saturating_sub(BACKOFF_MIN).mul_f64(jitter);
        tokio::time::sleep(asked(status).unwrap_or_default() + pause).await;
    }
}

/// When the server wants to be asked again, where it says so.
pub(crate) fn asked(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

/// Whether a call is worth another try: the server or its database is away for a moment.
pub(crate) fn is_passing(status: &Status) -> bool {
    // A connection that broke under a call shows as UNKNOWN or CANCELLED in this client.
    matches!(
        status.code(),
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::Unknown
            | Code::Cancelled
            | Code::DeadlineExceeded
    )
}
