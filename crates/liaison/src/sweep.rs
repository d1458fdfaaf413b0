//! Looking for drift: at the start everything, and from time to time what the data plane runs against what it should.

use std::sync::atomic::Ordering;
use std::time::Duration;

use agentrouter_api::configurator::ObservedSlot;
use tonic::Code;

use crate::failure::Failure;
use crate::report::Report;
use crate::run::Run;

/// How often a target is asked anew because an apply ended while it told what it runs.
const TRIES: u32 = 3;
/// The most slots of a report that the server reads.
const SLOTS_MAX: usize = 20_000;
/// How long the workers of a fleet that start together take to ask for their first sync.
const START_SPREAD: Duration = Duration::from_secs(1);

/// What the data plane runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    pub(crate) slots: Vec<ObservedSlot>,
    /// Whether a slot that is not there does not run.
    pub(crate) is_complete: bool,
}

impl Run {
    /// Syncs at the start and sweeps from then on, beside the deliveries.
    pub(crate) async fn sweeps(&self) {
        let config = &self.worker.config;
        if !self.until_reached().await {
            return;
        }
        if config.sync_at_start {
            if !self.rest(self.worker.jitter.within(START_SPREAD.min(config.backoff_max))).await {
                return;
            }
            // The full sync is about users only. What a data plane lost that can tell so may be more.
            if Box::pin(self.sweep(true)).await {
                Box::pin(self.sweep(false)).await;
            }
        }
        let mut sweeps: u32 = 0;
        while !config.sweep_interval.is_zero()
            && self.rest(self.worker.jitter.spread(config.sweep_interval)).await
        {
            sweeps = sweeps.wrapping_add(1);
            let full_sync = config.full_sync_every != 0 && sweeps.is_multiple_of(config.full_sync_every);
            Box::pin(self.sweep(full_sync)).await;
        }
    }

    /// One sweep, until it got through. Returns whether the data plane told all that it runs.
    async fn sweep(&self, full_sync: bool) -> bool {
        let mut failures = self.backoff();
        let mut is_complete = false;
        while !self.stop.is_cancelled() {
            let swept = tokio::select! {
                () = self.stop.cancelled() => return is_complete,
                swept = self.ask_for_sweep(full_sync, &mut is_complete) => swept,
            };
            let failure = match swept {
                Ok(replayed) => {
                    self.shared.metrics.swept(full_sync, replayed);
                    if replayed > 0 {
                        self.report(&Report::Drifted { full_sync, replayed });
                    }
                    return is_complete;
                }
                Err(failure) => failure,
            };
            let code = failure.code_name();
            if !failure.is_transient() {
                // Whatever is wrong with the token or the server, the intake tells. The next sweep tries again.
                if failure.code != Code::Unimplemented {
                    tracing::warn!(code, full_sync, "the sweep was refused: {}", failure.message);
                }
                return is_complete;
            }
            let pause = failures.next(failure.retry_after);
            tracing::debug!(code, full_sync, ?pause, "the sweep has to wait: {}", failure.message);
            if !self.rest(pause).await || !self.until_reached().await {
                return is_complete;
            }
        }
        is_complete
    }

    async fn ask_for_sweep(&self, full_sync: bool, is_complete: &mut bool) -> Result<i32, Failure> {
        let observed = self.observed().await;
        *is_complete = observed.is_complete;
        if full_sync {
            self.client().full_sync(observed).await
        } else {
            self.client().reconcile(observed).await
        }
    }

    /// What the data plane runs, as of no apply that has ended since.
    async fn observed(&self) -> Observed {
        let mut observed = Observed::default();
        for _ in 0..TRIES {
            let applies = self.applies.load(Ordering::Relaxed);
            observed = match self.worker.target.observed().await {
                Ok(Some(slots)) => {
                    self.worker.store.forget_slots();
                    Observed { slots, is_complete: true }
                }
                // What it was given is known, but not whether it still has it, nor what else.
                Ok(None) => return capped(Observed { slots: self.worker.store.slots(), is_complete: false }),
                Err(rejected) => {
                    tracing::warn!("the data plane cannot tell what it runs: {rejected}");
                    return Observed::default();
                }
            };
            if self.applies.load(Ordering::Relaxed) == applies {
                break;
            }
        }
        capped(observed)
    }
}

/// As much of a report as the server reads.
fn capped(mut observed: Observed) -> Observed {
    if observed.slots.len() > SLOTS_MAX {
        observed.slots.truncate(SLOTS_MAX);
        observed.is_complete = false;
    }
    observed
}
