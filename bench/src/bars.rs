//! What the figures are held against: our own bars, and what others publish or reach on a machine like this.

use agentrouter_storage::Engine;

/// The side of a limit that holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Limit {
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }
}

/// One bar, with the unit of its figures and what others reach.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) what: &'static str,
    pub(crate) limit: Limit,
    pub(crate) unit: &'static str,
    /// Where it was set for one engine; figures of the other one are only shown.
    pub(crate) engine: Option<Engine>,
    /// What comparable systems reach: measured on 2 cores with PostgreSQL 15 where not said otherwise. Empty where nobody
    /// says.
    pub(crate) anchor: &'static str,
}

macro_rules! bars {
    ($($name:ident: $what:literal, $side:ident $limit:literal $unit:literal, $engine:expr, $anchor:literal;)*) => {$(
        pub(crate) const $name: Bar =
            Bar { what: $what, limit: Limit::$side($limit), unit: $unit, engine: $engine, anchor: $anchor };
    )*};
}

const POSTGRES: Option<Engine> = Some(Engine::Postgres);
const BOTH: Option<Engine> = None;

bars! {
    CLAIMS: "claim + complete, one event a call", AtLeast 3500.0 "/s", POSTGRES,
        "River 991/s at its defaults, 4,289/s with 24 workers; graphile-worker 2,522/s; pgmq 3,296/s; awa 4,426/s; none through an API";
    CLAIMS_RATIO: "the same, as a share of raw SQL", AtLeast 0.45 "", POSTGRES, "raw SQL 7,953/s on another run's machine";
    BATCH: "claim + complete, batches of 100", AtLeast 22000.0 "/s", POSTGRES,
        "River tuned 21,100/s; graphile-worker 15,713/s; pgmq 41,400/s; none fenced, none through an API";
    RACE_DOUBLE: "double claims in races", AtMost 0.0 "", BOTH, "River and awa 0";
    RACE: "one round of a race of 64, p99", AtMost 20.0 " ms", BOTH, "";
    FANOUT: "one trigger to 10,000 workspaces, p99", AtMost 10.0 " ms", BOTH,
        "River InsertManyFast about 125 ms, raw inserts 42 ms (each with a row per workspace)";
    TRIGGER_P50: "trigger to worker, p50", AtMost 15.0 " ms", BOTH, "Agent Router polls every 5 s; LiteLLM every 30 s";
    TRIGGER_P99: "trigger to worker, p99", AtMost 100.0 " ms", BOTH, "Airbnb's Istio p90 1.5 s";
    CONVERGED: "10,000 workspaces converged, p99", AtMost 2000.0 " ms", BOTH, "Consul below 1 s to 10,000 nodes, with 5 servers";
    LIAISON_P50: "trigger to a worker of the liaison, p50", AtMost 15.0 " ms", BOTH, "Agent Router polls every 5 s; LiteLLM every 30 s";
    LIAISON_P99: "trigger to a worker of the liaison, p99", AtMost 100.0 " ms", BOTH, "Airbnb's Istio p90 1.5 s";
    IDLE_POLL: "10,000 idle workers polling every 5 s, of one core", AtMost 25.0 " %", BOTH, "River polls once a second per client";
    IDLE_WATCH: "10,000 idle watchers, of one core", AtMost 3.0 " %", BOTH, "";
    IDLE_QUERIES: "statements per second for 10,000 idle watchers", AtMost 5.0 "/s", BOTH, "the server's own jobs are in it";
    IDLE_MEMORY: "memory per idle watcher", AtMost 30.0 " KiB", BOTH, "Kong Mesh about 1 MB per data plane";
    BURST: "deliveries per workspace in a burst, max", AtMost 3.0 "", BOTH, "Istio debounces 100 ms; graphile-worker replaces by job key";
    DEATH: "reclaimed after its lease ended, p99", AtMost 1000.0 " ms", BOTH,
        "lease by default: SQS 30 s; River 1 h; graphile-worker 4 h";
    DEATH_LOST: "lost or twice applied events after deaths", AtMost 0.0 "", BOTH, "";
    RESTART: "back to 99 % of the rate after a restart", AtMost 10.0 " s", POSTGRES,
        "awa and River recover fully; pgmq's client does not; pg-boss exits";
    RESTART_LOST: "workspaces left behind after a restart", AtMost 0.0 "", POSTGRES, "";
    SNAPSHOT: "rate under a held snapshot, of the rate before", AtLeast 0.8 "", POSTGRES,
        "a naive queue table falls to a ninth (276/s); pgque stays flat";
    HERD_DRAINED: "a herd of 10,000 served", AtMost 60.0 " s", BOTH, "Istio admits 25 a second on 2 cores";
    HERD_ERRORS: "errors of the herd that a retry does not cure", AtMost 0.0 "", BOTH, "";
    HERD_BYSTANDER: "a bystander's p99 beside the herd, of the quiet one", AtMost 2.0 "x", BOTH, "";
    RETURN_ERRORS: "errors of returning watchers that a retry does not cure", AtMost 0.0 "", BOTH, "";
    NOISY: "p99 of a tenant beside a noisy one, of the quiet one", AtMost 2.0 "x", BOTH, "";
    RECONCILE: "ReconcileWorkspace with nothing to do, p99", AtMost 5.0 " ms", BOTH, "Argo CD 1,000 applications in 120 s";
    RECONCILE_REPLAYS: "replays of it", AtMost 0.0 "", BOTH, "";
    REVOKED_CHECK: "check of a credential in the process, p99", AtMost 5.0 " us", BOTH, "";
    REVOKED_EVERYWHERE: "revoked on another replica, max", AtMost 1000.0 " ms", BOTH, "LiteLLM serves stale keys for minutes";
    REVOKED_BYTES: "bytes that a data plane fetches for one more revocation", AtMost 64.0 " B", BOTH,
        "a Token Status List of 1 M tokens is 125 kB";
    ENVELOPE: "seal or open 1 KiB, one core", AtLeast 50000.0 "/s", BOTH, "";
    LIST: "a page of 100 projects of 100,000, p99", AtMost 10.0 " ms", BOTH, "";
    LIST_FLAT: "last pages to first pages, medians", AtMost 1.5 "x", BOTH, "with OFFSET it grows with the page's number";
    START: "start to ready, p50", AtMost 300.0 " ms", BOTH, "";
    MEMORY: "resident memory when idle", AtMost 60.0 " MB", BOTH, "";
    REST_GATEWAY: "REST through the gateway, of a hand-written handler", AtLeast 0.95 "", BOTH,
        "grpc-gateway 0.20, vanguard-go 0.18, Envoy's transcoder 0.15";
    REST_SERVER: "the same with authentication, limits, tracing, metrics", AtLeast 0.85 "", BOTH, "as above, none of them with those";
    RIVALS_OURS: "a POST through the gateway, of a hand-written handler", AtLeast 0.95 "", BOTH,
        "grpc-gateway 0.20, vanguard-go 0.18, Envoy's transcoder 0.15";
    RIVALS_EVERYTHING: "the same with everything that production has", AtLeast 0.85 "", BOTH, "as above, none of them with it";
    RIVALS_FASTEST: "a POST by the fastest other transcoder, of ours", AtLeast 4.0 "x", BOTH, "";
    RIVALS_ROUTES: "a GET among 1,000 routes, of one among 10", AtMost 2.0 "x", BOTH, "";
    RIVALS_P99: "p99 of a POST, of the best of other transcoders", AtMost 1.0 "x", BOTH, "";
}
