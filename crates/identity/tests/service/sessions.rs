//! SessionsService.

use std::slice::from_ref;
use std::time::Duration;

use agentrouter_api::common::PageRequest;
use agentrouter_api::identity as pb;
use agentrouter_api::identity::sessions_service_server::SessionsService;
use agentrouter_kernel::id::Id;
use agentrouter_kernel::{CredentialKind, Principal, Role};
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request, session, violations, workspace};
use tonic::{Code, Response, Status};

use crate::{World, by, id_of, in_an_hour, key};

on_both_engines!(
    a_key_is_exchanged_for_a_session,
    the_role_is_never_above_the_callers,
    an_identity_is_needed_and_only_admins_choose_it,
    the_lifetime_is_bounded_by_the_request_and_the_key,
    a_session_ends_with_its_key,
    sessions_and_strangers_make_no_sessions,
    lists_show_live_sessions_to_whom_they_concern,
    revoking_follows_the_same_rules,
    an_operator_signs_in_to_another_customer,
    callers_are_told_who_they_are,
);

const HOUR: Duration = Duration::from_hours(1);

async fn create(
    world: &World,
    caller: &Principal,
    message: pb::CreateSessionRequest,
) -> Result<Response<pb::CreateSessionResponse>, Status> {
    world.sessions.create_session(by(caller, message)).await
}

fn asking(identity: &str, role: &str) -> pb::CreateSessionRequest {
    pb::CreateSessionRequest { identity_id: identity.to_owned(), role: role.to_owned(), ..Default::default() }
}

async fn listed(world: &World, caller: &Principal) -> Vec<String> {
    let message = pb::ListSessionsRequest { page: None };
    let answer = world.sessions.list_sessions(by(caller, message)).await.unwrap().into_inner();
    answer.sessions.into_iter().map(|session| session.id).collect()
}

async fn a_key_is_exchanged_for_a_session(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("other", "ada@example.com").await;
    let caller = world.caller("other", "admin", &identity).await;
    let answer = create(&world, &caller, pb::CreateSessionRequest::default()).await.unwrap().into_inner();
    let shown = answer.session.unwrap();
    assert_eq!(
        shown,
        pb::Session {
            id: shown.id.clone(),
            customer_id: "other".to_owned(),
            identity_id: identity.clone(),
            role: "admin".to_owned(),
            created_at: shown.created_at,
            expires_at: shown.expires_at,
        }
    );
    assert_eq!(shown.expires_at.unwrap().seconds - shown.created_at.unwrap().seconds, 3600);
    let principal = world.principal(&answer.token).await;
    assert_eq!(
        principal,
        Principal {
            credential: CredentialKind::Session,
            credential_id: shown.id.clone(),
            secret: None,
            customer: world.other,
            customer_slug: "other".to_owned(),
            role: Some(Role::Admin),
            identity: Id::parse(&identity),
            workspace: None,
            expires_at: principal.expires_at,
        }
    );
    assert_eq!(principal.expires_at.map(agentrouter_rpc::convert::timestamp), shown.expires_at);
    assert_eq!(world.principal(&format!("ak-ak-{}", answer.token)).await, principal);
    world.authenticator.forget();
    world.test.db.advance_clock(HOUR);
    world.refuses(&answer.token).await;
}

async fn the_role_is_never_above_the_callers(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("acme", "").await;
    let admin = world.caller("acme", "admin", &identity).await;
    let viewer = world.caller("acme", "viewer", &identity).await;
    for (caller, role, expected) in [
        (&admin, "", Some(Some(Role::Admin))),
        (&admin, "admin", Some(Some(Role::Admin))),
        (&admin, "viewer", Some(Some(Role::Viewer))),
        (&admin, "member", Some(None)),
        (&admin, "operator", None),
        (&viewer, "", Some(Some(Role::Viewer))),
        (&viewer, "member", Some(None)),
        (&viewer, "admin", None),
    ] {
        let answer = create(&world, caller, asking("", role)).await;
        let Some(expected) = expected else {
            let denied = (Code::PermissionDenied, "ROLE_ABOVE_CALLER".to_owned());
            assert_eq!(refused(answer), denied, "{role}");
            continue;
        };
        let answer = answer.unwrap().into_inner();
        assert_eq!(world.principal(&answer.token).await.role, expected, "{role}");
        assert_eq!(answer.session.unwrap().role, expected.map_or("", Role::as_str));
    }
    let operator = create(&world, &world.operator, asking(&identity, "operator")).await.unwrap();
    assert!(world.principal(&operator.into_inner().token).await.is_operator());
    let wrong = pb::CreateSessionRequest {
        ttl: Some(prost_types::Duration { seconds: 59, nanos: 0 }),
        ..asking("ada", "owner")
    };
    assert_eq!(violations(create(&world, &admin, wrong).await), ["identity_id", "role", "ttl"]);
}

async fn an_identity_is_needed_and_only_admins_choose_it(test: TestDb) {
    let world = World::new(test).await;
    let (ada, bob) = (world.identity("acme", "a@b").await, world.identity("acme", "b@b").await);
    let stranger = world.identity("other", "").await;
    let nobody = world.caller("acme", "admin", "").await;
    let viewer = world.caller("acme", "viewer", &ada).await;
    let answer = create(&world, &nobody, asking("", "")).await;
    assert_eq!(refused(answer), (Code::InvalidArgument, "IDENTITY_REQUIRED".to_owned()));
    let chosen = create(&world, &nobody, asking(&bob, "")).await.unwrap().into_inner();
    assert_eq!(world.principal(&chosen.token).await.identity, Id::parse(&bob));
    create(&world, &viewer, asking(&ada, "")).await.unwrap();
    let answer = create(&world, &viewer, asking(&bob, "")).await;
    assert_eq!(refused(answer), (Code::PermissionDenied, "ROLE_REQUIRED".to_owned()));
    for missing in [stranger.as_str(), "id_01K9ZZZZZZZZZZZZZZZZZZZZZZ"] {
        let answer = create(&world, &nobody, asking(missing, "")).await;
        assert_eq!(refused(answer), (Code::NotFound, "IDENTITY_NOT_FOUND".to_owned()));
    }
}

async fn the_lifetime_is_bounded_by_the_request_and_the_key(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("acme", "").await;
    let admin = world.caller("acme", "admin", &identity).await;
    let lasting = |seconds| pb::CreateSessionRequest {
        ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..asking("", "")
    };
    for (seconds, allowed) in
        [(59, false), (60, true), (12 * 3600, true), (12 * 3600 + 1, false), (-1, false)]
    {
        let answer = create(&world, &admin, lasting(seconds)).await;
        if allowed {
            let session = answer.unwrap().into_inner().session.unwrap();
            assert_eq!(session.expires_at.unwrap().seconds - session.created_at.unwrap().seconds, seconds);
        } else {
            assert_eq!(violations(answer), ["ttl"], "{seconds}");
        }
    }
    let expires_at = in_an_hour(world.test.db.now().await.unwrap());
    let message = pb::CreateApiKeyRequest {
        identity_id: identity,
        expires_at: Some(expires_at),
        ..key("acme", "viewer")
    };
    let expiring = world.principal(&world.key(&world.operator, message).await.key).await;
    let answer = create(&world, &expiring, lasting(7200)).await.unwrap().into_inner();
    assert_eq!(answer.session.unwrap().expires_at.unwrap().seconds, expires_at.seconds);
}

async fn a_session_ends_with_its_key(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("acme", "").await;
    let created = world.key(&world.operator, key("acme", "admin")).await;
    let caller = world.principal(&created.key).await;
    let session = world.session(&caller, &identity, "").await;
    let other = world.session(&world.caller("acme", "admin", "").await, &identity, "").await;
    let reader = world.caller("acme", "viewer", "").await;
    let ids = [&session, &other].map(|answer| answer.session.clone().unwrap().id);
    assert_eq!(listed(&world, &reader).await, ids);
    world.principal(&session.token).await;
    world.revoke_key(&world.operator, "acme", id_of(&created)).await.unwrap();
    world.refuses(&session.token).await;
    world.principal(&other.token).await;
    assert_eq!(listed(&world, &reader).await, ids[1..]);
}

async fn sessions_and_strangers_make_no_sessions(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("acme", "").await;
    let token = world.session(&world.caller("acme", "admin", &identity).await, "", "").await.token;
    let session = world.principal(&token).await;
    let answer = create(&world, &session, asking("", "")).await;
    assert_eq!(refused(answer), (Code::PermissionDenied, "API_KEY_REQUIRED".to_owned()));

    // The method is open to anyone, so nothing stands before it.
    let anonymous = |message| {
        let mut call = call(&world.operator);
        call.caller = None;
        request(call, message)
    };
    let answer = world.sessions.create_session(anonymous(asking("", ""))).await;
    assert_eq!(refused(answer), (Code::Unauthenticated, "UNAUTHENTICATED".to_owned()));
    let oidc = pb::CreateSessionRequest { oidc_token: "eyJ.eyJ.x".to_owned(), ..Default::default() };
    let answer = world.sessions.create_session(anonymous(oidc)).await;
    assert_eq!(refused(answer), (Code::Unauthenticated, "OIDC_TOKEN_INVALID".to_owned()));
}

/// Sessions of two identities, one of an operator and one of another customer; and their callers.
struct Crowd {
    ada: String,
    viewer: String,
    member: String,
    bob: String,
    operator: String,
    stranger: String,
}

impl Crowd {
    async fn new(world: &World) -> Self {
        let (ada, bob) = (world.identity("acme", "a@b").await, world.identity("acme", "b@b").await);
        let admin = world.caller("acme", "admin", "").await;
        let (other, stranger) = (world.identity("other", "").await, world.caller("other", "admin", "").await);
        let id = async |caller: &Principal, identity: &str, role: &str| {
            world.session(caller, identity, role).await.session.unwrap().id
        };
        Self {
            viewer: id(&admin, &ada, "viewer").await,
            member: id(&admin, &ada, "member").await,
            bob: id(&admin, &bob, "admin").await,
            operator: id(&world.operator, &bob, "operator").await,
            stranger: id(&stranger, &other, "").await,
            ada,
        }
    }
}

async fn lists_show_live_sessions_to_whom_they_concern(test: TestDb) {
    let world = World::new(test).await;
    let crowd = Crowd::new(&world).await;
    let ada = Id::parse(&crowd.ada).unwrap();
    let member = session(world.acme, "acme", ada, None);
    let viewer = session(world.acme, "acme", ada, Some(Role::Viewer));
    let Crowd { viewer: first, member: second, bob: third, operator: fourth, stranger, .. } = &crowd;
    assert_eq!(listed(&world, &member).await, [first.clone(), second.clone()]);
    assert_eq!(listed(&world, &viewer).await, [first.clone(), second.clone(), third.clone()]);
    let all = [first.clone(), second.clone(), third.clone(), fourth.clone()];
    assert_eq!(listed(&world, &world.operator).await, all);
    assert_eq!(listed(&world, &world.caller("other", "viewer", "").await).await, from_ref(stranger));

    let page = |page_size, page_token, filter: &str| pb::ListSessionsRequest {
        page: Some(PageRequest { page_size, page_token, filter: filter.to_owned(), order_by: String::new() }),
    };
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let message = page(3, token, "");
        let answer = world.sessions.list_sessions(by(&world.operator, message)).await.unwrap().into_inner();
        seen.extend(answer.sessions.into_iter().map(|session| session.id));
        token = answer.page.unwrap().next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, all);
    let answer = world.sessions.list_sessions(by(&world.operator, page(3, String::new(), "role = x"))).await;
    assert_eq!(violations(answer), ["page.filter"]);
    world.test.db.advance_clock(HOUR);
    assert_eq!(listed(&world, &world.operator).await, Vec::<String>::new());
}

async fn revoking_follows_the_same_rules(test: TestDb) {
    let world = World::new(test).await;
    let crowd = Crowd::new(&world).await;
    let ada = Id::parse(&crowd.ada).unwrap();
    let member = session(world.acme, "acme", ada, None);
    let viewer = session(world.acme, "acme", ada, Some(Role::Viewer));
    let admin = world.caller("acme", "admin", "").await;
    let gone = || (Code::NotFound, "SESSION_NOT_FOUND".to_owned());
    let denied = |reason: &str| (Code::PermissionDenied, reason.to_owned());
    let never = "tok_01K9ZZZZZZZZZZZZZZZZZZZZZZ";
    for (caller, session, expected) in [
        (&member, &crowd.bob, gone()),
        (&member, &crowd.viewer, denied("ROLE_ABOVE_CALLER")),
        (&viewer, &crowd.bob, denied("ROLE_REQUIRED")),
        (&viewer, &crowd.operator, gone()),
        (&admin, &crowd.operator, gone()),
        (&admin, &crowd.stranger, gone()),
        (&world.operator, &crowd.stranger, gone()),
        (&world.operator, &never.to_owned(), gone()),
    ] {
        assert_eq!(refused(world.revoke_session(caller, session).await), expected, "{session}");
    }
    assert_eq!(violations(world.revoke_session(&admin, "session-1").await), ["session_id"]);
    assert_eq!(listed(&world, &world.operator).await.len(), 4);

    for (caller, session) in [
        (&member, &crowd.member),
        (&viewer, &crowd.viewer),
        (&admin, &crowd.bob),
        (&world.operator, &crowd.operator),
    ] {
        world.revoke_session(caller, session).await.unwrap();
        assert_eq!(refused(world.revoke_session(caller, session).await), gone());
    }
    assert_eq!(listed(&world, &world.operator).await, Vec::<String>::new());
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM revoked_tokens").await, 4);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM tokens").await, 5, "the rows stay");
}

async fn an_operator_signs_in_to_another_customer(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("other", "").await;
    let mut in_other = call(&world.operator);
    in_other.customer_header = Some("other".to_owned());
    let answer = world
        .sessions
        .create_session(request(in_other.clone(), asking(&identity, "admin")))
        .await
        .unwrap()
        .into_inner();
    let principal = world.principal(&answer.token).await;
    assert_eq!((principal.customer, principal.role), (world.other, Some(Role::Admin)));
    let id = answer.session.unwrap().id;
    assert_eq!(listed(&world, &world.operator).await, Vec::<String>::new());
    let message = pb::RevokeSessionRequest { session_id: id };
    world.sessions.revoke_session(request(in_other, message)).await.unwrap();
    world.refuses(&answer.token).await;
}

async fn callers_are_told_who_they_are(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("acme", "").await;
    let who = async |caller: &Principal| {
        world.sessions.who_am_i(by(caller, pb::WhoAmIRequest {})).await.unwrap().into_inner()
    };
    assert_eq!(
        who(&world.operator).await,
        pb::WhoAmIResponse {
            credential: "api_key".to_owned(),
            credential_id: world.operator.credential_id.clone(),
            customer_id: "acme".to_owned(),
            role: "operator".to_owned(),
            ..Default::default()
        }
    );
    let created = world.session(&world.caller("acme", "admin", &identity).await, "", "member").await;
    let session = created.session.unwrap();
    assert_eq!(
        who(&world.principal(&created.token).await).await,
        pb::WhoAmIResponse {
            credential: "session".to_owned(),
            credential_id: session.id,
            customer_id: "acme".to_owned(),
            identity_id: identity,
            expires_at: session.expires_at,
            ..Default::default()
        }
    );
    let id = world.test.workspace(world.acme, "edge").await;
    let caller = workspace(world.acme, "acme", id, "edge");
    assert_eq!(
        who(&caller).await,
        pb::WhoAmIResponse {
            credential: "workspace".to_owned(),
            credential_id: caller.credential_id.clone(),
            customer_id: "acme".to_owned(),
            workspace_id: "edge".to_owned(),
            ..Default::default()
        }
    );
}
