//! The claims that a worker holds, and when they are to be renewed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agentrouter_api::configurator::HeldEvent;
use tokio::sync::Notify;
use tokio::time::Instant;

/// All claims of a worker. They are renewed together, by one call, however many there are.
#[derive(Debug)]
pub(crate) struct Leases {
    lease: Duration,
    held: Mutex<HashMap<String, Held>>,
    /// Told when a claim was made.
    pub(crate) made: Notify,
}

#[derive(Debug)]
struct Held {
    token: String,
    until: Instant,
    renew_at: Instant,
    is_lost: bool,
}

/// A claim; letting it go ends its renewal.
#[derive(Debug)]
pub(crate) struct Lease<'a> {
    leases: &'a Leases,
    pub(crate) event_id: String,
    pub(crate) token: String,
}

impl Leases {
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, held: Mutex::default(), made: Notify::new() }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a claim that was asked for at some moment. The lease is counted from before the call, so it is never
    /// thought longer than it is.
    pub(crate) fn keep(&self, event_id: &str, token: String, asked_at: Instant) -> Lease<'_> {
        let held = Held {
            token: token.clone(),
            until: asked_at + self.lease,
            renew_at: asked_at + self.lease / 3,
            is_lost: false,
        };
        self.held().insert(event_id.to_owned(), held);
        self.made.notify_one();
        Lease { leases: self, event_id: event_id.to_owned(), token }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.held().len()
    }

    /// When the next renewal is due; none where nothing is held.
    pub(crate) fn renew_at(&self) -> Option<Instant> {
        self.held().values().filter(|held| !held.is_lost).map(|held| held.renew_at).min()
    }

    /// What to renew.
    pub(crate) fn list(&self) -> Vec<HeldEvent> {
        let held = self.held();
        let live = held.iter().filter(|(_, held)| !held.is_lost);
        live.map(|(id, held)| HeldEvent { event_id: id.clone(), claim_token: held.token.clone() }).collect()
    }

    /// Notes which of the claims that were to be renewed still are the worker's. Nothing is gained by stopping the
    /// apply of a lost one half-way: its completion will be told.
    pub(crate) fn renewed(
        &self,
        asked: &[HeldEvent],
        asked_at: Instant,
        is_renewed: impl Fn(&HeldEvent) -> bool,
    ) {
        let mut held = self.held();
        for event in asked {
            let Some(claim) = held.get_mut(&event.event_id) else { continue };
            if claim.token != event.claim_token {
                continue;
            }
            if is_renewed(event) {
                (claim.until, claim.renew_at) = (asked_at + self.lease, asked_at + self.lease / 3);
            } else {
                tracing::debug!(event_id = event.event_id, "the claim is lost");
                claim.is_lost = true;
            }
        }
    }

    /// The renewal failed; it is tried again soon.
    pub(crate) fn not_renewed(&self) {
        let again = Instant::now() + self.lease / 10;
        for claim in self.held().values_mut() {
            claim.renew_at = claim.renew_at.max(again);
        }
    }
}

impl Lease<'_> {
    /// Until when the claim holds, as far as the worker knows.
    pub(crate) fn until(&self) -> Instant {
        let held = self.leases.held();
        held.get(&self.event_id)
            .filter(|held| held.token == self.token)
            .map_or_else(Instant::now, |held| held.until)
    }

    /// Whether the server said that it is another's, or nobody's.
    pub(crate) fn is_lost(&self) -> bool {
        let held = self.leases.held();
        held.get(&self.event_id).is_none_or(|held| held.is_lost || held.token != self.token)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut held = self.leases.held();
        if held.get(&self.event_id).is_some_and(|held| held.token == self.token) {
            held.remove(&self.event_id);
        }
    }
}
