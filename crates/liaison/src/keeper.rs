//! Keeps claims alive while their events are worked on, by one call for all of them, and looks now and then by itself at
//! what waits.

use std::sync::atomic::Ordering;
use std::time::Duration;

use agentrouter_api::configurator::DoctorRuntime;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::run::Run;

/// How long an observation of the doctor may take.
const OBSERVING: Duration = Duration::from_secs(5);
/// How long after the start the first look is at most, and how long without a server until the next try.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// The shortest time between two looks that something asked for.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How many events a look may bring.
const LOOK_LIMIT: i32 = 100;

impl Run {
    /// Renews and looks until everything is delivered.
    pub(crate) async fn keep(&self, done: &CancellationToken) {
        let interval = self.look_interval();
        // The doctor is told of soon after the start.
        let first = if self.worker.doctor.is_some() { interval.min(FIRST_LOOK) } else { interval };
        let mut look_at = Instant::now() + self.worker.jitter.within(first);
        loop {
            let renew_at = self.shared.leases.renew_at();
            tokio::select! {
                biased;
                () = done.cancelled() => return,
                () = self.shared.leases.made.notified() => continue,
                () = self.look.notified() => {
                    look_at = look_at.min(Instant::now() + self.worker.jitter.spread(LOOK_PAUSE));
                    continue;
                }
                () = sleep_until(renew_at.map_or(look_at, |at| at.min(look_at))) => {}
            }
            let is_due = Instant::now() >= look_at;
            let looks = is_due && self.shared.is_connected();
            if is_due {
                let pause = if looks { interval } else { interval.min(FIRST_LOOK) };
                look_at = Instant::now() + self.worker.jitter.spread(pause);
            }
            tokio::select! {
                () = done.cancelled() => return,
                // Boxed, like all that is in use for a moment only: most workers of a fleet are idle.
                () = Box::pin(self.look(looks && !self.stop.is_cancelled())) => {}
            }
        }
    }

    fn look_interval(&self) -> Duration {
        let config = &self.worker.config;
        if self.worker.doctor.is_some() {
            config.doctor_interval.min(config.safety_poll)
        } else {
            config.safety_poll
        }
    }

    /// One call that does what is due.
    async fn look(&self, looks: bool) {
        let doctor = if looks { self.observe_doctor().await } else { None };
        let held = self.shared.leases.list();
        // Long polls see for themselves what waits.
        let watching = self.shared.watching.load(Ordering::Relaxed);
        if held.is_empty() && doctor.is_none() && !(looks && watching) {
            return;
        }
        // What else is pending is not asked for in between, but 0 would mean the default.
        let limit = if looks && watching { LOOK_LIMIT } else { 1 };
        let asked_at = Instant::now();
        match self.client().look(limit, held.clone(), doctor).await {
            Ok(answer) => {
                self.shared.leases.renewed(&held, asked_at, |event| {
                    answer.renewed.iter().any(|claim| claim.event_id == event.event_id)
                });
                if looks && watching && self.check_workspace(&answer.events).is_ok() {
                    self.inbox.offer(answer.events);
                }
            }
            Err(failure) => {
                tracing::debug!(code = failure.code_name(), held = held.len(), "cannot renew claims");
                self.shared.leases.not_renewed();
            }
        }
    }

    async fn observe_doctor(&self) -> Option<DoctorRuntime> {
        let doctor = self.worker.doctor.as_ref()?;
        timeout(OBSERVING, doctor.observe()).await.ok().flatten()
    }
}
