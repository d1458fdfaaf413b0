//! The metrics, each by its instrument. Counters and gauges are atomic numbers; observing a histogram takes a lock for
//! a few nanoseconds.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::process::Process;

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names of the gRPC codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Upper bounds of the durations of calls, in seconds: a long poll may take a minute, a watch longer.
const CALL_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0];
/// Upper bounds of convergence, in seconds: from a watching worker to one that was offline over night.
const CONVERGENCE_BUCKETS: [f64; 16] =
    [0.005, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 43_200.0];

macro_rules! label {
    ($($(#[$doc:meta])* $name:ident { $field:ident: $($value:ident = $text:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = concat!("`", $text, "`")] $value,)*
        }

        impl $name {
            const ALL: &'static [Self] = &[$(Self::$value),*];
        }

        impl EncodeLabelSet for $name {
            fn encode(
                &self,
                encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
            ) -> Result<(), fmt::Error> {
                let text = match self { $(Self::$value => $text),* };
                (stringify!($field), text).encode(encoder.encode_label())
            }
        }
    )*};
}

label! {
    /// What became of a claim.
    Claim {
        outcome: Granted = "granted", Renewed = "renewed", Refused = "refused",
    }
    /// How a delivery ended.
    Ended {
        outcome: Applied = "applied", Failed = "failed",
    }
    /// What woke those who wait for events.
    Wakeup {
        source: Local = "local", Replica = "replica", SafetyPoll = "safety_poll", Reconnect = "reconnect",
    }
    /// How somebody waits for events.
    Wait {
        kind: LongPoll = "long_poll", Watch = "watch",
    }
    /// Why a call was refused before anybody knew who calls.
    Unauthenticated {
        credential: Missing = "missing", Invalid = "invalid",
    }
    /// What a workspace's worker does.
    Presence {
        state: Online = "online", Offline = "offline",
    }
    /// What a connection to the database does.
    Connection {
        state: Used = "used", Idle = "idle",
    }
    /// How a statement was run.
    Statement {
        kind: Read = "read", Transaction = "transaction",
    }
}

/// All metrics of a server.
pub struct Metrics {
    registry: Registry,
    /// Calls.
    pub rpc: RpcMetrics,
    http: Family<StatusLabel, Counter>,
    /// Versions and events.
    pub delivery: DeliveryMetrics,
    /// Who waits, and what wakes them.
    pub wakeups: WakeupMetrics,
    /// The database as this process uses it.
    pub database: DatabaseMetrics,
    /// The state of the whole installation, as a job of this process last read it from the database.
    pub fleet: FleetMetrics,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let registry_of_ours = registry.sub_registry_with_prefix("agentrouter");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry_of_ours.register("build", "The version of the program", build);
        let http: Family<StatusLabel, Counter> = Family::default();
        let help = "Answers to HTTP requests of any kind, by status; gRPC calls have theirs inside";
        registry_of_ours.register("http_responses", help, http.clone());
        Self {
            http,
            rpc: RpcMetrics::register(registry_of_ours),
            delivery: DeliveryMetrics::register(registry_of_ours),
            wakeups: WakeupMetrics::register(registry_of_ours),
            database: DatabaseMetrics::register(registry_of_ours),
            fleet: FleetMetrics::register(registry_of_ours),
            registry,
        }
    }
}

impl Metrics {
    /// Counts an answer to an HTTP request, whether or not its path leads anywhere.
    pub fn http_response(&self, status: u16) {
        self.http.get_or_create(&StatusLabel { status }).inc();
    }

    /// All metrics as text, in the format of [`CONTENT_TYPE`].
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodCodeLabel {
    method: String,
    code: &'static str,
}

/// Calls by method and code.
#[derive(Debug)]
pub struct RpcMetrics {
    requests: Family<MethodCodeLabel, Counter>,
    duration: Family<MethodLabel, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    /// Refusals of callers that nobody knows.
    pub unauthenticated: Family<Unauthenticated, Counter>,
}

/// The instruments of one method, looked up once.
#[derive(Debug)]
pub struct MethodMetrics {
    name: String,
    codes: [OnceLock<Counter>; CODES.len()],
    duration: OnceLock<Histogram>,
}

/// A call under way. Dropped without an end, it counts as cancelled.
#[derive(Debug)]
pub struct CallTimer {
    method: Arc<MethodMetrics>,
    requests: Family<MethodCodeLabel, Counter>,
    duration: Family<MethodLabel, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    started: Instant,
    code: Option<i32>,
}

impl RpcMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(CALL_BUCKETS)),
            in_flight: Gauge::default(),
            unauthenticated: Family::default(),
        };
        registry.register("rpc_requests", "Calls that ended, by method and code", metrics.requests.clone());
        registry.register_with_unit(
            "rpc_duration",
            "How long calls took, long polls and streams included",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register("rpc_in_flight", "Calls under way", metrics.in_flight.clone());
        let help = "Calls refused because nobody knows who calls";
        registered(
            registry,
            "unauthenticated_refusals",
            help,
            &metrics.unauthenticated,
            Unauthenticated::ALL,
        );
        metrics
    }

    /// The instruments of a method. Names must come from a bounded set.
    pub fn method(&self, name: impl Into<String>) -> Arc<MethodMetrics> {
        let codes = [const { OnceLock::new() }; CODES.len()];
        Arc::new(MethodMetrics { name: name.into(), codes, duration: OnceLock::new() })
    }

    /// Begins to time a call.
    pub fn start(&self, method: &Arc<MethodMetrics>) -> CallTimer {
        self.in_flight.inc();
        CallTimer {
            method: Arc::clone(method),
            requests: self.requests.clone(),
            duration: self.duration.clone(),
            in_flight: self.in_flight.clone(),
            started: Instant::now(),
            code: None,
        }
    }
}

impl CallTimer {
    /// Notes the gRPC code that the call ends with; it ends when this is dropped.
    pub fn set_code(&mut self, code: i32) {
        self.code = Some(code);
    }

    /// The code, where it is known.
    pub fn code(&self) -> Option<i32> {
        self.code
    }
}

impl Drop for CallTimer {
    fn drop(&mut self) {
        const CANCELLED: i32 = 1;
        const UNKNOWN: usize = 2;
        self.in_flight.dec();
        let number = usize::try_from(self.code.unwrap_or(CANCELLED)).unwrap_or(UNKNOWN);
        let number = if number < CODES.len() { number } else { UNKNOWN };
        if let (Some(counter), Some(code)) = (self.method.codes.get(number), CODES.get(number)) {
            let label = || MethodCodeLabel { method: self.method.name.clone(), code };
            counter.get_or_init(|| self.requests.get_or_create_owned(&label())).inc();
        }
        let label = || MethodLabel { method: self.method.name.clone() };
        let duration = self.method.duration.get_or_init(|| self.duration.get_or_create_owned(&label()));
        duration.observe(self.started.elapsed().as_secs_f64());
    }
}

/// Versions, claims and completions that this process committed or refused.
#[derive(Debug)]
pub struct DeliveryMetrics {
    convergence: Histogram,
    claims: Family<Claim, Counter>,
    completions: Family<Ended, Counter>,
    /// Versions that were stored.
    pub versions: Counter,
    /// Completions that were refused, because their claim was not current any more.
    pub stale_completions: Counter,
    /// Completions that named neither the claim's token nor its worker.
    pub bare_completions: Counter,
    /// Claims whose lease ran out.
    pub lease_expiries: Counter,
    /// Slots that got stuck in a workspace.
    pub stuck: Counter,
    /// Events that were overtaken by a newer version.
    pub supersessions: Counter,
}

impl DeliveryMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            convergence: Histogram::new(CONVERGENCE_BUCKETS),
            claims: Family::default(),
            completions: Family::default(),
            versions: Counter::default(),
            stale_completions: Counter::default(),
            bare_completions: Counter::default(),
            lease_expiries: Counter::default(),
            stuck: Counter::default(),
            supersessions: Counter::default(),
        };
        registry.register_with_unit(
            "convergence",
            "From the creation of a version to its application in a workspace",
            Unit::Seconds,
            metrics.convergence.clone(),
        );
        registered(registry, "claims", "Claims of events", &metrics.claims, Claim::ALL);
        registered(registry, "completions", "Events that ended", &metrics.completions, Ended::ALL);
        for (name, help, counter) in [
            ("versions", "Versions of configurations that were stored", &metrics.versions),
            (
                "stale_completions",
                "Completions refused because the claim was not current",
                &metrics.stale_completions,
            ),
            (
                "bare_completions",
                "Completions that named neither token nor worker",
                &metrics.bare_completions,
            ),
            ("lease_expiries", "Claims whose lease ran out", &metrics.lease_expiries),
            ("slots_stuck", "Slots that got stuck in a workspace", &metrics.stuck),
            ("superseded_events", "Events overtaken by a newer version", &metrics.supersessions),
        ] {
            registry.register(name, help, counter.clone());
        }
        metrics
    }

    /// A workspace applied a version that was created this long ago.
    pub fn converged(&self, after: Duration) {
        self.convergence.observe(after.as_secs_f64());
    }

    /// Counts a claim.
    pub fn claim(&self, outcome: Claim) {
        self.claims.get_or_create(&outcome).inc();
    }

    /// Counts a completion.
    pub fn completion(&self, outcome: Ended) {
        self.completions.get_or_create(&outcome).inc();
    }
}

/// Who waits for events, and what wakes them.
#[derive(Debug)]
pub struct WakeupMetrics {
    waiters: Family<Wait, Gauge>,
    wakeups: Family<Wakeup, Counter>,
    /// Notifications sent to other replicas; one holds many changes.
    pub notifications: Counter,
    /// Times that this process asked the database whether it missed something.
    pub safety_polls: Counter,
}

impl WakeupMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            waiters: Family::default(),
            wakeups: Family::default(),
            notifications: Counter::default(),
            safety_polls: Counter::default(),
        };
        registered(registry, "waiters", "Long polls and watches that are open", &metrics.waiters, Wait::ALL);
        let help = "Times that those who wait for a customer's events were woken, by what told of the change";
        registered(registry, "wakeups", help, &metrics.wakeups, Wakeup::ALL);
        let help = "Notifications sent to other replicas";
        registry.register("notifications_sent", help, metrics.notifications.clone());
        let help = "Times that this process asked the database whether it missed a change";
        registry.register("safety_polls", help, metrics.safety_polls.clone());
        metrics
    }

    /// Counts a wake-up.
    pub fn woken(&self, source: Wakeup) {
        self.wakeups.get_or_create(&source).inc();
    }

    /// Counts somebody who waits, for as long as the answer lives.
    pub fn wait(&self, kind: Wait) -> Waiting {
        let gauge = self.waiters.get_or_create_owned(&kind);
        gauge.inc();
        Waiting(gauge)
    }
}

/// Somebody who waits.
#[derive(Debug)]
#[must_use = "it counts for as long as it lives"]
pub struct Waiting(Gauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The database as this process uses it.
#[derive(Debug)]
pub struct DatabaseMetrics {
    connections: Family<Connection, Gauge>,
    connections_max: Gauge,
    reads: Counter,
    statements: Counter,
    /// Transactions that were begun.
    pub transactions: Counter,
    /// Statements and transactions that the database was not there for, or too busy.
    pub unavailable: Counter,
}

impl DatabaseMetrics {
    fn register(registry: &mut Registry) -> Self {
        let by_kind: Family<Statement, Counter> = Family::default();
        registered(
            registry,
            "db_statements",
            "Statements, alone or in a transaction",
            &by_kind,
            Statement::ALL,
        );
        let metrics = Self {
            connections: Family::default(),
            connections_max: Gauge::default(),
            reads: by_kind.get_or_create_owned(&Statement::Read),
            statements: by_kind.get_or_create_owned(&Statement::Transaction),
            transactions: Counter::default(),
            unavailable: Counter::default(),
        };
        let help = "Connections of the pool";
        registered(registry, "db_connections", help, &metrics.connections, Connection::ALL);
        let help = "The most connections the pool may have";
        registry.register("db_connections_max", help, metrics.connections_max.clone());
        registry.register("db_transactions", "Transactions begun", metrics.transactions.clone());
        let help = "Times that the database did not answer or was too busy";
        registry.register("db_unavailable", help, metrics.unavailable.clone());
        metrics
    }

    /// Counts a statement of its own.
    pub fn read(&self) {
        self.reads.inc();
    }

    /// Counts a statement inside a transaction.
    pub fn statement(&self) {
        self.statements.inc();
    }

    /// Notes the state of the pool.
    pub fn set_connections(&self, used: i64, idle: i64, max: i64) {
        self.connections.get_or_create(&Connection::Used).set(used);
        self.connections.get_or_create(&Connection::Idle).set(idle);
        self.connections_max.set(max);
    }
}

type Seconds = Gauge<f64, AtomicU64>;

/// The state of the whole installation, which every replica tells alike.
#[derive(Debug)]
pub struct FleetMetrics {
    oldest_open_event: Seconds,
    stuck_slots: Gauge,
    workspaces: Family<Presence, Gauge>,
}

impl FleetMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            oldest_open_event: Gauge::default(),
            stuck_slots: Gauge::default(),
            workspaces: Family::default(),
        };
        registry.register_with_unit(
            "oldest_open_event_age",
            "Age of the oldest version that a workspace with a live worker has still to apply; stuck slots apart",
            Unit::Seconds,
            metrics.oldest_open_event.clone(),
        );
        let help = "Slots that are stuck in a workspace";
        registry.register("stuck_slots", help, metrics.stuck_slots.clone());
        let help = "Workspaces by whether their worker called within two minutes";
        registered(registry, "workspaces", help, &metrics.workspaces, Presence::ALL);
        metrics
    }

    /// Notes what was read.
    pub fn set(&self, oldest_open_event: Duration, stuck_slots: i64, online: i64, offline: i64) {
        self.oldest_open_event.set(oldest_open_event.as_secs_f64());
        self.stuck_slots.set(stuck_slots);
        self.workspaces.get_or_create(&Presence::Online).set(online);
        self.workspaces.get_or_create(&Presence::Offline).set(offline);
    }
}

/// Registers a family with all its members, so that each is there before the first event.
fn registered<L, M>(registry: &mut Registry, name: &str, help: &str, family: &Family<L, M>, all: &'static [L])
where
    L: EncodeLabelSet + Clone + std::hash::Hash + Eq + fmt::Debug + Send + Sync + 'static,
    M: prometheus_client::metrics::TypedMetric
        + prometheus_client::encoding::EncodeMetric
        + Default
        + Clone
        + fmt::Debug
        + Send
        + Sync
        + 'static,
{
    for label in all {
        drop(family.get_or_create(label));
    }
    registry.register(name, help, family.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_of_a_bounded_label_is_there_from_the_start() {
        let text = Metrics::default().encode().unwrap();
        for line in [
            "agentrouter_claims_total{outcome=\"granted\"} 0",
            "agentrouter_claims_total{outcome=\"refused\"} 0",
            "agentrouter_wakeups_total{source=\"safety_poll\"} 0",
            "agentrouter_waiters{kind=\"watch\"} 0",
            "agentrouter_unauthenticated_refusals_total{credential=\"invalid\"} 0",
            "agentrouter_stale_completions_total 0",
            "agentrouter_stuck_slots 0",
            "agentrouter_convergence_seconds_bucket{le=\"0.015\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_call_counts_once_whatever_becomes_of_it() {
        let metrics = Metrics::default();
        let method = metrics.rpc.method("a.v1.S/Get");
        metrics.rpc.start(&method).set_code(0);
        metrics.rpc.start(&method).set_code(5);
        metrics.rpc.start(&method).set_code(-7);
        drop(metrics.rpc.start(&method));
        let under_way = metrics.rpc.start(&method);
        let text = metrics.encode().unwrap();
        for code in ["OK", "NOT_FOUND", "UNKNOWN", "CANCELLED"] {
            let line = format!("agentrouter_rpc_requests_total{{method=\"a.v1.S/Get\",code=\"{code}\"}} 1");
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(text.contains("agentrouter_rpc_duration_seconds_count{method=\"a.v1.S/Get\"} 4"), "{text}");
        assert!(text.contains("agentrouter_rpc_in_flight 1"), "{text}");
        drop(under_way);
    }

    #[test]
    fn waiting_counts_for_as_long_as_it_lasts() {
        let metrics = Metrics::default();
        let waiting = metrics.wakeups.wait(Wait::LongPoll);
        let line = |number| format!("agentrouter_waiters{{kind=\"long_poll\"}} {number}");
        assert!(metrics.encode().unwrap().contains(&line(1)));
        drop(waiting);
        assert!(metrics.encode().unwrap().contains(&line(0)));
    }
}
