//! What a worker counts. Labels are bounded: types of configuration by name, and outcomes.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::slot::Slot;

/// From what a file takes to what a rollout takes, in seconds.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Kind {
    config_type: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    config_type: String,
    outcome: Outcome,
}

/// How the work on an event ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the values of a label, as they are written")]
pub(crate) enum Outcome {
    applied,
    partial,
    failed,
    stale,
    released,
    not_claimed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sweep {
    kind: &'static str,
}

type Histograms = Family<Kind, Histogram, fn() -> Histogram>;

/// The metrics of a worker. Those with labels take memory only once they count something.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    events: Family<Ended, Counter>,
    apply_seconds: Histograms,
    latency_seconds: Histograms,
    sweeps: Family<Sweep, Counter>,
    pub(crate) connected: Gauge,
    pub(crate) watching: Gauge,
    pub(crate) held: Gauge,
    pub(crate) replayed: Counter,
    pub(crate) reconnects: Counter,
    pub(crate) token_expires: Gauge<f64, AtomicU64>,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            events: Family::default(),
            apply_seconds: Family::new_with_constructor(histogram),
            latency_seconds: Family::new_with_constructor(histogram),
            sweeps: Family::default(),
            connected: Gauge::default(),
            watching: Gauge::default(),
            held: Gauge::default(),
            replayed: Counter::default(),
            reconnects: Counter::default(),
            token_expires: Gauge::default(),
        }
    }

    pub(crate) fn ended(&self, slot: &Slot, outcome: Outcome) {
        self.events.get_or_create(&Ended { config_type: name(slot), outcome }).inc();
    }

    pub(crate) fn applied_in(&self, slot: &Slot, seconds: f64) {
        self.apply_seconds.get_or_create(&Kind { config_type: name(slot) }).observe(seconds);
    }

    pub(crate) fn arrived_in(&self, slot: &Slot, seconds: f64) {
        self.latency_seconds.get_or_create(&Kind { config_type: name(slot) }).observe(seconds);
    }

    pub(crate) fn swept(&self, full_sync: bool, replayed: i32) {
        let kind = if full_sync { "full_sync" } else { "reconcile" };
        self.sweeps.get_or_create(&Sweep { kind }).inc();
        self.replayed.inc_by(u64::try_from(replayed).unwrap_or_default());
    }

    /// All of them, for whoever encodes them.
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("agentrouter_liaison");
        registry.register("connected", "Whether the management plane answers", self.connected.clone());
        registry.register("watching", "Whether events come by a watch, not by polls", self.watching.clone());
        registry.register("held_claims", "Claims held", self.held.clone());
        registry.register("events", "Events worked on, by how that ended", self.events.clone());
        registry.register("apply_seconds", "How long the target took", self.apply_seconds.clone());
        registry.register(
            "trigger_to_applied_seconds",
            "From an event's creation to its being applied, by two clocks",
            self.latency_seconds.clone(),
        );
        registry.register("sweeps", "Sweeps for drift, by kind", self.sweeps.clone());
        registry.register("replayed_slots", "Slots that sweeps had delivered again", self.replayed.clone());
        registry.register("reconnects", "Times the connection was made anew", self.reconnects.clone());
        registry.register(
            "token_expires_timestamp_seconds",
            "When the token ends, in seconds since 1970; 0 where it does not say",
            self.token_expires.clone(),
        );
        registry
    }
}

/// The name of a type; one for all types of newer servers.
fn name(slot: &Slot) -> String {
    slot.kind().map_or_else(|| "other".to_owned(), crate::slot::short_name)
}
