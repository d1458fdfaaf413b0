//! Replicas and the database go away and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use agentrouter_kernel::SystemClock;
use agentrouter_storage::{Db, Limits, Target, query, row};
use agentrouter_testkit::postgres;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use xtask::postgres::{Cluster, Durability};

use crate::common::plane::{
    change, claim, complete, create_customer, create_provider, create_workspace, poll,
};
use crate::common::program::{PATIENCE, Program};
use crate::common::scrape::{Scrape, until};
use crate::common::{Api, OPERATOR_KEY};
use crate::replicas::{LEASE, Replicas, deliver, retried};
use crate::{LONG_POLLS, REPLICAS};

// Behaviour 29: a rolling restart of all replicas loses no change.
// Behaviour 35: who reconnects and retries what is UNAVAILABLE sees no other error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_call_of_a_client_that_retries() {
    let db = postgres().await;
    let mut replicas = Replicas::start(&db.target).await;
    let operator = replicas.operator(0);
    create_customer(&operator, "acme").await;
    let token = create_workspace(&operator, "acme", "edge").await;
    create_provider(&operator, "acme").await;
    let apis = |token: &str| -> Arc<[Api]> { (0..3).map(|number| replicas.api(number, token)).collect() };
    let (operators, workers) = (apis(OPERATOR_KEY), apis(&token));

    let (stop, written, applied) =
        (CancellationToken::new(), Arc::new(AtomicI32::new(1)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    let (stopped, weights) = (stop.clone(), Arc::clone(&written));
    clients.spawn(async move {
        while !stopped.is_cancelled() {
            let weight = weights.load(Ordering::SeqCst) % 1_000 + 1;
            // The same change twice is one change, so it may be repeated.
            retried(|attempt| {
                let api = operators[(weight.unsigned_abs() as usize + attempt) % 3].clone();
                async move { change(&api, "acme", weight).await }
            })
            .await;
            weights.store(weight, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    for _ in 0..3 {
        let (stopped, workers, applied) = (stop.clone(), Arc::clone(&workers), Arc::clone(&applied));
        clients.spawn(async move {
            let name = format!("worker-{}", fastrand::u32(..));
            while !stopped.is_cancelled() {
                let at = fastrand::usize(..3);
                let api = |attempt: usize| workers[(at + attempt) % 3].clone();
                let poll = |attempt| {
                    let api = api(attempt);
                    async move { poll(&api, Duration::from_secs(1)).await }
                };
                for event in retried(poll).await.0 {
                    let claim = |attempt| {
                        let (api, event, name) = (api(attempt), &event, &name);
                        async move { claim(&api, &event.id, name, LEASE).await }
                    };
                    let held = retried(claim).await.0;
                    if !held.success {
                        continue;
                    }
                    let complete = |attempt| {
                        let (api, event, held) = (api(attempt), &event, &held);
                        async move { complete(&api, &event.id, &held.claim_token).await }
                    };
                    assert!(retried(complete).await.0);
                    applied.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
    }
    for number in 0..3 {
        flows(&written, &applied, &mut clients).await;
        replicas.programs.remove(0).stop().await;
        flows(&written, &applied, &mut clients).await;
        replicas.programs.push(Program::start(&replicas.settings[number]).await);
    }
    flows(&written, &applied, &mut clients).await;
    stop.cancel();
    for ended in clients.join_all().await {
        let () = ended;
    }
    let left = poll(&workers[0], Duration::ZERO).await.unwrap();
    assert!(left.len() <= 1, "{left:?}");
    // What was changed last is there to be applied, or is applied.
    let delivered = deliver(&replicas, 0, "acme", &token, 1_001).await;
    assert!(delivered.version > 1);
    replicas.stop().await;
}

/// Waits until a further change was written and a further event applied. A client that ends meanwhile ends the test.
async fn flows(written: &AtomicI32, applied: &AtomicUsize, clients: &mut JoinSet<()>) {
    let before = (written.load(Ordering::SeqCst), applied.load(Ordering::SeqCst));
    let goes_on = async {
        while written.load(Ordering::SeqCst) == before.0 || applied.load(Ordering::SeqCst) == before.1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = goes_on => {}
        Some(ended) = clients.join_next() => panic!("a client gave up: {ended:?}"),
        () = tokio::time::sleep(PATIENCE) => panic!("nothing is written or applied any more"),
    }
}

async fn superuser(cluster: &Cluster) -> Db {
    let limits = Limits { max_connections: 2, ..Limits::default() };
    Db::open(&Target::Postgres(cluster.url()), limits, Arc::new(SystemClock)).await.unwrap()
}

// Behaviour 30: lost connections and a restart of PostgreSQL end by themselves, wake-ups included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_outlive_the_database() {
    const STORM: &str = "SELECT CAST(COUNT(pg_terminate_backend(pid)) AS BIGINT) AS value \
         FROM pg_stat_activity WHERE application_name = 'agentrouter' AND pid <> pg_backend_pid()";
    let mut cluster = Cluster::start(Durability::Commits).unwrap();
    let target = Target::Postgres(cluster.url());
    let mut replicas = Replicas::start(&target).await;
    let operator = replicas.operator(0);
    create_customer(&operator, "acme").await;
    let token = create_workspace(&operator, "acme", "edge").await;
    create_provider(&operator, "acme").await;
    // The first change waits already.
    let worker = replicas.api(0, &token);
    let first = poll(&worker, Duration::ZERO).await.unwrap().remove(0);
    let held = claim(&worker, &first.id, "worker", LEASE).await.unwrap();
    assert!(complete(&worker, &first.id, &held.claim_token).await.unwrap());

    let mut version = first.version;
    let mut weight = 1;
    for outage in 0..4 {
        if outage < 3 {
            let admin = superuser(&cluster).await;
            let killed = query(STORM).value::<i64>(&admin).await.unwrap().unwrap();
            assert!(killed >= 3, "every replica lost one at least: {killed}");
            admin.close().await;
        } else {
            cluster.crash().unwrap();
            cluster.restart().unwrap();
        }
        for turn in 0..3 {
            weight += 1;
            let event = deliver(&replicas, turn, "acme", &token, weight).await;
            assert_eq!(event.version, version + 1, "nothing is lost and nothing comes twice");
            version = event.version;
        }
        // They hear from each other again, each of them.
        for number in 0..3 {
            let url = replicas.url(number);
            let heard = Scrape::of(&url).await.value(REPLICAS);
            let mut polling = JoinSet::new();
            let api = replicas.api(number, &token);
            polling.spawn(async move { retried(|_| poll(&api, Duration::from_mins(1))).await.0 });
            let changing = async {
                loop {
                    until(&url, "the poll is held open", |now| now.value(LONG_POLLS) >= 1.0).await;
                    weight += 1;
                    let operator = replicas.operator((number + 1) % 3);
                    retried(|_| change(&operator, "acme", weight)).await;
                    let events = polling.join_next().await.unwrap().unwrap();
                    let event = events.into_iter().next_back().unwrap();
                    version = event.version;
                    let api = replicas.api(number, &token);
                    let held = retried(|_| claim(&api, &event.id, "worker", LEASE)).await.0;
                    assert!(retried(|_| complete(&api, &event.id, &held.claim_token)).await.0);
                    if Scrape::of(&url).await.value(REPLICAS) > heard {
                        return;
                    }
                    // It was the safety poll, since this one does not listen again yet.
                    let api = replicas.api(number, &token);
                    polling.spawn(async move { retried(|_| poll(&api, Duration::from_mins(1))).await.0 });
                }
            };
            tokio::time::timeout(Duration::from_mins(1), changing).await.expect("it never hears again");
        }
        assert!(replicas.programs.iter_mut().all(Program::is_running));
    }
    replicas.stop().await;
}

row! {
    struct Reads {
        seq_tup_read: i64,
        idx_scan: i64,
    }
}

// Behaviour 31: while another session holds a snapshot, claims go on, and find their rows by index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_snapshot_does_not_turn_claims_into_scans() {
    const ROUNDS: i64 = 150;
    const HISTORY: i64 = 20_000;
    // Finished events of the workspace, as after some weeks.
    const OLD: &str = "INSERT INTO liaison_configuration_events (id, customer_id, workspace_id, configuration_id, user_id, \
             config_type, key_id, event_type, version, status, position, attempt, stuck, is_open, lease_micros, worker_id, \
             claimed_by, outcome, error_message, created_at, completed_at) \
         SELECT gen_random_uuid(), customer_id, workspace_id, configuration_id, user_id, config_type, key_id, event_type, 1, \
             'applied', position, 1, FALSE, FALSE, 0, 'old', '', 'applied', '', created_at, created_at \
         FROM liaison_configuration_events CROSS JOIN generate_series(1, $1) LIMIT $1";
    // A session in a transaction that asks nothing for a minute is ended.
    const STAYS: &str = "SELECT CAST(1 AS BIGINT) AS value";
    const READS: &str = "SELECT CAST(seq_tup_read AS BIGINT) AS seq_tup_read, CAST(idx_scan AS BIGINT) AS idx_scan \
         FROM pg_stat_user_tables WHERE relid = CAST('liaison_configuration_events' AS regclass)";
    let db = postgres().await;
    let replicas = Replicas::start(&db.target).await;
    let operator = replicas.operator(0);
    create_customer(&operator, "acme").await;
    let token = create_workspace(&operator, "acme", "edge").await;
    create_provider(&operator, "acme").await;
    let worker = replicas.api(1, &token);
    let first = poll(&worker, Duration::ZERO).await.unwrap().remove(0);
    let held = claim(&worker, &first.id, "worker", LEASE).await.unwrap();
    assert!(complete(&worker, &first.id, &held.claim_token).await.unwrap());
    let mut tx = db.db.begin().await.unwrap();
    query(OLD).bind(HISTORY).execute(&mut tx).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    let mut tx = db.db.begin().await.unwrap();
    query("ANALYZE liaison_configuration_events").execute(&mut tx).await.unwrap();
    tx.commit_unaudited("statistics").await.unwrap();

    // The snapshot keeps every version of every row from being cleaned away.
    let other = db.reopen().await;
    let mut snapshot = other.snapshot().await.unwrap();
    let seen = "SELECT CAST(COUNT(*) AS BIGINT) AS value FROM liaison_configuration_events";
    assert_eq!(query(seen).value::<i64>(&mut snapshot).await.unwrap(), Some(HISTORY + 1));
    let before: Reads = query(READS).one(&db.db).await.unwrap();
    for round in 1..=ROUNDS {
        change(&operator, "acme", i32::try_from(round).unwrap() + 1).await.unwrap();
        let event = poll(&worker, Duration::from_secs(30)).await.unwrap().remove(0);
        let held = claim(&worker, &event.id, "worker", LEASE).await.unwrap();
        assert!(held.success && complete(&worker, &event.id, &held.claim_token).await.unwrap());
        assert_eq!(query(STAYS).value::<i64>(&mut snapshot).await.unwrap(), Some(1));
    }
    // The server's own counters follow a second later.
    let deadline = Instant::now() + PATIENCE;
    let after = loop {
        let now: Reads = query(READS).one(&db.db).await.unwrap();
        if now.idx_scan >= before.idx_scan + ROUNDS {
            break now;
        }
        let scans = now.idx_scan - before.idx_scan;
        assert!(Instant::now() < deadline, "{scans} look-ups by index in {ROUNDS} rounds");
        assert_eq!(query(STAYS).value::<i64>(&mut snapshot).await.unwrap(), Some(1));
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let scanned = after.seq_tup_read - before.seq_tup_read;
    assert!(scanned < ROUNDS * HISTORY / 10, "{scanned} rows were read by walking the table");
    assert_eq!(query(seen).value::<i64>(&mut snapshot).await.unwrap(), Some(HISTORY + 1), "it is still held");
    drop(snapshot);
    replicas.stop().await;
}
