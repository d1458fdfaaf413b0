//! Three servers on one PostgreSQL, two hundred workspaces, people who never stop changing things; and servers, workers
//! and the database itself that die at random. At the end everything has converged, and what everybody was told is
//! what is stored.
//!
//! `cargo xtask chaos` runs it for longer and more than once.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected must stop"
)]
#![expect(clippy::print_stdout, reason = "what servers complained of is part of the result")]

#[path = "../common/mod.rs"]
mod common;

#[path = "../crash/call.rs"]
mod call;
#[path = "../crash/client.rs"]
mod client;
#[path = "../crash/fleet.rs"]
mod fleet;
#[path = "../crash/ledger.rs"]
mod ledger;
#[path = "../crash/verify.rs"]
mod verify;
#[path = "../crash/worker.rs"]
mod worker;
#[path = "../crash/writers.rs"]
mod writers;

mod drive;
mod plan;
mod servers;

use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_api::configurator::{ConfigType, GetRolloutRequest, GetRolloutResponse};
use agentrouter_storage::{Target, query};
use call::answered;
use client::Client;
use common::program::{PATIENCE, Settings};
use common::{Api, OPERATOR_KEY};
use drive::{Signs, drive};
use fleet::{Fleet, Tenant, converged};
use plan::{Blow, plan};
use servers::Servers;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Request;
use worker::Habits;
use xtask::postgres::{Cluster, Durability};

const SERVERS: usize = 3;
const WORKSPACES: usize = 200;

/// Polls wait as those of real workers do. Claims end soon, so that the dead are noticed within the test.
const HABITS: Habits = Habits { wait: Duration::from_secs(10), lease: Duration::from_secs(10) };

/// How long things go on after the last blow, so that the last changes are made while everything works.
const AFTERMATH: Duration = Duration::from_secs(2);

fn tenants() -> Vec<Tenant> {
    let named = |count: usize| (0..count).map(|index| format!("ws-{index}")).collect();
    let acme = Tenant {
        customer: "acme",
        providers: &["openai", "anthropic"],
        has_keys: true,
        has_trigger: true,
        workspaces: named(WORKSPACES * 3 / 4),
        races: 10,
    };
    let globex = Tenant { customer: "globex", workspaces: named(WORKSPACES / 4), ..acme.clone() };
    vec![acme, globex]
}

/// A setting of the run; `cargo xtask chaos` sets them.
fn setting(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration to read it from")]
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// What was done to everybody.
#[derive(Debug, Default)]
struct Toll {
    killed: u32,
    stopped: u32,
    database: u32,
    connections: u32,
    workers: usize,
}

// Behaviour 29: kills of servers, workers and the database lose nothing, double nothing and take nothing back.
// Behaviour 30: servers outlive the database and its connections, and work goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_converges_whatever_dies() {
    let seed = setting("AGENTROUTER_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let length = Duration::from_secs(setting("AGENTROUTER_CHAOS_SECONDS").unwrap_or(30));
    println!("\nseed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let plan = plan(&mut rng, length, SERVERS);

    let mut cluster = Cluster::start(Durability::Commits).unwrap();
    let data_dirs: Vec<_> = (0..SERVERS).map(|_| tempfile::tempdir().unwrap()).collect();
    let settings: Vec<_> = data_dirs.iter().map(|data_dir| settings(data_dir.path(), &cluster)).collect();
    let first = settings[0].clone();
    let servers = Servers::start(settings).await;
    let operator = servers.api(0, OPERATOR_KEY);
    let fleet = Fleet::prepare(&operator, tenants(), HABITS, &mut rng).await;

    let crowd = Crowd::set_to_work(fleet, &servers, &mut rng);
    let mut toll = Toll::default();
    for (pause, blow) in plan {
        tokio::time::sleep(pause).await;
        strike(blow, &servers, &mut cluster, &first, &crowd, &mut rng, &mut toll).await;
    }
    tokio::time::sleep(AFTERMATH).await;

    let (fleet, took) = crowd.settle(&servers).await;
    let stored = first.open().await;
    verify::closed(&stored).await;
    servers.stop().await;
    let compared = verify::compare(&stored, &fleet).await;
    stored.close().await;
    // Everybody has everything at least once, whatever happened.
    assert!(compared.applied > WORKSPACES && compared.writes > 0 && compared.triggers > 0, "{compared}");
    let Toll { killed, stopped, database, connections, workers } = toll;
    println!(
        "\nchaos: seed {seed}, {} s: {killed} servers killed and {stopped} stopped, {database} losses of the database and \
         {connections} of its connections, {workers} workers killed; {compared}; converged in {:.1} s",
        length.as_secs(),
        took.as_secs_f64(),
    );
}

/// The servers share a database and the key to its secrets, and nothing else.
fn settings(data_dir: &std::path::Path, cluster: &Cluster) -> Settings {
    let mut settings = Settings::new(data_dir, &Target::Postgres(cluster.url()));
    let kek = "test:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    settings.environment.push(("AGENTROUTER_KEK", kek.to_owned()));
    settings
}

async fn strike(
    blow: Blow,
    servers: &Servers,
    cluster: &mut Cluster,
    settings: &Settings,
    crowd: &Crowd,
    rng: &mut fastrand::Rng,
    toll: &mut Toll,
) {
    const TERMINATE: &str = "SELECT pg_terminate_backend(pid) AS value FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    match blow {
        Blow::Server { index, gently, down } => {
            servers.fell(index, gently, down);
            *if gently { &mut toll.stopped } else { &mut toll.killed } += 1;
        }
        Blow::Database { down } => {
            tokio::task::block_in_place(|| cluster.crash()).unwrap();
            tokio::time::sleep(down).await;
            tokio::task::block_in_place(|| cluster.restart()).unwrap();
            toll.database += 1;
        }
        Blow::Connections => {
            let db = settings.open().await;
            query(TERMINATE).values::<bool>(&db).await.unwrap();
            db.close().await;
            toll.connections += 1;
        }
        Blow::Workers { count } => {
            for _ in 0..count {
                rng.choice(&crowd.deaths).unwrap().notify_one();
            }
            toll.workers += count;
        }
    }
}

/// Everybody at work.
struct Crowd {
    writers: JoinSet<Client>,
    workers: JoinSet<Client>,
    deaths: Vec<Arc<Notify>>,
    calm: watch::Sender<bool>,
    stop_writers: CancellationToken,
    stop_workers: CancellationToken,
    /// Without the clients.
    fleet: Fleet,
}

impl Crowd {
    fn set_to_work(mut fleet: Fleet, servers: &Servers, rng: &mut fastrand::Rng) -> Self {
        let clients = std::mem::take(&mut fleet.clients);
        let mut crowd = Self {
            writers: JoinSet::new(),
            workers: JoinSet::new(),
            deaths: Vec::new(),
            calm: watch::Sender::new(false),
            stop_writers: CancellationToken::new(),
            stop_workers: CancellationToken::new(),
            fleet,
        };
        for client in clients {
            let is_worker = matches!(client, Client::Worker(_));
            let stop = if is_worker { &crowd.stop_workers } else { &crowd.stop_writers };
            let death = Arc::new(Notify::new());
            let signs = Signs { death: Arc::clone(&death), calm: crowd.calm.subscribe(), stop: stop.clone() };
            let addresses = servers.addresses().to_vec();
            let driven = drive(client, addresses, signs, rng.fork());
            if is_worker {
                crowd.deaths.push(death);
                crowd.workers.spawn(driven);
            } else {
                crowd.writers.spawn(driven);
            }
        }
        crowd
    }

    /// Lets the writers learn what became of their open writes, and the workers apply what is left; how long that took
    /// them.
    async fn settle(mut self, servers: &Servers) -> (Fleet, Duration) {
        self.calm.send_replace(true);
        self.stop_writers.cancel();
        let writers = timeout(PATIENCE, self.writers.join_all()).await.expect("a writer hangs");
        let began = Instant::now();
        let operator = servers.api(0, OPERATOR_KEY);
        for (customer, workspace) in self.fleet.tenants.iter().flat_map(Tenant::workspaces) {
            converged(&operator, customer, workspace, &self.fleet.ledger).await;
        }
        let took = began.elapsed();
        for tenant in &self.fleet.tenants {
            rolled_out(&operator, tenant).await;
        }
        self.stop_workers.cancel();
        let workers = timeout(PATIENCE, self.workers.join_all()).await.expect("a worker hangs");
        self.fleet.clients.extend(writers.into_iter().chain(workers));
        (self.fleet, took)
    }
}

/// What GetRollout tells of the providers: every workspace runs them, and nobody lags behind.
async fn rolled_out(operator: &Api, tenant: &Tenant) {
    let rollout = loop {
        let mut request = Request::new(GetRolloutRequest {
            user_id: "system".to_owned(),
            config_type: ConfigType::Providers.into(),
            ..Default::default()
        });
        request.metadata_mut().insert("x-agentrouter-customer", tenant.customer.parse().unwrap());
        let answer = ConfiguratorServiceClient::new(operator.clone()).get_rollout(request).await;
        if let Some(rollout) = answered(answer).expect("nobody kills servers any more") {
            break rollout;
        }
    };
    let all = i32::try_from(tenant.workspaces.len()).unwrap();
    let expected =
        GetRolloutResponse { version: rollout.version, wanted: all, applied: all, ..Default::default() };
    assert_eq!(rollout, expected, "{}", tenant.customer);
}
