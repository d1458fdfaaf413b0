//! Sending what is queued: a bounded number of requests at a time, each ended by what the receiver answers or by time.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use agentrouter_envelope::Keyring;
use agentrouter_kernel::Fault;
use agentrouter_rpc::Deps;
use agentrouter_storage::{Db, StorageError};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, StatusCode, redirect};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::queue::{self, Claimed, Ending};
use crate::target::{Guarded, Refused, TargetPolicy};
use crate::{secret, store};

/// How many requests a replica has under way.
const PLACES: usize = 64;
/// How often a replica asks what is due.
const POLL: Duration = Duration::from_secs(1);
/// How long a receiver may take to answer, connecting included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a message is sent. The last time is about a day after the first one.
const ATTEMPTS_MAX: i64 = 11;
const DELAY_FIRST: Duration = Duration::from_secs(5);
const DELAY_MAX: Duration = Duration::from_hours(12);

/// Sends messages.
#[derive(Clone)]
pub struct Sender {
    db: Db,
    keyring: Arc<Keyring>,
    policy: TargetPolicy,
    client: Client,
    timeout: Duration,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Sender {
    /// A sender of what this database has queued.
    ///
    /// # Errors
    /// Where TLS cannot be set up, such as without any trusted certificate on the machine.
    pub fn new(deps: &Deps, policy: TargetPolicy) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .user_agent(concat!("agentrouter/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            // A proxy of the environment would resolve names where nobody checks them.
            .no_proxy()
            .dns_resolver(Guarded(policy))
            .https_only(policy == TargetPolicy::Public)
            .build()?;
        let (db, keyring) = (deps.db.clone(), Arc::clone(&deps.keyring));
        Ok(Self { db, keyring, policy, client, timeout: TIMEOUT })
    }

    /// The same sender with less patience, for tests.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sends until shutdown. Requests under way end by themselves, because each has a time-out.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut under_way = JoinSet::new();
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => {}
                // A place is free, and there may be more.
                Some(_) = under_way.join_next() => {}
            }
            if let Err(error) = self.start_due(&mut under_way).await {
                tracing::warn!(job = "webhooks", error = %Fault::from(error), "a background job failed");
            }
        }
        while under_way.join_next().await.is_some() {}
    }

    /// Sends everything that is due, and waits until each request ended. Returns how many there were.
    ///
    /// # Errors
    /// Those of the queue. What was claimed meanwhile is sent again after its lease.
    pub async fn send_due(&self) -> Result<usize, StorageError> {
        let (mut under_way, mut sent) = (JoinSet::new(), 0);
        loop {
            self.start_due(&mut under_way).await?;
            if under_way.join_next().await.is_none() {
                return Ok(sent);
            }
            sent += 1;
        }
    }

    async fn start_due(&self, under_way: &mut JoinSet<()>) -> Result<(), StorageError> {
        while under_way.len() < PLACES {
            let places = i64::try_from(PLACES - under_way.len()).unwrap_or_default();
            let claimed = queue::claim(&self.db, places).await?;
            if claimed.is_empty() {
                break;
            }
            for claimed in claimed {
                let sender = self.clone();
                under_way.spawn(async move {
                    if let Err(fault) = sender.attempt(&claimed).await {
                        // Its lease ends, and somebody sends it again.
                        tracing::warn!(delivery = %claimed.id, error = %fault, "an attempt was not recorded");
                    }
                });
            }
        }
        Ok(())
    }

    async fn attempt(&self, claimed: &Claimed) -> Result<(), Fault> {
        let Some(target) = store::target(&self.db, claimed.customer_id, claimed.webhook_id).await? else {
            return Ok(());
        };
        let (ending, status, error) = match self.post(claimed, &target).await {
            Ok((status, _)) if status.is_success() => (Ending::Delivered, status.as_u16(), String::new()),
            Ok((StatusCode::GONE, _)) => {
                (Ending::Gone, 410, "the receiver answered 410 and gets no more messages".to_owned())
            }
            Ok((status, retry_after)) => {
                let error = format!("the receiver answered {}", status.as_u16());
                (after_failure(claimed.attempts, retry_after), status.as_u16(), error)
            }
            Err(failure) => (after_failure(claimed.attempts, None), 0, failure.to_string()),
        };
        Ok(queue::finish(&self.db, claimed, ending, status, &error).await?)
    }

    /// Posts a message; the status of the answer, and how long the receiver wants to be left alone. The rest of the
    /// answer is not read.
    async fn post(
        &self,
        claimed: &Claimed,
        target: &store::Target,
    ) -> Result<(StatusCode, Option<Duration>), Failure> {
        let url = self.policy.check(&target.url)?;
        let mut secrets = Vec::with_capacity(2);
        for sealed in [Some(&target.secret), target.previous_secret.as_ref()].into_iter().flatten() {
            let secret = secret::open(&self.keyring, claimed.customer_id, claimed.webhook_id, sealed);
            secrets.push(secret.map_err(|fault| {
                tracing::error!(webhook = %claimed.webhook_id, error = %fault, "a signing secret does not open");
                Failure::Secret
            })?);
        }
        let (id, sent_at) = (claimed.message_id, claimed.last_attempt_at);
        let answer = self
            .client
            .post(url)
            .timeout(self.timeout)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id.to_string())
            .header("webhook-timestamp", sent_at.as_secs())
            .header("webhook-signature", secret::signatures(&secrets, id, sent_at, &claimed.payload))
            .body(claimed.payload.clone())
            .send()
            .await
            .map_err(|error| Failure::of(&error))?;
        Ok((answer.status(), retry_after(answer.status(), answer.headers())))
    }
}

/// Why there was no answer. The texts are shown to the webhook's people, so they tell nothing about the network that
/// the server is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Failure {
    #[error("the URL {0}")]
    Refused(#[from] Refused),
    #[error("the signing secret does not open; rotate it")]
    Secret,
    #[error("there was no answer in time")]
    TimedOut,
    #[error("no connection could be made")]
    NotConnected,
    #[error("the connection broke before there was an answer")]
    Broken,
}

impl Failure {
    fn of(error: &reqwest::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = cause {
            let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            let refused = inner.and_then(|inner| inner.downcast_ref::<Refused>());
            if let Some(refused) = refused.or_else(|| error.downcast_ref()) {
                return Self::Refused(*refused);
            }
            cause = error.source();
        }
        if error.is_timeout() {
            Self::TimedOut
        } else if error.is_connect() {
            Self::NotConnected
        } else {
            Self::Broken
        }
    }
}

/// What follows a failed attempt.
fn after_failure(attempts: i64, retry_after: Option<Duration>) -> Ending {
    if attempts >= ATTEMPTS_MAX {
        return Ending::GiveUp;
    }
    let delay = delay(attempts, fastrand::f64());
    Ending::Retry(retry_after.map_or(delay, |asked| delay.max(asked.min(DELAY_MAX))))
}

/// How long to wait after the `attempts`th attempt: 5 s, three times as long each time, at most 12 h, and up to a tenth
/// more or less, so that what failed together is not sent again together. `jitter` is from 0 to 1.
fn delay(attempts: i64, jitter: f64) -> Duration {
    let exponent = u32::try_from(attempts.saturating_sub(1)).unwrap_or_default().min(20);
    let delay = DELAY_FIRST.saturating_mul(3u32.saturating_pow(exponent)).min(DELAY_MAX);
    delay.mul_f64(0.9 + 0.2 * jitter.clamp(0.0, 1.0))
}

/// How long a receiver that has too much to do wants to be left alone.
fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let is_busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let seconds = headers.get(RETRY_AFTER).filter(|_| is_busy)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_go_on_for_about_a_day() {
        let delays: Vec<u64> = (1..ATTEMPTS_MAX).map(|attempt| delay(attempt, 0.5).as_secs()).collect();
        assert_eq!(delays, [5, 15, 45, 135, 405, 1215, 3645, 10_935, 32_805, 43_200]);
        assert_eq!(delays.iter().sum::<u64>() / 3600, 25);
        assert_eq!(
            (delay(1, 0.0), delay(1, 1.0)),
            (Duration::from_millis(4500), Duration::from_millis(5500))
        );
        assert_eq!(after_failure(ATTEMPTS_MAX, None), Ending::GiveUp);
    }

    #[test]
    fn a_busy_receiver_is_left_alone_for_as_long_as_it_asks() {
        let headers = |value: &str| HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        let asked = retry_after(StatusCode::TOO_MANY_REQUESTS, &headers(" 600 "));
        assert_eq!(asked, Some(Duration::from_mins(10)));
        assert_eq!(after_failure(1, asked), Ending::Retry(Duration::from_mins(10)));
        assert_eq!(after_failure(1, Some(Duration::MAX)), Ending::Retry(DELAY_MAX));
        assert_eq!(retry_after(StatusCode::NOT_FOUND, &headers("600")), None);
        assert_eq!(retry_after(StatusCode::SERVICE_UNAVAILABLE, &headers("soon")), None);
    }
}
