//! Many replicas: three server processes on one PostgreSQL behave as one.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]
#![expect(clippy::float_cmp, reason = "counters hold whole numbers")]

#[path = "../common/mod.rs"]
mod common;

mod outage;
mod replicas;
mod tenants;

use std::time::{Duration, Instant};

use agentrouter_api::configurator::RevokeUserTokenRequest;
use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_api::identity::api_keys_service_client::ApiKeysServiceClient;
use agentrouter_api::identity::{ApiKeyKind, CreateApiKeyRequest, RevokeApiKeyRequest};
use agentrouter_api::tenancy::GetCustomerRequest;
use agentrouter_api::tenancy::tenancy_service_client::TenancyServiceClient;
use agentrouter_testkit::postgres;
use base64::Engine as _;
use common::Api;
use common::plane::{change, claim, complete, create_customer, create_provider, create_workspace, poll};
use common::program::{PATIENCE, Program};
use common::scrape::{Scrape, until};
use replicas::{LEASE, Replicas};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};

const REPLICAS: &str = "wakeups_total{source=\"replica\"}";
const SAFETY_POLLS: &str = "safety_polls_total";
const LONG_POLLS: &str = "waiters{kind=\"long_poll\"}";

// Behaviour 32: changes are announced to other replicas by a notification, and the safety poll is only the net.
// Behaviour 36: a poll that is held open at one replica is answered when a change is committed at another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_at_one_replica_wakes_a_poll_at_another() {
    const ROUNDS: u8 = 20;
    let db = postgres().await;
    let replicas = Replicas::start(&db.target).await;
    let (writing, url) = (replicas.operator(0), replicas.url(1));
    create_customer(&writing, "acme").await;
    let token = create_workspace(&writing, "acme", "edge").await;
    create_provider(&writing, "acme").await;
    let polling = replicas.api(1, &token);

    let mut event = poll(&polling, PATIENCE).await.unwrap().remove(0);
    let before = Scrape::of(&url).await;
    let mut without_safety_poll = 0;
    for round in 0..ROUNDS {
        let held = claim(&replicas.api(2, &token), &event.id, "worker", LEASE).await.unwrap();
        assert!(complete(&polling, &event.id, &held.claim_token).await.unwrap());
        let change_once_it_waits = async {
            let waits = until(&url, "the poll is held open", |now| now.value(LONG_POLLS) == 1.0).await;
            change(&writing, "acme", i32::from(round) + 2).await.unwrap();
            waits.value(SAFETY_POLLS)
        };
        let (events, polls_before) = tokio::join!(poll(&polling, PATIENCE), change_once_it_waits);
        event = events.unwrap().remove(0);
        let polls_after = Scrape::of(&url).await.value(SAFETY_POLLS);
        without_safety_poll += u8::from(polls_after == polls_before);
    }
    let after = Scrape::of(&url).await;
    let woken = after.value(REPLICAS) - before.value(REPLICAS);
    // Where the safety poll came first, the notification told nothing new and may not be counted.
    assert!(woken >= f64::from(without_safety_poll), "{woken} wake-ups by other replicas");
    // On a quick machine nearly all; where one is, the notification must have told of it.
    assert!(without_safety_poll > 0, "the safety poll told of every change");
    assert_eq!(after.value("notifications_sent_total"), before.value("notifications_sent_total"));
    assert!(Scrape::of(&replicas.url(0)).await.value("notifications_sent_total") >= 1.0);
    replicas.stop().await;
}

// Behaviour 32: at most one safety poll a second per process, and no statement per worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_wait_cost_no_statement_each() {
    const WORKERS: u32 = 300;
    let db = postgres().await;
    let replicas = Replicas::start(&db.target).await;
    let (operator, url) = (replicas.operator(0), replicas.url(1));
    create_customer(&operator, "acme").await;
    let token = create_workspace(&operator, "acme", "edge").await;
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        let api = replicas.api(1, &token);
        for _ in 0..WORKERS / 3 {
            waiting.spawn(waits(api.clone()));
        }
    }
    let all = f64::from(WORKERS);
    // The first reads of the polls go on for a while. Did waiting cost a statement each, it would in every span of time.
    let mut quiet = false;
    for _ in 0..10 {
        until(&url, "all wait", |now| now.value(LONG_POLLS) == all).await;
        // Before the scrape, however long that takes: what it counts came earlier.
        let began = Instant::now();
        let before = Scrape::of(&url).await;
        let polls = before.value(SAFETY_POLLS);
        let after = until(&url, "three safety polls", |now| now.value(SAFETY_POLLS) >= polls + 3.0).await;
        let seconds = began.elapsed().as_secs_f64();
        assert!(after.value(SAFETY_POLLS) - polls <= seconds + 2.0, "one a second: {seconds} s");
        assert_eq!(after.value(LONG_POLLS), all, "nobody's poll ended");
        let statements = after.sum("db_statements_total", "") - before.sum("db_statements_total", "");
        quiet = statements < all / 3.0;
        if quiet {
            break;
        }
    }
    assert!(quiet, "{all} workers that wait keep the database busy");
    create_provider(&operator, "acme").await;
    let found = tokio::time::timeout(PATIENCE * 2, waiting.join_all()).await.unwrap();
    assert!(found.iter().all(|found| *found == 1), "{found:?}");
    replicas.stop().await;
}

/// Polls until something is there; how much that is. Where all read at once, some may be told to try again.
async fn waits(api: Api) -> usize {
    loop {
        match poll(&api, Duration::from_mins(1)).await {
            Ok(events) => return events.len(),
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

// Behaviour 1: of workers that race at three replicas exactly one gets an event, and the others are told who.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_exclusive_across_replicas() {
    const RACERS: usize = 48;
    let db = postgres().await;
    let replicas = Replicas::start(&db.target).await;
    let operator = replicas.operator(0);
    create_customer(&operator, "acme").await;
    let token = create_workspace(&operator, "acme", "edge").await;
    create_provider(&operator, "acme").await;
    let apis: Vec<Api> = (0..3).map(|number| replicas.api(number, &token)).collect();
    for round in 0..10 {
        let event = poll(&apis[round % 3], PATIENCE).await.unwrap().remove(0).id;
        let mut racers = JoinSet::new();
        for racer in 0..RACERS {
            let (api, event, name) = (apis[racer % 3].clone(), event.clone(), format!("racer-{racer}"));
            racers.spawn(async move { (claim(&api, &event, &name, LEASE).await.unwrap(), name) });
        }
        let answers = racers.join_all().await;
        let winners: Vec<_> = answers.iter().filter(|(answer, _)| answer.success).collect();
        let [(won, winner)] = winners[..] else { panic!("{} winners", winners.len()) };
        assert!(
            answers.iter().all(|(answer, name)| name == winner || answer.holder == *winner),
            "{answers:?}"
        );
        // The token counts everywhere; nobody else's does.
        let status =
            complete(&apis[(round + 1) % 3], &event, &uuid::Uuid::nil().to_string()).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted);
        assert!(complete(&apis[(round + 2) % 3], &event, &won.claim_token).await.unwrap());
        change(&replicas.operator(round % 3), "acme", i32::try_from(round).unwrap() + 2).await.unwrap();
    }
    replicas.stop().await;
}

// Behaviour 45: a revoked key and a revoked token are refused by every replica within a second, and after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_is_honoured_by_all() {
    const WITHIN: Duration = Duration::from_secs(1);
    let db = postgres().await;
    let mut replicas = Replicas::start(&db.target).await;
    let operator = replicas.operator(0);
    create_customer(&operator, "acme").await;
    let token = create_workspace(&operator, "acme", "edge").await;
    let create = CreateApiKeyRequest {
        customer_id: "acme".to_owned(),
        display_name: "a viewer".to_owned(),
        kind: ApiKeyKind::Management.into(),
        role: "viewer".to_owned(),
        ..Default::default()
    };
    let mut keys = ApiKeysServiceClient::new(operator.clone());
    let key = keys.create_api_key(create).await.unwrap().into_inner();
    for number in 0..3 {
        read(&replicas.api(number, &key.key)).await.unwrap();
        poll(&replicas.api(number, &token), Duration::ZERO).await.unwrap();
    }

    let api_key_id = key.api_key.unwrap().id;
    keys.revoke_api_key(RevokeApiKeyRequest { customer_id: "acme".to_owned(), api_key_id }).await.unwrap();
    let mut revoke = Request::new(RevokeUserTokenRequest { jti: jti(&token), ..Default::default() });
    revoke.metadata_mut().insert("x-agentrouter-customer", "acme".parse().unwrap());
    ConfiguratorServiceClient::new(operator).revoke_user_token(revoke).await.unwrap();
    // From then on the promise holds for every call, however warm a cache is kept by calls until then.
    let revoked = Instant::now();
    while revoked.elapsed() < WITHIN {
        for number in 0..3 {
            _ = (
                read(&replicas.api(number, &key.key)).await,
                poll(&replicas.api(number, &token), Duration::ZERO).await,
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = async |replicas: &Replicas| {
        for number in 0..3 {
            let by_key = read(&replicas.api(number, &key.key)).await.unwrap_err();
            let by_token = poll(&replicas.api(number, &token), Duration::ZERO).await.unwrap_err();
            assert_eq!((by_key.code(), by_token.code()), (Code::Unauthenticated, Code::Unauthenticated));
        }
    };
    refused(&replicas).await;
    for number in 0..3 {
        replicas.programs.remove(0).stop().await;
        replicas.programs.push(Program::start(&replicas.settings[number]).await);
    }
    refused(&replicas).await;
    replicas.stop().await;
}

async fn read(api: &Api) -> Result<(), Status> {
    let request = GetCustomerRequest { customer_id: "acme".to_owned() };
    TenancyServiceClient::new(api.clone()).get_customer(request).await.map(|_| ())
}

/// The id in a token.
fn jti(token: &str) -> String {
    let claims = token.trim_start_matches("ak-").split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    claims["jti"].as_str().unwrap().to_owned()
}
