//! ApiKeysService: creation, look-ups, revocation.

use std::slice::from_ref;
use std::time::Duration;

use agentrouter_api::common::{PageRequest, PageResponse};
use agentrouter_api::identity as pb;
use agentrouter_api::identity::api_keys_service_server::ApiKeysService;
use agentrouter_identity::keys::is_key_format;
use agentrouter_kernel::Principal;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request, violations};
use tokio::task::JoinSet;
use tonic::Code;

use crate::{World, by, gateway_key, id_of, in_an_hour, key};

on_both_engines!(
    a_created_key_is_shown_once,
    every_violation_is_reported_at_once,
    nobody_creates_a_key_above_the_own_role,
    operator_keys_do_not_exist_for_others,
    keys_of_another_customer_do_not_exist,
    a_revoked_key_stays_visible,
    the_last_operator_key_stays,
    two_calls_cannot_revoke_the_last_two_operator_keys,
    a_repeated_creation_answers_with_the_same_key,
    lists_filter_order_and_page,
    gateway_keys_reach_the_data_planes,
);

// Behaviour 46: a key is shown by its creation only.
async fn a_created_key_is_shown_once(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("acme", "ada@example.com").await;
    let expires_at = Some(in_an_hour(world.test.db.now().await.unwrap()));
    let message =
        pb::CreateApiKeyRequest { identity_id: identity.clone(), expires_at, ..key("acme", "admin") };
    let created = world.key(&world.operator, message).await;
    assert!(created.key.starts_with("ak-") && is_key_format(&created.key), "{}", created.key);

    let shown = created.api_key.clone().unwrap();
    assert!(shown.id.starts_with("key_"));
    assert!(shown.created_at.is_some());
    assert_eq!(
        shown,
        pb::ApiKey {
            id: shown.id.clone(),
            customer_id: "acme".to_owned(),
            display_name: "a key".to_owned(),
            kind: pb::ApiKeyKind::Management.into(),
            role: "admin".to_owned(),
            identity_id: identity,
            key_prefix: created.key[..11].to_owned(),
            state: pb::ApiKeyState::Active.into(),
            expires_at,
            last_used_at: None,
            created_by: world.operator.credential_id.clone(),
            created_at: shown.created_at,
            revoked_at: None,
        }
    );
    assert_eq!(world.get_key(&world.operator, "acme", &shown.id).await.unwrap(), shown);
    // By row id as well as by slug.
    let by_id = world.get_key(&world.operator, &world.acme.to_string(), &shown.id).await.unwrap();
    assert_eq!(by_id, shown);

    let hidden = &created.key[11..];
    let kept = "SELECT key_prefix AS value FROM api_keys UNION ALL SELECT action || target || reason || actor_id \
         FROM audit_entries";
    let texts: Vec<String> = query(kept).values(&world.test.db).await.unwrap();
    assert!(texts.iter().all(|text| !text.contains(hidden)), "{texts:?}");
    let hashes: Vec<Vec<u8>> =
        query("SELECT key_hash AS value FROM api_key_secrets").values(&world.test.db).await.unwrap();
    assert!(hashes.iter().all(|hash| hash.len() == 32));
    let audited = "SELECT target AS value FROM audit_entries ORDER BY created_at DESC, id DESC LIMIT 1";
    assert_eq!(query(audited).value::<String>(&world.test.db).await.unwrap(), Some(shown.id));

    // A session's key was made by the person behind it.
    let admin = world.principal(&created.key).await;
    let session = world.session(&admin, "", "").await.token;
    let by_session = world.key(&world.principal(&session).await, key("acme", "viewer")).await;
    assert_eq!(by_session.api_key.unwrap().created_by, created.api_key.unwrap().identity_id);
}

async fn every_violation_is_reported_at_once(test: TestDb) {
    let world = World::new(test).await;
    let create = async |message| world.api_keys.create_api_key(by(&world.operator, message)).await;
    let too_many_nanos = prost_types::Timestamp { seconds: 0, nanos: -1 };
    let wrong = pb::CreateApiKeyRequest {
        customer_id: "acme".to_owned(),
        display_name: String::new(),
        kind: 0,
        role: "owner".to_owned(),
        identity_id: "ada".to_owned(),
        expires_at: Some(too_many_nanos),
    };
    assert_eq!(
        violations(create(wrong.clone()).await),
        ["display_name", "role", "identity_id", "expires_at"]
    );
    let wrong_gateway = pb::CreateApiKeyRequest {
        kind: pb::ApiKeyKind::Gateway.into(),
        display_name: "x".repeat(256),
        role: "admin".to_owned(),
        identity_id: String::new(),
        ..wrong.clone()
    };
    assert_eq!(
        violations(create(wrong_gateway).await),
        ["display_name", "role", "identity_id", "expires_at"]
    );
    assert_eq!(
        violations(create(pb::CreateApiKeyRequest { kind: 9, ..key("acme", "admin") }).await),
        ["kind"]
    );
    assert_eq!(violations(create(key("acme", "")).await), ["role"]);
    let past = pb::CreateApiKeyRequest {
        expires_at: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        ..key("acme", "admin")
    };
    assert_eq!(violations(create(past).await), ["expires_at"]);
    for id in ["", "key_1", "id_01K9ZZZZZZZZZZZZZZZZZZZZZZ"] {
        let message = pb::GetApiKeyRequest { customer_id: "acme".to_owned(), api_key_id: id.to_owned() };
        let answer = world.api_keys.get_api_key(by(&world.operator, message)).await;
        assert_eq!(violations(answer), ["api_key_id"], "{id}");
    }
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM api_keys").await, 1);
}

async fn nobody_creates_a_key_above_the_own_role(test: TestDb) {
    let world = World::new(test).await;
    let admin = world.caller("acme", "admin", "").await;
    let viewer = world.caller("acme", "viewer", "").await;
    // The enforcement layer refuses viewers before; the rule does not rely on it.
    for (caller, role, allowed) in [
        (&world.operator, "operator", true),
        (&world.operator, "admin", true),
        (&admin, "operator", false),
        (&admin, "admin", true),
        (&admin, "viewer", true),
        (&viewer, "admin", false),
        (&viewer, "viewer", true),
    ] {
        let answer = world.api_keys.create_api_key(by(caller, key("acme", role))).await;
        if allowed {
            let made = world.principal(&answer.unwrap().into_inner().key).await;
            assert_eq!(made.role.unwrap().as_str(), role);
        } else {
            let expected = (Code::PermissionDenied, "ROLE_ABOVE_CALLER".to_owned());
            assert_eq!(refused(answer), expected, "{:?} -> {role}", caller.role);
        }
    }
}

async fn operator_keys_do_not_exist_for_others(test: TestDb) {
    let world = World::new(test).await;
    let admin = world.caller("acme", "admin", "").await;
    let operator_key = world.operator.credential_id.clone();
    let gone = (Code::NotFound, "API_KEY_NOT_FOUND".to_owned());
    let get = world.get_key(&admin, "acme", &operator_key).await.map(tonic::Response::new);
    assert_eq!(refused(get), gone);
    assert_eq!(refused(world.revoke_key(&admin, "acme", &operator_key).await), gone);
    let overlap = Duration::ZERO;
    assert_eq!(refused(world.rotate_key(&admin, "acme", &operator_key, overlap).await), gone);
    let (listed, _) = list(&world, &admin, "acme", PageRequest::default(), true).await;
    assert_eq!(listed, from_ref(&admin.credential_id));
    let (listed, _) = list(&world, &world.operator, "acme", PageRequest::default(), true).await;
    assert_eq!(listed, [operator_key, admin.credential_id]);
}

async fn keys_of_another_customer_do_not_exist(test: TestDb) {
    let world = World::new(test).await;
    let stranger = world.caller("other", "admin", "").await;
    let created = world.key(&world.operator, key("acme", "viewer")).await;
    let never = "key_01K9ZZZZZZZZZZZZZZZZZZZZZZ";
    for id in [id_of(&created), never] {
        let gone = (Code::NotFound, "API_KEY_NOT_FOUND".to_owned());
        let get = world.get_key(&stranger, "other", id).await.map(tonic::Response::new);
        assert_eq!(refused(get), gone);
        assert_eq!(refused(world.revoke_key(&stranger, "other", id).await), gone);
        let rotated = world.rotate_key(&stranger, "other", id, Duration::ZERO).await;
        assert_eq!(refused(rotated), gone);
    }
    let refusal = world.revoke_key(&stranger, "acme", id_of(&created)).await;
    assert_eq!(refused(refusal), (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned()));
    let (listed, _) = list(&world, &stranger, "other", PageRequest::default(), true).await;
    assert_eq!(listed, from_ref(&stranger.credential_id));

    // Nor does a key act for another customer's identity.
    let identity = world.identity("acme", "").await;
    for message in [
        gateway_key("other", &identity),
        pb::CreateApiKeyRequest { identity_id: identity.clone(), ..key("other", "viewer") },
    ] {
        let answer = world.api_keys.create_api_key(by(&stranger, message)).await;
        assert_eq!(refused(answer), (Code::NotFound, "IDENTITY_NOT_FOUND".to_owned()));
    }
    world.principal(&created.key).await;
}

async fn a_revoked_key_stays_visible(test: TestDb) {
    let world = World::new(test).await;
    let admin = world.caller("acme", "admin", "").await;
    let created = world.key(&admin, key("acme", "viewer")).await;
    let revoked = world.revoke_key(&admin, "acme", id_of(&created)).await.unwrap().into_inner();
    assert_eq!(revoked.state(), pb::ApiKeyState::Revoked);
    assert!(revoked.revoked_at.is_some());
    assert_eq!(world.get_key(&admin, "acme", id_of(&created)).await.unwrap(), revoked);
    // Again: the same answer, the same time.
    assert_eq!(world.revoke_key(&admin, "acme", id_of(&created)).await.unwrap().into_inner(), revoked);
    let secrets = query("SELECT COUNT(*) AS value FROM api_key_secrets WHERE api_key_id = $1")
        .bind(agentrouter_kernel::id::Id::<agentrouter_kernel::id::ApiKey>::parse(id_of(&created)).unwrap());
    assert_eq!(secrets.value::<i64>(&world.test.db).await.unwrap(), Some(0));

    let (listed, _) = list(&world, &admin, "acme", PageRequest::default(), false).await;
    assert_eq!(listed, from_ref(&admin.credential_id));
    let (listed, _) = list(&world, &admin, "acme", PageRequest::default(), true).await;
    assert_eq!(listed, [admin.credential_id.clone(), revoked.id.clone()]);
    let viewer = world.caller("acme", "viewer", "").await;
    let message =
        pb::ListApiKeysRequest { customer_id: "acme".to_owned(), show_deleted: true, ..Default::default() };
    let answer = world.api_keys.list_api_keys(by(&viewer, message)).await;
    assert_eq!(refused(answer), (Code::PermissionDenied, "ROLE_REQUIRED".to_owned()));
    let rotated = world.rotate_key(&admin, "acme", &revoked.id, Duration::ZERO).await;
    assert_eq!(refused(rotated), (Code::FailedPrecondition, "API_KEY_NOT_ACTIVE".to_owned()));
}

async fn the_last_operator_key_stays(test: TestDb) {
    let world = World::new(test).await;
    let bootstrap = world.operator.credential_id.clone();
    let last = (Code::FailedPrecondition, "LAST_OPERATOR_KEY".to_owned());
    assert_eq!(refused(world.revoke_key(&world.operator, "acme", &bootstrap).await), last);
    // One that is expired, or of an archived customer, does not count.
    let expires_at = Some(in_an_hour(world.test.db.now().await.unwrap()));
    let expiring = pb::CreateApiKeyRequest { expires_at, ..key("acme", "operator") };
    let expiring = world.key(&world.operator, expiring).await;
    world.test.db.advance_clock(Duration::from_hours(1));
    assert_eq!(refused(world.revoke_key(&world.operator, "acme", &bootstrap).await), last);
    // An expired one may go: it was no way in.
    world.revoke_key(&world.operator, "acme", id_of(&expiring)).await.unwrap();

    let next = world.key(&world.operator, key("other", "operator")).await;
    let next = world.principal(&next.key).await;
    world.revoke_key(&next, "acme", &bootstrap).await.unwrap();
    assert_eq!(refused(world.revoke_key(&next, "other", &next.credential_id).await), last);
    world.refuses("dev").await;
}

async fn two_calls_cannot_revoke_the_last_two_operator_keys(test: TestDb) {
    let world = World::new(test).await;
    let second = world.key(&world.operator, key("other", "operator")).await;
    let mut calls = JoinSet::new();
    for (customer, id) in
        [("acme", world.operator.credential_id.clone()), ("other", id_of(&second).to_owned())]
    {
        let (service, caller) = (world.api_keys.clone(), world.operator.clone());
        let message = pb::RevokeApiKeyRequest { customer_id: customer.to_owned(), api_key_id: id };
        calls.spawn(async move { service.revoke_api_key(by(&caller, message)).await.map(|_| ()) });
    }
    let outcomes = calls.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    let left = "SELECT COUNT(*) AS value FROM api_keys WHERE revoked_at IS NULL";
    assert_eq!(world.count(left).await, 1);
}

async fn a_repeated_creation_answers_with_the_same_key(test: TestDb) {
    let world = World::new(test).await;
    let create = async || {
        let mut call = call(&world.operator);
        call.idempotency_key = Some("once".to_owned());
        world.api_keys.create_api_key(request(call, key("acme", "viewer"))).await.unwrap().into_inner()
    };
    let first = create().await;
    assert_eq!(create().await, first);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM api_keys").await, 2);
    let stored: Vec<u8> = query("SELECT response AS value FROM idempotency_records")
        .value(&world.test.db)
        .await
        .unwrap()
        .unwrap();
    assert!(!stored.windows(20).any(|part| part == &first.key.as_bytes()[3..23]), "the answer is sealed");
}

async fn lists_filter_order_and_page(test: TestDb) {
    let world = World::new(test).await;
    let mut created = Vec::new();
    for (name, role) in [("b", "viewer"), ("a", "admin"), ("c", "viewer")] {
        let message = pb::CreateApiKeyRequest { display_name: name.to_owned(), ..key("other", role) };
        created.push(id_of(&world.key(&world.operator, message).await).to_owned());
    }
    let [b, a, c] = created.try_into().unwrap();
    let viewer = world.caller("other", "viewer", "").await;
    let own = viewer.credential_id.clone();
    let page = |filter: &str, order_by: &str| PageRequest {
        filter: filter.to_owned(),
        order_by: order_by.to_owned(),
        ..Default::default()
    };
    for (page, expected) in [
        (page("", ""), vec![&b, &a, &c, &own]),
        (page("", "role, display_name desc"), vec![&a, &c, &b, &own]),
        (page("role = viewer AND NOT display_name : key", "display_name"), vec![&b, &c]),
        (page("created_at > \"2000-01-01T00:00:00Z\" AND display_name = a", ""), vec![&a]),
    ] {
        let (listed, _) = list(&world, &viewer, "other", page.clone(), false).await;
        assert_eq!(listed.iter().collect::<Vec<_>>(), expected, "{page:?}");
    }
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = PageRequest { page_size: 3, page_token, ..page("", "display_name desc") };
        let (listed, next) = list(&world, &viewer, "other", page, false).await;
        seen.extend(listed);
        page_token = next.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, [c, b, own, a]);
    let wrong = pb::ListApiKeysRequest {
        customer_id: "other".to_owned(),
        page: Some(page("key_hash = x", "identity_id")),
        show_deleted: false,
    };
    let answer = world.api_keys.list_api_keys(by(&viewer, wrong)).await;
    assert_eq!(violations(answer), ["page.filter", "page.order_by"]);
}

async fn gateway_keys_reach_the_data_planes(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("acme", "").await;
    let version = async || {
        query("SELECT version AS value FROM liaison_configurations WHERE customer_id = $1 AND user_id = $2")
            .bind(world.acme)
            .bind(&identity)
            .value::<i64>(&world.test.db)
            .await
            .unwrap()
    };
    world
        .key(
            &world.operator,
            pb::CreateApiKeyRequest { identity_id: identity.clone(), ..key("acme", "admin") },
        )
        .await;
    assert_eq!(version().await, None, "management keys stay here");
    let created = world.key(&world.operator, gateway_key("acme", &identity)).await;
    assert!(created.key.starts_with("gk-"));
    let shown = created.api_key.clone().unwrap();
    assert_eq!((shown.kind(), shown.role.as_str()), (pb::ApiKeyKind::Gateway, ""));
    assert_eq!(shown.key_prefix, created.key[..11]);
    assert_eq!(version().await, Some(1));
    let overlap = Duration::from_hours(1);
    let rotated = world.rotate_key(&world.operator, "acme", &shown.id, overlap).await.unwrap().into_inner();
    assert!(rotated.key.starts_with("gk-"));
    assert_eq!(version().await, Some(2));
    world.revoke_key(&world.operator, "acme", &shown.id).await.unwrap();
    assert_eq!(version().await, Some(3));
    world.revoke_key(&world.operator, "acme", &shown.id).await.unwrap();
    assert_eq!(version().await, Some(3), "nothing changed");
    for token in [&created.key, &rotated.key] {
        world.refuses(token).await;
    }
}

async fn list(
    world: &World,
    caller: &Principal,
    customer: &str,
    page: PageRequest,
    show_deleted: bool,
) -> (Vec<String>, PageResponse) {
    let message = pb::ListApiKeysRequest { customer_id: customer.to_owned(), page: Some(page), show_deleted };
    let answer = world.api_keys.list_api_keys(by(caller, message)).await.unwrap().into_inner();
    (answer.api_keys.into_iter().map(|key| key.id).collect(), answer.page.unwrap())
}
