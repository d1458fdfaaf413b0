//! Configurations that arrive together are applied together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agentrouter_api::configurator::Configuration;
use agentrouter_liaison::{Applied, Rejected};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// What came of one configuration.
pub(crate) type Answer = Result<Applied, Rejected>;

/// Those that wait. Whoever comes to its turn first takes all the others along.
#[derive(Debug)]
pub(crate) struct Batch {
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
    quiet: Duration,
    patience: Duration,
}

struct Waiting {
    configuration: Configuration,
    answer: oneshot::Sender<Answer>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("id", &self.configuration.id).finish_non_exhaustive()
    }
}

impl Batch {
    pub(crate) fn new(quiet: Duration, patience: Duration) -> Self {
        Self { waiting: Mutex::default(), turn: tokio::sync::Mutex::default(), quiet, patience }
    }

    /// Has a configuration applied by `run`, with those that come while it waits.
    pub(crate) async fn apply<F>(
        &self,
        configuration: &Configuration,
        run: impl FnOnce(Vec<Configuration>) -> F,
    ) -> Answer
    where
        F: Future<Output = Vec<Answer>>,
    {
        let (answer, mut answered) = oneshot::channel();
        self.lock().push(Waiting { configuration: configuration.clone(), answer });
        let _turn = self.turn.lock().await;
        match answered.try_recv() {
            Ok(answer) => return answer,
            Err(oneshot::error::TryRecvError::Empty) => {}
            Err(oneshot::error::TryRecvError::Closed) => return Err(interrupted()),
        }
        self.until_quiet().await;
        let waiting = std::mem::take(&mut *self.lock());
        let (asked, callers): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|one| (one.configuration, one.answer)).unzip();
        for (caller, answer) in callers.into_iter().zip(run(asked).await) {
            // A caller that is gone does not want to know.
            let _ = caller.send(answer);
        }
        answered.try_recv().unwrap_or_else(|_| Err(interrupted()))
    }

    async fn until_quiet(&self) {
        let until = Instant::now() + self.patience;
        let mut seen = self.lock().len();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            sleep(self.quiet.min(left)).await;
            let now = self.lock().len();
            if now == seen {
                return;
            }
            seen = now;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn interrupted() -> Rejected {
    Rejected::transient("applying it was interrupted")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_arrives_together_is_one_run() {
        let batch = Batch::new(Duration::from_millis(200), Duration::from_secs(2));
        let runs = AtomicUsize::new(0);
        let apply = |version: i64, after: u64| {
            let (batch, runs) = (&batch, &runs);
            async move {
                sleep(Duration::from_millis(after)).await;
                let configuration = Configuration { version, ..Configuration::default() };
                let run = |asked: Vec<Configuration>| async move {
                    runs.fetch_add(1, Ordering::SeqCst);
                    let applied =
                        |one: Configuration| Ok(Applied { version: one.version, ..Applied::default() });
                    asked.into_iter().map(applied).collect()
                };
                batch.apply(&configuration, run).await.map(|applied| applied.version)
            }
        };
        let answers = futures::future::join_all((0..20).map(|n| apply(n, n.unsigned_abs() * 50))).await;
        assert_eq!(answers, (0..20).map(Ok).collect::<Vec<_>>());
        assert_eq!(runs.load(Ordering::SeqCst), 1, "a stream of changes shorter than the patience");

        let answers = futures::future::join_all((0..40).map(|n| apply(n, n.unsigned_abs() * 100))).await;
        assert_eq!(answers, (0..40).map(Ok).collect::<Vec<_>>());
        assert!((3..=4).contains(&runs.load(Ordering::SeqCst)), "{runs:?}");
    }
}
