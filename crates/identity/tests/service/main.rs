//! Identities, keys, sessions and authentication, on both engines.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at what it did not expect")]

mod api_keys;
mod authentication;
mod bootstrap;
mod delete_identity;
mod deliveries;
mod forgery;
mod identities;
mod rotation;
mod secrets;
mod sessions;
mod signing;
mod streams;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::identity as pb;
use agentrouter_api::identity::api_keys_service_server::ApiKeysService;
use agentrouter_api::identity::identities_service_server::IdentitiesService;
use agentrouter_api::identity::sessions_service_server::SessionsService;
use agentrouter_identity::{
    ApiKeys, Authenticator, Identities, KeyUsage, Sessions, SigningKeys, bootstrap_key,
};
use agentrouter_kernel::id::{Customer, Id};
use agentrouter_kernel::{Fault, FaultKind, Principal};
use agentrouter_rpc::Authenticate;
use agentrouter_storage::{Db, query};
use agentrouter_testkit::{TestDb, call, request};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status};

/// The key that the first start of [`World`] is given.
const BOOTSTRAP: &str = "dev";

/// An installation with the customers `acme`, which has the bootstrap key, and `other`.
struct World {
    test: TestDb,
    acme: Id<Customer>,
    other: Id<Customer>,
    operator: Principal,
    authenticator: Arc<Authenticator>,
    signing: Arc<SigningKeys>,
    usage: KeyUsage,
    identities: Identities,
    api_keys: ApiKeys,
    sessions: Sessions,
}

impl World {
    async fn new(test: TestDb) -> Self {
        let (acme, other) = (test.customer("acme").await, test.customer("other").await);
        let mut tx = test.db.begin().await.unwrap();
        let given = agentrouter_envelope::Secret::new(BOOTSTRAP);
        assert!(bootstrap_key(&mut tx, acme, Some(&given)).await.unwrap().is_none());
        tx.commit_unaudited("test data").await.unwrap();

        let deps = test.deps();
        let (authenticator, signing, usage) = authenticator(&test, &test.db).await;
        let operator = authenticator.authenticate(BOOTSTRAP).await.unwrap();
        Self {
            identities: Identities::new(deps.clone(), Arc::clone(&authenticator)),
            api_keys: ApiKeys::new(deps.clone(), Arc::clone(&authenticator)),
            sessions: Sessions::new(deps, Arc::clone(&authenticator)),
            test,
            acme,
            other,
            operator,
            authenticator,
            signing,
            usage,
        }
    }

    /// Who a bearer token belongs to.
    async fn principal(&self, token: &str) -> Principal {
        authenticate(&self.authenticator, token).await.unwrap()
    }

    /// Asserts that a token is refused as any wrong credential is.
    #[track_caller]
    fn refuses(&self, token: &str) -> impl Future<Output = ()> {
        refuses(&self.authenticator, token)
    }

    async fn key(&self, caller: &Principal, message: pb::CreateApiKeyRequest) -> pb::CreateApiKeyResponse {
        self.api_keys.create_api_key(by(caller, message)).await.unwrap().into_inner()
    }

    /// Creates a management key of a customer, and returns who calls with it.
    async fn caller(&self, customer: &str, role: &str, identity: &str) -> Principal {
        let message = pb::CreateApiKeyRequest { identity_id: identity.to_owned(), ..key(customer, role) };
        self.principal(&self.key(&self.operator, message).await.key).await
    }

    async fn get_key(&self, caller: &Principal, customer: &str, id: &str) -> Result<pb::ApiKey, Status> {
        let message = pb::GetApiKeyRequest { customer_id: customer.to_owned(), api_key_id: id.to_owned() };
        self.api_keys.get_api_key(by(caller, message)).await.map(Response::into_inner)
    }

    async fn revoke_key(
        &self,
        caller: &Principal,
        customer: &str,
        id: &str,
    ) -> Result<Response<pb::ApiKey>, Status> {
        let message = pb::RevokeApiKeyRequest { customer_id: customer.to_owned(), api_key_id: id.to_owned() };
        self.api_keys.revoke_api_key(by(caller, message)).await
    }

    async fn rotate_key(
        &self,
        caller: &Principal,
        customer: &str,
        id: &str,
        overlap: Duration,
    ) -> Result<Response<pb::RotateApiKeyResponse>, Status> {
        let message = pb::RotateApiKeyRequest {
            customer_id: customer.to_owned(),
            api_key_id: id.to_owned(),
            overlap: Some(overlap.try_into().unwrap()),
        };
        self.api_keys.rotate_api_key(by(caller, message)).await
    }

    /// Creates an identity and returns its row id.
    async fn identity(&self, customer: &str, email: &str) -> String {
        let message = pb::CreateIdentityRequest {
            customer_id: customer.to_owned(),
            email: email.to_owned(),
            ..Default::default()
        };
        self.identities.create_identity(by(&self.operator, message)).await.unwrap().into_inner().id
    }

    /// Creates a session of an identity with somebody's key.
    async fn session(&self, caller: &Principal, identity: &str, role: &str) -> pb::CreateSessionResponse {
        let message = pb::CreateSessionRequest {
            identity_id: identity.to_owned(),
            role: role.to_owned(),
            ..Default::default()
        };
        self.sessions.create_session(by(caller, message)).await.unwrap().into_inner()
    }

    async fn revoke_session(
        &self,
        caller: &Principal,
        id: &str,
    ) -> Result<Response<pb::RevokeSessionResponse>, Status> {
        let message = pb::RevokeSessionRequest { session_id: id.to_owned() };
        self.sessions.revoke_session(by(caller, message)).await
    }

    /// Counts rows with a statement that names its only column `value`.
    async fn count(&self, sql: &'static str) -> i64 {
        query(sql).value(&self.test.db).await.unwrap().unwrap()
    }
}

/// An authenticator as another process has it.
async fn authenticator(test: &TestDb, db: &Db) -> (Arc<Authenticator>, Arc<SigningKeys>, KeyUsage) {
    let signing = Arc::new(SigningKeys::load_or_create(db, &test.deps().keyring).await.unwrap());
    let (authenticator, usage) = Authenticator::new(db.clone(), Arc::clone(&signing));
    (Arc::new(authenticator), signing, usage)
}

/// Starts eight replicas at once, each with connections of its own, and returns what each came to.
async fn start_together<T, F>(test: &TestDb, start: impl Fn(Db) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    const REPLICAS: usize = 8;
    let barrier = Arc::new(Barrier::new(REPLICAS));
    let mut starts = JoinSet::new();
    for _ in 0..REPLICAS {
        let (barrier, started) = (Arc::clone(&barrier), start(test.reopen().await));
        starts.spawn(async move {
            barrier.wait().await;
            started.await
        });
    }
    starts.join_all().await
}

/// Asks as the enforcement layer does, which takes off up to two prefixes.
async fn authenticate(authenticator: &Authenticator, token: &str) -> Result<Principal, Fault> {
    let once = token.strip_prefix("ak-").unwrap_or(token);
    authenticator.authenticate(once.strip_prefix("ak-").unwrap_or(once)).await
}

#[track_caller]
fn refuses(authenticator: &Authenticator, token: &str) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        match authenticate(authenticator, token).await {
            Ok(principal) => panic!("{place}: {token} was accepted for {principal:?}"),
            Err(fault) => {
                assert_eq!(fault.kind(), FaultKind::Unauthenticated, "{place}: {fault:?}");
                assert_eq!(fault.message(), agentrouter_rpc::call::unauthenticated().message(), "{place}");
            }
        }
    }
}

/// A request for a management key.
fn key(customer: &str, role: &str) -> pb::CreateApiKeyRequest {
    pb::CreateApiKeyRequest {
        customer_id: customer.to_owned(),
        display_name: "a key".to_owned(),
        role: role.to_owned(),
        ..Default::default()
    }
}

/// A request for a gateway key.
fn gateway_key(customer: &str, identity: &str) -> pb::CreateApiKeyRequest {
    pb::CreateApiKeyRequest {
        kind: pb::ApiKeyKind::Gateway.into(),
        identity_id: identity.to_owned(),
        ..key(customer, "")
    }
}

fn by<T>(caller: &Principal, message: T) -> Request<T> {
    request(call(caller), message)
}

fn id_of(created: &pb::CreateApiKeyResponse) -> &str {
    &created.api_key.as_ref().unwrap().id
}

/// An hour, as the API has it.
fn in_an_hour(now: agentrouter_kernel::Timestamp) -> prost_types::Timestamp {
    agentrouter_rpc::convert::timestamp(now.plus(Duration::from_hours(1)))
}
