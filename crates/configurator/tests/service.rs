//! What ConfiguratorService answers, on both engines. The state machine itself is tested in the delivery crate.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]

use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_api::configurator::{ConfigType, EventStatus, EventType};
use agentrouter_configurator::{Configurator, Presence};
use agentrouter_kernel::Principal;
use agentrouter_kernel::id::{Credential, Customer, Id, Identity, Provider, Workspace};
use agentrouter_rpc::credential::provider_credential_aad;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, admin, call, on_both_engines, request, viewer, workspace};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt;

on_both_engines!(
    triggers_version_what_changed,
    triggers_tell_every_wrong_field,
    a_trigger_needs_a_user,
    repeated_triggers_with_a_key_answer_the_same,
    configurations_are_returned_when_newer,
    only_workers_see_credentials,
    lists_page_and_filter,
    workers_reach_their_own_workspace_only,
    a_long_poll_ends_with_the_event,
    a_long_poll_ends_empty,
    polls_record_the_doctor_and_renew_leases,
    claims_and_completions,
    active_users_and_providers,
);

struct World {
    test: TestDb,
    service: Arc<Configurator>,
    presence: Arc<Presence>,
    shutdown: CancellationToken,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    admin: Principal,
    worker: Principal,
}

impl World {
    async fn new(test: TestDb) -> Self {
        let customer = test.customer("acme").await;
        let edge = test.workspace(customer, "edge").await;
        let (presence, shutdown) = (Arc::new(Presence::default()), CancellationToken::new());
        let service = Arc::new(Configurator::new(test.deps(), Arc::clone(&presence), shutdown.clone()));
        let world = Self {
            service,
            presence,
            shutdown,
            customer,
            workspace: edge,
            admin: admin(customer, "acme"),
            worker: workspace(customer, "acme", edge, "edge"),
            test,
        };
        world.provider(1).await;
        world
    }

    /// Writes a provider with a credential, as the providers service does.
    async fn provider(&self, weight: i64) {
        const PROVIDER: &str = "INSERT INTO providers (id, customer_id, slug, display_name, schema_name, base_url, models, \
             priority, weight, enabled, labels, revision, created_at, updated_at) \
             VALUES ($1, $2, 'openai', '', 'openai', 'https://api.example', '[\"m\"]', 0, $3, TRUE, '{}', 1, 0, 0) \
             ON CONFLICT (customer_id, slug) DO UPDATE SET weight = excluded.weight RETURNING id AS value";
        const CREDENTIAL: &str = "INSERT INTO credentials (id, customer_id, provider_id, version, sealed, created_at, updated_at) \
             VALUES ($1, $2, $3, 1, $4, 0, 0) ON CONFLICT (provider_id) DO NOTHING";
        let mut tx = self.test.db.begin().await.unwrap();
        let now = tx.now().await.unwrap();
        let provider: Id<Provider> = query(PROVIDER)
            .bind(Id::<Provider>::new(now))
            .bind(self.customer)
            .bind(weight)
            .value(&mut tx)
            .await
            .unwrap()
            .unwrap();
        let credential = Id::<Credential>::new(now);
        let aad = provider_credential_aad(self.customer, provider, credential);
        let sealed = self.test.deps().keyring.seal(&aad, b"sk-canary").unwrap();
        query(CREDENTIAL)
            .bind(credential)
            .bind(self.customer)
            .bind(provider)
            .bind(sealed)
            .execute(&mut tx)
            .await
            .unwrap();
        tx.commit_unaudited("test data").await.unwrap();
    }

    async fn trigger(&self, trigger: pb::TriggerUpdateRequest) -> Result<pb::TriggerUpdateResponse, Status> {
        self.service
            .trigger_update(request(call(&self.admin), trigger))
            .await
            .map(tonic::Response::into_inner)
    }

    async fn change(&self, weight: i64) -> pb::TriggerUpdateResponse {
        self.provider(weight).await;
        self.trigger(providers()).await.unwrap()
    }

    async fn pending(
        &self,
        caller: &Principal,
        poll: pb::ListPendingEventsRequest,
    ) -> Result<pb::ListPendingEventsResponse, Status> {
        self.service.list_pending_events(request(call(caller), poll)).await.map(tonic::Response::into_inner)
    }

    async fn get(&self, caller: &Principal, queries: Vec<pb::ConfigurationQuery>) -> Vec<pb::Configuration> {
        let message = pb::GetConfigurationRequest { queries };
        self.service
            .get_configuration(request(call(caller), message))
            .await
            .unwrap()
            .into_inner()
            .configurations
    }
}

fn providers() -> pb::TriggerUpdateRequest {
    pb::TriggerUpdateRequest {
        user_id: "system".to_owned(),
        config_type: ConfigType::Providers.into(),
        ..Default::default()
    }
}

fn newer_than(current_version: i64) -> pb::ConfigurationQuery {
    pb::ConfigurationQuery {
        user_id: "system".to_owned(),
        config_type: ConfigType::Providers.into(),
        key_id: String::new(),
        current_version,
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

fn fields(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request().unwrap();
    details.field_violations.into_iter().map(|violation| violation.field).collect()
}

// Behaviour 18: the same content again is no new version and no event.
async fn triggers_version_what_changed(db: TestDb) {
    let world = World::new(db).await;
    let first = world.trigger(providers()).await.unwrap();
    let configuration = first.configuration.unwrap();
    assert_eq!(
        (configuration.version, configuration.customer_id.as_str(), first.configuration_updated),
        (1, "acme", true)
    );
    assert_eq!((first.event_ids.len(), configuration.checksum.len()), (1, 64));
    let again = world.trigger(providers()).await.unwrap();
    assert_eq!((again.configuration_updated, again.event_ids.len()), (false, 0));
    assert_eq!(again.configuration.unwrap().checksum, configuration.checksum);
    let changed = world.change(2).await;
    assert_eq!((changed.configuration.unwrap().version, changed.configuration_updated), (2, true));
}

async fn triggers_tell_every_wrong_field(db: TestDb) {
    let world = World::new(db).await;
    let wrong = pb::TriggerUpdateRequest {
        user_id: "somebody".into(),
        config_type: ConfigType::Providers.into(),
        key_id: "key".into(),
        event_type: EventType::UpgradeCancel.into(),
        ..Default::default()
    };
    let status = world.trigger(wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(fields(&status), ["user_id", "key_id", "event_type"]);
    let nowhere = pb::TriggerUpdateRequest { workspace_id: "nowhere".into(), ..providers() };
    assert_eq!(reason(&world.trigger(nowhere).await.unwrap_err()), "WORKSPACE_NOT_FOUND");
    let nothing = pb::TriggerUpdateRequest {
        user_id: "somebody".into(),
        config_type: ConfigType::Byok.into(),
        key_id: "key".into(),
        ..Default::default()
    };
    assert_eq!(reason(&world.trigger(nothing).await.unwrap_err()), "CONFIGURATION_NOT_FOUND");
}

async fn a_trigger_needs_a_user(db: TestDb) {
    let world = World::new(db).await;
    let mut keys =
        pb::TriggerUpdateRequest { config_type: ConfigType::UserKeys.into(), ..Default::default() };
    let status = world.trigger(keys.clone()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "USER_ID_REQUIRED"));
    // With an identity behind the key, it is that one.
    let identity: Id<Identity> = world.test.identity(world.customer, "Ada").await;
    let somebody = Principal { identity: Some(identity), ..world.admin.clone() };
    let answer =
        world.service.trigger_update(request(call(&somebody), keys.clone())).await.unwrap().into_inner();
    assert_eq!(answer.configuration.unwrap().user_id, identity.to_string());
    keys.user_id = "system".into();
    assert_eq!(fields(&world.trigger(keys).await.unwrap_err()), ["user_id"]);
}

async fn repeated_triggers_with_a_key_answer_the_same(db: TestDb) {
    let world = World::new(db).await;
    let mut context = call(&world.admin);
    context.idempotency_key = Some("once".into());
    let first =
        world.service.trigger_update(request(context.clone(), providers())).await.unwrap().into_inner();
    world.provider(9).await;
    let second =
        world.service.trigger_update(request(context.clone(), providers())).await.unwrap().into_inner();
    assert_eq!(first, second);
    let other = pb::TriggerUpdateRequest { event_type: EventType::Created.into(), ..providers() };
    let status = world.service.trigger_update(request(context, other)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "IDEMPOTENCY_KEY_REUSED"));
    let audited: i64 = query("SELECT CAST(COUNT(*) AS BIGINT) AS value FROM audit_entries")
        .value(&world.test.db)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(audited, 1);
}

async fn configurations_are_returned_when_newer(db: TestDb) {
    let world = World::new(db).await;
    assert_eq!(world.get(&world.admin, vec![]).await, []);
    assert_eq!(world.get(&world.admin, vec![newer_than(0)]).await, []);
    world.change(1).await;
    world.change(2).await;
    let found = world.get(&world.admin, vec![newer_than(1), newer_than(2)]).await;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].version, found[0].deleted), (2, false));
    let wrong = pb::GetConfigurationRequest {
        queries: vec![newer_than(-1), pb::ConfigurationQuery { user_id: "x".into(), ..newer_than(0) }],
    };
    let status = world.service.get_configuration(request(call(&world.admin), wrong)).await.unwrap_err();
    assert_eq!(fields(&status), ["queries[0].current_version", "queries[1].user_id"]);
}

async fn only_workers_see_credentials(db: TestDb) {
    let world = World::new(db).await;
    world.change(1).await;
    for (caller, value) in [(&world.worker, "sk-canary"), (&world.admin, "")] {
        let found = world.get(caller, vec![newer_than(0)]).await;
        let Some(Payload::Providers(payload)) = &found[0].payload else { unreachable!("{found:?}") };
        let credential = payload.providers[0].credential.as_ref().unwrap();
        assert_eq!((credential.value.as_str(), credential.version), (value, 1));
    }
    let listed = world
        .service
        .list_configurations(request(
            call(&viewer(world.customer, "acme")),
            pb::ListConfigurationsRequest::default(),
        ))
        .await
        .unwrap()
        .into_inner();
    assert!(!format!("{listed:?}").contains("sk-canary"));
}

async fn lists_page_and_filter(db: TestDb) {
    let world = World::new(db).await;
    world.change(1).await;
    for user in ["a", "b"] {
        let keys = pb::TriggerUpdateRequest {
            user_id: user.into(),
            config_type: ConfigType::UserKeys.into(),
            ..Default::default()
        };
        world.trigger(keys).await.unwrap();
    }
    let list = async |message: pb::ListConfigurationsRequest| {
        world
            .service
            .list_configurations(request(call(&world.admin), message))
            .await
            .map(tonic::Response::into_inner)
    };
    let users = |page: &pb::ListConfigurationsResponse| {
        page.configurations.iter().map(|configuration| configuration.user_id.clone()).collect::<Vec<_>>()
    };
    let first = list(pb::ListConfigurationsRequest { page_size: 2, ..Default::default() }).await.unwrap();
    assert_eq!(users(&first), ["system", "a"]);
    let next = pb::ListConfigurationsRequest {
        page_size: 2,
        page_token: first.next_page_token.clone(),
        ..Default::default()
    };
    let second = list(next.clone()).await.unwrap();
    assert_eq!((users(&second), second.next_page_token.as_str()), (vec!["b".to_owned()], ""));
    let reused = list(pb::ListConfigurationsRequest { user_id: "a".into(), ..next }).await.unwrap_err();
    assert_eq!(fields(&reused), ["page_token"]);
    let filtered = pb::ListConfigurationsRequest {
        config_type: ConfigType::UserKeys.into(),
        user_id: "b".into(),
        ..Default::default()
    };
    assert_eq!(users(&list(filtered).await.unwrap()), ["b"]);
    let negative =
        list(pb::ListConfigurationsRequest { page_size: -1, ..Default::default() }).await.unwrap_err();
    assert_eq!(fields(&negative), ["page_size"]);
}

async fn workers_reach_their_own_workspace_only(db: TestDb) {
    let world = World::new(db).await;
    let sibling = world.test.workspace(world.customer, "sibling").await;
    world.change(1).await;
    for own in ["", "edge", &world.workspace.to_string()] {
        let poll = pb::ListPendingEventsRequest { workspace_id: own.into(), ..Default::default() };
        assert_eq!(world.pending(&world.worker, poll).await.unwrap().events.len(), 1);
    }
    for other in ["sibling", "nowhere", &sibling.to_string()] {
        let poll = pb::ListPendingEventsRequest { workspace_id: other.into(), ..Default::default() };
        let status = world.pending(&world.worker, poll).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "WORKSPACE_MISMATCH"));
    }
    // An API key sees its customer's, or those of one workspace.
    let all = world.pending(&world.admin, pb::ListPendingEventsRequest::default()).await.unwrap();
    let mut names: Vec<_> = all.events.iter().map(|event| event.workspace_id.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["edge", "sibling"]);
    let one = pb::ListPendingEventsRequest { workspace_id: "sibling".into(), ..Default::default() };
    let one = world.pending(&world.admin, one).await.unwrap();
    assert_eq!(one.events[0].workspace_id, "sibling");
    // The sibling's event does not exist for this worker.
    let claim = pb::AcknowledgeEventRequest {
        event_id: one.events[0].id.clone(),
        worker_id: "w".into(),
        lease: None,
    };
    let status = world.service.acknowledge_event(request(call(&world.worker), claim)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "EVENT_NOT_FOUND"));
}

fn held_open(seconds: i64) -> pb::ListPendingEventsRequest {
    let wait = Some(prost_types::Duration { seconds, nanos: 0 });
    pb::ListPendingEventsRequest { wait, ..Default::default() }
}

// Behaviour 36: a poll that is held open ends with the event, as soon as it is committed.
async fn a_long_poll_ends_with_the_event(db: TestDb) {
    let world = World::new(db).await;
    let poll = world.pending(&world.worker, held_open(30));
    let change = async {
        // The poll has read and waits by now; if not, it finds the event at once.
        tokio::task::yield_now().await;
        world.change(1).await
    };
    let (events, _) =
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(poll, change) }).await.unwrap();
    assert_eq!(events.unwrap().events.len(), 1);
}

// Behaviour 36: a poll that is held open ends empty after its time, and is no error.
async fn a_long_poll_ends_empty(db: TestDb) {
    let world = World::new(db).await;
    let started = Instant::now();
    assert!(world.pending(&world.worker, held_open(1)).await.unwrap().events.is_empty());
    // A tenth of the time is left out at random, so that polls that began together do not end together.
    assert!(started.elapsed() >= Duration::from_millis(900));
    // The server's shutdown ends it at once.
    world.shutdown.cancel();
    let ended =
        tokio::time::timeout(Duration::from_secs(20), world.pending(&world.worker, held_open(60))).await;
    assert!(ended.unwrap().unwrap().events.is_empty());
    let status = world.pending(&world.worker, held_open(61)).await.unwrap_err();
    assert_eq!(fields(&status), ["wait"]);
}

// Behaviour 8: a poll that names its held events renews their leases; after the lease it is too late.
async fn polls_record_the_doctor_and_renew_leases(db: TestDb) {
    let world = World::new(db).await;
    world.change(1).await;
    let event = world.pending(&world.worker, pb::ListPendingEventsRequest::default()).await.unwrap().events
        [0]
    .clone();
    let claim =
        pb::AcknowledgeEventRequest { event_id: event.id.clone(), worker_id: "w".into(), lease: None };
    let claim =
        world.service.acknowledge_event(request(call(&world.worker), claim)).await.unwrap().into_inner();
    world.test.db.advance_clock(Duration::from_secs(20));
    let doctor = pb::DoctorRuntime { reason: "ImagePullBackOff".into(), ..Default::default() };
    let poll = pb::ListPendingEventsRequest {
        worker_id: "w".into(),
        held: vec![pb::HeldEvent { event_id: event.id.clone(), claim_token: claim.claim_token.clone() }],
        doctor_runtime: Some(doctor),
        ..Default::default()
    };
    let answer = world.pending(&world.worker, poll.clone()).await.unwrap();
    assert_eq!(answer.renewed.len(), 1);
    let ends = |time: &Option<prost_types::Timestamp>| time.as_ref().unwrap().seconds;
    assert!(ends(&answer.renewed[0].lease_expires_at) >= ends(&claim.lease_expires_at) + 19);
    world.test.db.advance_clock(Duration::from_secs(31));
    assert!(world.pending(&world.worker, poll).await.unwrap().renewed.is_empty(), "the lease is over");
    let doctor: Option<Vec<u8>> =
        query("SELECT doctor_runtime AS value FROM workspace_sync").value(&world.test.db).await.unwrap();
    assert!(String::from_utf8_lossy(&doctor.unwrap()).contains("ImagePullBackOff"));
    world.presence.flush(&world.test.db).await.unwrap();
    let seen: Option<i64> =
        query("SELECT last_seen_at AS value FROM workspace_sync").value(&world.test.db).await.unwrap();
    assert!(seen.is_some());
}

// Behaviour 2: a claim comes with its token, its attempt and the end of its lease; a loser learns the holder.
async fn claims_and_completions(db: TestDb) {
    let world = World::new(db).await;
    let event_id = world.change(1).await.event_ids[0].clone();
    let claim = |worker: &str| {
        let message =
            pb::AcknowledgeEventRequest { event_id: event_id.clone(), worker_id: worker.into(), lease: None };
        world.service.acknowledge_event(request(call(&world.worker), message))
    };
    let first = claim("one").await.unwrap().into_inner();
    assert!((first.success, first.attempt) == (true, 1) && !first.claim_token.is_empty());
    let left = first.lease_expires_at.unwrap().seconds - world.test.db.now().await.unwrap().as_secs();
    assert!((28..=30).contains(&left), "{left} s");
    let second = claim("two").await.unwrap().into_inner();
    assert_eq!((second.success, second.holder.as_str(), second.claim_token.as_str()), (false, "one", ""));
    let complete = |message: pb::CompleteEventRequest| {
        world.service.complete_event(request(call(&world.worker), message))
    };
    let done = pb::CompleteEventRequest {
        event_id: event_id.clone(),
        success: true,
        claim_token: first.claim_token.clone(),
        worker_id: "one".into(),
        resources: vec![pb::ResourceResult {
            resource: "openai".into(),
            applied: true,
            reason: String::new(),
        }],
        ..Default::default()
    };
    let stale = pb::CompleteEventRequest { claim_token: uuid::Uuid::nil().to_string(), ..done.clone() };
    assert_eq!(complete(stale).await.unwrap_err().code(), Code::Aborted);
    let wrong = pb::CompleteEventRequest {
        event_id: "nope".into(),
        claim_token: "x".into(),
        applied_version: -1,
        ..done.clone()
    };
    assert_eq!(fields(&complete(wrong).await.unwrap_err()), ["event_id", "claim_token", "applied_version"]);
    assert!(complete(done.clone()).await.unwrap().into_inner().success);
    assert!(complete(done.clone()).await.unwrap().into_inner().success);
    let different = pb::CompleteEventRequest { success: false, ..done };
    assert_eq!(reason(&complete(different).await.unwrap_err()), "EVENT_ALREADY_COMPLETED");
    let pending = world.pending(&world.worker, pb::ListPendingEventsRequest::default()).await.unwrap();
    assert!(
        pending.events.iter().all(|event| event.status() == EventStatus::Pending)
            && pending.events.is_empty()
    );
}

async fn active_users_and_providers(db: TestDb) {
    let world = World::new(db).await;
    world.change(1).await;
    for user in ["b", "a"] {
        let keys = pb::TriggerUpdateRequest {
            user_id: user.into(),
            config_type: ConfigType::UserKeys.into(),
            ..Default::default()
        };
        world.trigger(keys).await.unwrap();
    }
    let users = |limit| {
        world.service.list_active_users(request(call(&world.admin), pb::ListActiveUsersRequest { limit }))
    };
    assert_eq!(users(0).await.unwrap().into_inner().user_ids, ["a", "b"]);
    assert_eq!(users(1).await.unwrap().into_inner().user_ids, ["a"]);
    assert_eq!(fields(&users(-1).await.unwrap_err()), ["limit"]);
    let listed = world
        .service
        .list_active_providers(request(call(&world.admin), pb::ListActiveProvidersRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((listed.providers.len(), listed.providers[0].provider_id.as_str()), (1, "openai"));
    assert!(!format!("{listed:?}").contains("sk-canary"));
}
