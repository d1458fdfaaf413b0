//! One event: claim, fetch, apply, report.

use std::convert::Infallible;
use std::time::Duration;

use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{
    AcknowledgeEventResponse, CompleteEventRequest, ConfigType, Configuration, ConfigurationEvent,
};
use agentrouter_kernel::Timestamp;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::failure::Failure;
use crate::report::Report;
use crate::slot::Slot;
use crate::target::{Applied, Rejected};
use crate::worker::Run;

/// How long a stopping worker keeps trying to get a call through.
const GRACE: Duration = Duration::from_secs(5);

/// What the target did.
struct Done {
    applied: Applied,
    deleted: bool,
}

/// Why it did not.
enum Undone {
    /// The server shall know.
    Rejected(Rejected),
    /// The server does not let this worker do its job.
    Denied(Failure),
}

impl From<Rejected> for Undone {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl Run {
    /// Delivers an event as far as it can be. An error means that the server is in trouble or refuses to serve, so that
    /// going on with the next event makes no sense.
    pub(crate) async fn deliver(&self, event: &ConfigurationEvent) -> Result<Report, Failure> {
        let slot = Slot::from(event);
        let (event_id, lease) = (event.id.clone(), self.worker.config.lease);
        let claimed = self.patiently(Instant::now() + lease, || self.claim(&event.id)).await;
        let (mut held_until, claim) = match claimed {
            Ok((at, claim)) if claim.success => (at + lease, claim),
            Ok((_, claim)) => return Ok(Report::NotClaimed { event_id, slot, holder: claim.holder }),
            Err(failure) if failure.code == Code::NotFound => {
                return Ok(Report::NotClaimed { event_id, slot, holder: String::new() });
            }
            Err(failure) => return Err(failure),
        };
        let done = tokio::select! {
            done = self.fetch_and_apply(event, &slot) => done,
            never = self.renew(&event.id, &claim.claim_token, &mut held_until) => match never {},
        };
        let mut completion = CompleteEventRequest {
            event_id: event_id.clone(),
            claim_token: claim.claim_token,
            ..Default::default()
        };
        let report = match done {
            Ok(Done { applied, deleted }) => {
                completion.success = true;
                completion.applied_version = applied.version;
                completion.applied_checksum.clone_from(&applied.checksum);
                Report::Applied {
                    event_id,
                    slot,
                    version: applied.version,
                    deleted,
                    latency: self.latency(event),
                }
            }
            Err(Undone::Rejected(rejected)) => {
                rejected.message().clone_into(&mut completion.error_message);
                completion.permanent = rejected.is_permanent();
                Report::Failed {
                    event_id,
                    slot,
                    version: event.version,
                    attempt: claim.attempt,
                    message: completion.error_message.clone(),
                    permanent: completion.permanent,
                }
            }
            Err(Undone::Denied(failure)) => return Err(failure),
        };
        let stale = |message| Report::Stale { event_id: event.id.clone(), slot: Slot::from(event), message };
        match self.patiently(held_until, || self.client.complete(completion.clone())).await {
            Ok(true) => Ok(report),
            Ok(false) => Ok(stale("the server did not take the result".to_owned())),
            Err(failure) if failure.is_stale() => Ok(stale(failure.message)),
            Err(failure) => Err(failure),
        }
    }

    /// Claims an event. The lease is counted from before the call, so it is never thought longer than it is.
    async fn claim(&self, event_id: &str) -> Result<(Instant, AcknowledgeEventResponse), Failure> {
        let at = Instant::now();
        self.client.claim(event_id).await.map(|answer| (at, answer))
    }

    async fn fetch_and_apply(&self, event: &ConfigurationEvent, slot: &Slot) -> Result<Done, Undone> {
        check_kind(event, slot)?;
        // Half the lease at most, so that a server that cannot answer hears of it while the claim holds.
        let until = Instant::now() + self.worker.config.lease / 2;
        let fetched = match self.patiently(until, || self.client.fetch(slot)).await {
            Err(failure) if failure.is_denied() => return Err(Undone::Denied(failure)),
            fetched => fetched,
        };
        let configuration = fetched.map_err(|failure| {
            let (code, message) = (failure.code_name(), failure.message);
            Rejected::transient(format!("cannot fetch the configuration: {code}: {message}"))
        })?;
        let configuration = configuration
            .ok_or_else(|| Rejected::transient("the server has no configuration for this slot"))?;
        check_content(event, &configuration)?;
        let applied = self.worker.target.apply(&configuration).await?;
        Ok(Done { applied, deleted: configuration.deleted })
    }

    /// Keeps a claim alive for as long as it is polled, from a third of the lease on.
    async fn renew(&self, event_id: &str, claim_token: &str, held_until: &mut Instant) -> Infallible {
        let lease = self.worker.config.lease;
        let mut pause = lease / 3;
        loop {
            sleep(pause).await;
            let at = Instant::now();
            pause = match self.client.renew(event_id, claim_token).await {
                Ok(true) => {
                    *held_until = at + lease;
                    lease / 3
                }
                // The completion will be told so. Nothing is gained by stopping half-way through an apply.
                Ok(false) => {
                    tracing::debug!(event_id, "the claim is lost");
                    lease
                }
                Err(failure) => {
                    tracing::debug!(event_id, code = failure.code_name(), "cannot renew the claim");
                    lease / 10
                }
            };
        }
    }

    /// Repeats a call that fails for reasons that pass. The calls it is used for may be repeated: the same worker
    /// claiming again gets the same claim, and the same completion counts once.
    async fn patiently<T, F>(&self, until: Instant, mut call: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let tries = async {
            let mut backoff = self.backoff();
            loop {
                match call().await {
                    Err(failure) if failure.is_transient() && !failure.is_stale() => {
                        let pause = backoff.next(failure.retry_after);
                        if Instant::now() + pause >= until {
                            return Err(failure);
                        }
                        let (code, message) = (failure.code_name(), failure.message);
                        self.report(&Report::Unreachable { code, message, retry_in: pause });
                        sleep(pause).await;
                    }
                    decided => return decided,
                }
            }
        };
        let grace = async {
            self.stop.cancelled().await;
            sleep(GRACE).await;
        };
        tokio::select! {
            decided = tries => decided,
            () = grace => Err(Failure::local(Code::Cancelled, "the worker stops")),
        }
    }

    fn latency(&self, event: &ConfigurationEvent) -> Option<Duration> {
        let created = event.created_at.as_ref()?;
        let micros = created.seconds.checked_mul(1_000_000)?.checked_add(i64::from(created.nanos) / 1_000)?;
        Some(self.worker.clock.now().since(Timestamp::from_micros(micros)))
    }
}

/// Instructions have no content to fetch, and types of a newer server have none that is understood here.
fn check_kind(event: &ConfigurationEvent, slot: &Slot) -> Result<(), Rejected> {
    match slot.kind() {
        Some(ConfigType::DataplaneUpgrade) => Err(Rejected::permanent(
            "this worker does not upgrade data planes: upgrade this one by the means it was installed with",
        )),
        Some(_) if event.version > 0 => Ok(()),
        Some(_) => Err(Rejected::permanent("the event names no version")),
        None => Err(Rejected::permanent(format!(
            "this worker (version {}) does not know configuration type {}",
            env!("CARGO_PKG_VERSION"),
            slot.config_type
        ))),
    }
}

/// What arrived has to be at least what was announced, and whole.
fn check_content(event: &ConfigurationEvent, configuration: &Configuration) -> Result<(), Rejected> {
    let (version, wanted) = (configuration.version, event.version);
    if version < wanted {
        return Err(Rejected::transient(format!("the server answered with version {version}, not {wanted}")));
    }
    if configuration.payload.is_none() && !configuration.deleted {
        return Err(Rejected::transient("the server answered without content"));
    }
    if let Some(Payload::Providers(payload)) = &configuration.payload
        && let Some(provider) = payload.providers.iter().find(|provider| {
            provider.credential.as_ref().is_some_and(|credential| credential.value.is_empty())
        })
    {
        return Err(Rejected::transient(format!(
            "the server withheld the credential of provider {:?}: the worker needs a workspace token",
            provider.provider_id
        )));
    }
    Ok(())
}
