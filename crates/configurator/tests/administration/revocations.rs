//! RevokeUserToken.

use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_api::configurator::{
    ConfigType, RevokeUserTokenRequest, RevokeUserTokenResponse, RevokedToken,
};
use agentrouter_delivery::Slot;
use agentrouter_kernel::id::{Id, Token};
use agentrouter_kernel::{Principal, Timestamp};
use agentrouter_storage::{query, row};
use agentrouter_testkit::{TestDb, call, on_both_engines, operator, refused, request, violations};
use tonic::{Code, Response, Status};

use crate::World;

on_both_engines!(
    a_gateway_token_is_revoked_everywhere,
    a_second_revocation_changes_nothing,
    an_expired_token_is_listed_no_more,
    an_unknown_expiry_is_kept_ten_years,
    workers_revoke_tokens_of_the_gateway_only,
    a_token_of_ours_ends,
    sessions_of_operators_are_for_operators,
    every_wrong_field_is_named,
    a_repeated_call_answers_the_same,
);

row! {
    #[derive(Debug)]
    struct Kept {
        jti: String,
        revoked_by: String,
        reason: String,
        revoked_at: Timestamp,
        expires_at: Timestamp,
    }
}

fn revocation(jti: &str) -> RevokeUserTokenRequest {
    RevokeUserTokenRequest { jti: jti.to_owned(), ..RevokeUserTokenRequest::default() }
}

impl World<'_> {
    async fn revoke(
        &self,
        caller: &Principal,
        message: RevokeUserTokenRequest,
    ) -> Result<Response<RevokeUserTokenResponse>, Status> {
        self.service.revoke_user_token(request(call(caller), message)).await
    }

    fn revoked_slot(&self) -> Slot {
        Slot::global(self.customer, ConfigType::RevokedTokens)
    }

    /// The list of the data planes, and its version.
    async fn revoked(&self) -> (i64, Vec<RevokedToken>) {
        let Some(configuration) = self.get(&self.worker, &self.revoked_slot()).await else {
            return (0, Vec::new());
        };
        match configuration.payload {
            Some(Payload::RevokedTokens(payload)) => (configuration.version, payload.tokens),
            other => panic!("{other:?}"),
        }
    }

    async fn kept(&self) -> Vec<Kept> {
        const KEPT: &str = "SELECT jti, revoked_by, reason, revoked_at, expires_at FROM revoked_tokens \
             WHERE customer_id = $1 ORDER BY jti";
        query(KEPT).bind(self.customer).all(&self.db.db).await.unwrap()
    }

    async fn now(&self) -> Timestamp {
        self.db.db.begin().await.unwrap().now().await.unwrap()
    }

    /// Issues a token, as the identity service does.
    async fn issued(&self, role: &str, expires_in: u64) -> Id<Token> {
        const INSERT: &str = "INSERT INTO tokens (id, customer_id, token_use, role, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6)";
        let mut tx = self.db.db.begin().await.unwrap();
        let now = tx.now().await.unwrap();
        let id = Id::<Token>::new(now);
        let token_use = if role.is_empty() { "workspace" } else { "session" };
        query(INSERT)
            .bind(id)
            .bind(self.customer)
            .bind(token_use)
            .bind(role)
            .bind(now)
            .bind(now.plus(std::time::Duration::from_secs(expires_in)))
            .execute(&mut tx)
            .await
            .unwrap();
        tx.commit_unaudited("test data").await.unwrap();
        id
    }

    async fn works(&self, id: Id<Token>) -> bool {
        const LIVE: &str =
            "SELECT CAST(COUNT(*) AS BIGINT) AS value FROM tokens WHERE id = $1 AND expires_at > :now";
        query(LIVE).bind(id).value::<i64>(&self.db.db).await.unwrap() == Some(1)
    }
}

fn on_the_wire(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_secs(), nanos: time.subsec_nanos() }
}

// Behaviour 45: a revoked JTI is in the list that every data plane converges on, in the transaction that revokes it.
async fn a_gateway_token_is_revoked_everywhere(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let globex = World::new(&db, "globex").await;
    let end = world.now().await.plus(std::time::Duration::from_hours(1));
    let message = RevokeUserTokenRequest {
        user_id: "ada".to_owned(),
        reason: "the key was deleted".to_owned(),
        expires_at: Some(on_the_wire(end)),
        ..revocation("jti-2")
    };
    let answer = world.revoke(&world.worker, message).await.unwrap().into_inner();
    assert!(answer.success);
    let kept = world.kept().await;
    let row = &kept[0];
    assert_eq!(
        (row.jti.as_str(), row.revoked_by.as_str(), row.reason.as_str(), row.expires_at),
        ("jti-2", "ada", "the key was deleted", end)
    );
    assert_eq!(answer.revoked_at, Some(on_the_wire(row.revoked_at)));
    let listed = RevokedToken { jti: "jti-2".to_owned(), expires_at: Some(on_the_wire(end)) };
    assert_eq!(world.revoked().await, (1, vec![listed]));
    for worker in [&world.worker, &world.sibling] {
        assert_eq!(world.pending(worker).await, [(ConfigType::RevokedTokens, 1)]);
    }
    // Ordered by jti, so that one more is one entry more.
    world.revoke(&world.admin, revocation("jti-1")).await.unwrap();
    let (version, tokens) = world.revoked().await;
    let names: Vec<_> = tokens.iter().map(|token| token.jti.as_str()).collect();
    assert_eq!((version, names), (2, vec!["jti-1", "jti-2"]));
    assert_eq!(world.kept().await[0].revoked_by, world.admin.credential_id);
    assert_eq!((globex.revoked().await.0, globex.kept().await.len()), (0, 0));
    assert_eq!(world.audited().await, 2);
}

async fn a_second_revocation_changes_nothing(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let first = world.revoke(&world.worker, revocation("jti-1")).await.unwrap().into_inner();
    db.db.advance_clock(std::time::Duration::from_mins(1));
    let message =
        RevokeUserTokenRequest { expires_at: Some(on_the_wire(world.now().await)), ..revocation("jti-1") };
    for again in [message, revocation("jti-1")] {
        assert_eq!(world.revoke(&world.worker, again).await.unwrap().into_inner(), first);
    }
    assert_eq!((world.revoked().await.0, world.kept().await.len()), (1, 1));
}

// Behaviour 45: entries go when their token expires.
async fn an_expired_token_is_listed_no_more(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let end = world.now().await.plus(std::time::Duration::from_mins(1));
    let message = RevokeUserTokenRequest { expires_at: Some(on_the_wire(end)), ..revocation("jti-1") };
    world.revoke(&world.worker, message.clone()).await.unwrap();
    db.db.advance_clock(std::time::Duration::from_secs(61));
    world.revoke(&world.worker, revocation("jti-2")).await.unwrap();
    let (version, tokens) = world.revoked().await;
    assert_eq!((version, tokens.len(), tokens[0].jti.as_str()), (2, 1, "jti-2"));
    // Revoking what has expired is no error and no news.
    let expired = RevokeUserTokenRequest { jti: "jti-3".to_owned(), ..message };
    assert!(world.revoke(&world.worker, expired).await.unwrap().into_inner().success);
    assert_eq!(world.revoked().await.0, 2);
}

async fn an_unknown_expiry_is_kept_ten_years(db: TestDb) {
    let world = World::new(&db, "acme").await;
    world.revoke(&world.worker, revocation("jti-1")).await.unwrap();
    let far = prost_types::Timestamp { seconds: 253_402_300_799, nanos: 0 };
    let message = RevokeUserTokenRequest { expires_at: Some(far), ..revocation("jti-2") };
    world.revoke(&world.worker, message).await.unwrap();
    let days: Vec<_> = world
        .kept()
        .await
        .iter()
        .map(|kept| kept.expires_at.since(kept.revoked_at).as_secs() / 86_400)
        .collect();
    assert_eq!(days, [3650, 3650]);
}

async fn workers_revoke_tokens_of_the_gateway_only(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let token = world.issued("viewer", 3600).await;
    let missing = Id::<Token>::new(Timestamp::from_secs(0));
    for jti in [token.to_string(), token.to_string().to_lowercase(), missing.to_string()] {
        let refusal = refused(world.revoke(&world.worker, revocation(&jti)).await);
        assert_eq!(refusal, (Code::PermissionDenied, "GATEWAY_TOKEN_REQUIRED".to_owned()), "{jti}");
    }
    assert!(world.works(token).await);
    assert_eq!((world.kept().await.len(), world.revoked().await.0), (0, 0));
}

async fn a_token_of_ours_ends(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let globex = World::new(&db, "globex").await;
    for role in ["viewer", ""] {
        let token = world.issued(role, 3600).await;
        let refusal = refused(globex.revoke(&globex.admin, revocation(&token.to_string())).await);
        assert_eq!(refusal, (Code::NotFound, "TOKEN_NOT_FOUND".to_owned()));
        assert!(world.works(token).await);
        // The expiry is that of the token, whatever the request says.
        let message = RevokeUserTokenRequest {
            expires_at: Some(on_the_wire(Timestamp::from_secs(1))),
            ..revocation(&token.to_string().to_lowercase())
        };
        let answer = world.revoke(&world.admin, message).await.unwrap().into_inner();
        assert!(answer.success && !world.works(token).await);
        let kept = world.kept().await;
        let kept = kept.iter().find(|kept| kept.jti == token.to_string()).unwrap();
        assert_eq!(kept.expires_at.since(kept.revoked_at).as_secs().div_ceil(60), 60);
    }
    assert_eq!(world.revoked().await.1.len(), 2);
    assert_eq!(globex.kept().await.len(), 0);
}

async fn sessions_of_operators_are_for_operators(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let token = world.issued("operator", 3600).await;
    let refusal = refused(world.revoke(&world.admin, revocation(&token.to_string())).await);
    assert_eq!(refusal, (Code::NotFound, "TOKEN_NOT_FOUND".to_owned()));
    assert!(world.works(token).await);
    world.revoke(&operator(world.customer, "acme"), revocation(&token.to_string())).await.unwrap();
    assert!(!world.works(token).await);
}

async fn every_wrong_field_is_named(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let wrong = RevokeUserTokenRequest {
        jti: String::new(),
        user_id: "u".repeat(256),
        reason: "r".repeat(1025),
        expires_at: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
    };
    assert_eq!(
        violations(world.revoke(&world.admin, wrong).await),
        ["jti", "user_id", "reason", "expires_at"]
    );
    assert_eq!(violations(world.revoke(&world.admin, revocation(&"j".repeat(256))).await), ["jti"]);
}

async fn a_repeated_call_answers_the_same(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let mut context = call(&world.worker);
    context.idempotency_key = Some("once".to_owned());
    let first = world.service.revoke_user_token(request(context.clone(), revocation("jti"))).await.unwrap();
    let second = world.service.revoke_user_token(request(context, revocation("jti"))).await.unwrap();
    assert_eq!(first.into_inner(), second.into_inner());
    assert_eq!(world.audited().await, 1);
}
