//! One event: claim, fetch, apply, report.

use std::sync::atomic::Ordering;
use std::time::Duration;

use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{
    AcknowledgeEventResponse, CompleteEventRequest, Configuration, ConfigurationEvent, ResourceResult,
};
use agentrouter_kernel::Timestamp;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use crate::failure::Failure;
use crate::inbox::{Claiming, is_instruction};
use crate::leases::Lease;
use crate::report::{RejectedResource, Report};
use crate::run::Run;
use crate::slot::Slot;
use crate::target::{Applied, Rejected};

/// How long a stopping worker keeps trying to get a call through.
const GRACE: Duration = Duration::from_secs(5);
/// How many resources a report may have, how long their names in characters, and why one was rejected in bytes.
const RESOURCES_MAX: usize = 1000;
const RESOURCE_NAME_MAX: usize = 255;
const RESOURCE_REASON_MAX: usize = 1024;

/// How the work on a claimed event ended.
pub(crate) enum Done {
    /// The target runs it.
    Applied { applied: Applied, deleted: bool },
    /// The data plane has done what an instruction says.
    Carried,
}

/// Why it did not end well.
pub(crate) enum Undone {
    /// The server shall know.
    Rejected(Rejected),
    /// The server does not let this worker do its job.
    Denied(Failure),
    /// The worker stops before it began, or another worker may go on.
    Stopped,
    /// The claim is another's by now.
    Lost,
}

impl From<Rejected> for Undone {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl Run {
    /// Delivers an event as far as it can be. An error means that the server is in trouble or refuses to serve, so that
    /// going on with the next event makes no sense.
    pub(crate) async fn deliver(
        &self,
        event: &ConfigurationEvent,
        claiming: Claiming<'_>,
    ) -> Result<Report, Failure> {
        let slot = Slot::from(event);
        let event_id = event.id.clone();
        let until = Instant::now() + self.worker.config.lease;
        let claimed = self.patiently(until, || self.claim(&event.id)).await;
        let (asked_at, claim) = match claimed {
            Ok((at, claim)) if claim.success => (at, claim),
            Ok((_, claim)) => return Ok(Report::NotClaimed { event_id, slot, holder: claim.holder }),
            Err(failure) if failure.code == Code::NotFound => {
                return Ok(Report::NotClaimed { event_id, slot, holder: String::new() });
            }
            Err(failure) => return Err(failure),
        };
        let lease = self.shared.leases.keep(&event.id, claim.claim_token.clone(), asked_at);
        drop(claiming);
        let done = if is_instruction(event) {
            Box::pin(self.instruct(event, &lease)).await.map(|()| Done::Carried)
        } else {
            self.fetch_and_apply(event, &slot).await
        };
        let mut completion = CompleteEventRequest {
            event_id: event_id.clone(),
            claim_token: claim.claim_token,
            ..Default::default()
        };
        let mut report = match done {
            Ok(Done::Applied { applied, deleted }) => {
                completion.success = true;
                completion.applied_version = applied.version;
                completion.applied_checksum.clone_from(&applied.checksum);
                completion.resources = resources(applied.resources);
                let latency = self.latency(event);
                if let Some(latency) = latency {
                    self.shared.metrics.arrived_in(&slot, latency.as_secs_f64());
                }
                let rejected = rejected(&completion.resources);
                Report::Applied { event_id, slot, version: applied.version, deleted, latency, rejected }
            }
            Ok(Done::Carried) => {
                completion.success = true;
                let latency = self.latency(event);
                Report::Applied { event_id, slot, version: 0, deleted: false, latency, rejected: Vec::new() }
            }
            Err(Undone::Rejected(rejected)) => {
                completion.error_message = plain(rejected.message());
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
            Err(Undone::Stopped) => return Ok(self.give_back(event, &lease).await),
            Err(Undone::Lost) => {
                let message = "the claim was lost while the event was worked on".to_owned();
                return Ok(Report::Stale { event_id, slot, message });
            }
        };
        let stale = |message| Report::Stale { event_id: event.id.clone(), slot: Slot::from(event), message };
        match self.complete(&mut completion, &mut report, event, &lease).await {
            Ok(true) => {
                if let Report::Applied { slot, version, .. } = &report
                    && *version > 0
                {
                    self.worker.store.keep_slot(slot.clone(), *version, &completion.applied_checksum);
                }
                Ok(report)
            }
            Ok(false) => Ok(stale("the server did not take the result".to_owned())),
            Err(failure) if failure.is_stale() => Ok(stale(failure.message)),
            // Said again it would be refused again. The claim runs out, and the server counts the attempt.
            Err(failure) if failure.code == Code::InvalidArgument => Ok(stale(failure.message)),
            Err(failure) => Err(failure),
        }
    }

    /// Completes an event, with less and less where the server does not take what is said of it.
    async fn complete(
        &self,
        completion: &mut CompleteEventRequest,
        report: &mut Report,
        event: &ConfigurationEvent,
        lease: &Lease<'_>,
    ) -> Result<bool, Failure> {
        let mut may_fail = true;
        loop {
            let until = lease.until();
            match self.patiently(until, || self.client().complete(completion.clone())).await {
                Err(failure) if failure.code == Code::InvalidArgument && may_fail => {
                    tracing::warn!(event.id, "the server does not take the result: {}", failure.message);
                    if !std::mem::take(&mut completion.resources).is_empty() {
                        continue;
                    }
                    may_fail = false;
                    let message = format!("the server does not take the result: {}", failure.message);
                    *completion = CompleteEventRequest {
                        event_id: event.id.clone(),
                        claim_token: lease.token.clone(),
                        error_message: plain(&message),
                        permanent: true,
                        ..Default::default()
                    };
                    *report = Report::Failed {
                        event_id: event.id.clone(),
                        slot: Slot::from(event),
                        version: event.version,
                        attempt: event.attempt + 1,
                        message: completion.error_message.clone(),
                        permanent: true,
                    };
                }
                decided => return decided,
            }
        }
    }

    /// Claims an event. The lease is counted from before the call, so it is never thought longer than it is.
    async fn claim(&self, event_id: &str) -> Result<(Instant, AcknowledgeEventResponse), Failure> {
        let at = Instant::now();
        self.client().claim(event_id).await.map(|answer| (at, answer))
    }

    async fn fetch_and_apply(&self, event: &ConfigurationEvent, slot: &Slot) -> Result<Done, Undone> {
        check_kind(event, slot)?;
        // Half the lease at most, so that a server that cannot answer hears of it while the claim holds.
        let until = Instant::now() + self.worker.config.lease / 2;
        let fetched = tokio::select! {
            biased;
            // Nothing was begun, so another worker, or the next one, may do it without an attempt lost.
            () = self.stop.cancelled() => return Err(Undone::Stopped),
            fetched = self.patiently(until, || self.client().fetch(slot)) => fetched,
        };
        let fetched = match fetched {
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
        let began = Instant::now();
        let applied = self.worker.target.apply(&configuration).await;
        self.applies.fetch_add(1, Ordering::Relaxed);
        self.shared.metrics.applied_in(slot, began.elapsed().as_secs_f64());
        Ok(Done::Applied { applied: applied?, deleted: configuration.deleted })
    }

    /// Gives a claim back without using an attempt.
    async fn give_back(&self, event: &ConfigurationEvent, lease: &Lease<'_>) -> Report {
        let (event_id, slot) = (event.id.clone(), Slot::from(event));
        let released = timeout(GRACE, self.client().release(&lease.event_id, &lease.token)).await;
        match released {
            Ok(Ok(())) => Report::Released { event_id, slot },
            // The lease runs out by itself.
            Ok(Err(failure)) => Report::Stale { event_id, slot, message: failure.message },
            Err(_) => {
                let message = "the server did not answer when the event was given back".to_owned();
                Report::Stale { event_id, slot, message }
            }
        }
    }

    /// Repeats a call that fails for reasons that pass. The calls it is used for may be repeated: the same worker
    /// claiming again gets the same claim, and the same completion counts once.
    pub(crate) async fn patiently<T, F>(
        &self,
        until: Instant,
        mut call: impl FnMut() -> F,
    ) -> Result<T, Failure>
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

/// Types of a newer server have no content that is understood here.
fn check_kind(event: &ConfigurationEvent, slot: &Slot) -> Result<(), Rejected> {
    match slot.kind() {
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

/// What a target says of its resources, as much of it as the server takes: what was rejected comes first.
fn resources(mut results: Vec<ResourceResult>) -> Vec<ResourceResult> {
    results.sort_by_key(|result| result.applied);
    results.truncate(RESOURCES_MAX);
    for result in &mut results {
        (result.resource, result.reason) = (plain(&result.resource), plain(&result.reason));
        if let Some((end, _)) = result.resource.char_indices().nth(RESOURCE_NAME_MAX) {
            result.resource.truncate(end);
        }
        result.reason.truncate(result.reason.floor_char_boundary(RESOURCE_REASON_MAX));
    }
    results
}

/// A text without the control characters that the server refuses.
fn plain(text: &str) -> String {
    let is_refused = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    text.replace(is_refused, "?")
}

fn rejected(results: &[ResourceResult]) -> Vec<RejectedResource> {
    let rejected = results.iter().filter(|result| !result.applied);
    rejected
        .map(|result| RejectedResource { resource: result.resource.clone(), reason: result.reason.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_cut_to_what_the_server_takes() {
        let result =
            |resource: String, applied| ResourceResult { resource, applied, reason: "ä".repeat(1024) };
        let mut results: Vec<_> = (0..2000).map(|number| result(number.to_string(), true)).collect();
        results.push(result("é".repeat(300), false));
        let kept = resources(results);
        assert_eq!(kept.len(), RESOURCES_MAX);
        let first = kept.first().expect("one");
        assert!(!first.applied && first.resource.chars().count() == 255 && first.reason.len() == 1024);
        assert_eq!(rejected(&kept).len(), 1);
        let kept = resources(vec![result("a\u{1b}[31m\nb\u{85}".to_owned(), false)]);
        assert_eq!(kept.first().map(|result| result.resource.as_str()), Some("a?[31m\nb?"));
    }
}
