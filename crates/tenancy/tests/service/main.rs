//! TenancyService on both engines.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at what it did not expect")]

mod archive;
mod customers;
mod isolation;
mod lists;
mod purge;
mod writes;

use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::tenancy_service_server::TenancyService;
use agentrouter_kernel::id::{ApiKey, Customer, Id};
use agentrouter_kernel::{Principal, Timestamp};
use agentrouter_storage::query;
use agentrouter_tenancy::Tenancy;
use agentrouter_testkit::{TestDb, call, operator, request};
use tonic::Request;

/// An installation as its first start leaves it: the customer `default` with an operator key.
struct World {
    db: TestDb,
    tenancy: Tenancy,
    operator: Principal,
}

impl World {
    async fn new(db: TestDb) -> Self {
        let default = db.customer("default").await;
        insert_key(&db, default, Key::default()).await;
        Self { tenancy: Tenancy::new(db.deps()), operator: operator(default, "default"), db }
    }

    /// Creates a customer through the API.
    async fn create(&self, slug: &str) -> pb::Customer {
        let message = pb::CreateCustomerRequest { customer_id: slug.to_owned(), ..Default::default() };
        let answer = self.tenancy.create_customer(by(&self.operator, message)).await;
        answer.unwrap().into_inner()
    }

    async fn get(&self, name: &str) -> Result<tonic::Response<pb::Customer>, tonic::Status> {
        self.tenancy.get_customer(by(&self.operator, get(name))).await
    }

    /// Counts rows with a statement that names its only column `value`.
    async fn count(&self, sql: &'static str) -> i64 {
        query(sql).value(&self.db.db).await.unwrap().unwrap()
    }
}

fn by<T>(caller: &Principal, message: T) -> Request<T> {
    request(call(caller), message)
}

fn by_with_key<T>(caller: &Principal, key: &str, message: T) -> Request<T> {
    let mut call = call(caller);
    call.idempotency_key = Some(key.to_owned());
    request(call, message)
}

fn get(name: &str) -> pb::GetCustomerRequest {
    pb::GetCustomerRequest { customer_id: name.to_owned() }
}

fn archive(name: &str) -> pb::ArchiveCustomerRequest {
    pb::ArchiveCustomerRequest { customer_id: name.to_owned(), ..Default::default() }
}

fn undelete(name: &str) -> pb::UndeleteCustomerRequest {
    pb::UndeleteCustomerRequest { customer_id: name.to_owned() }
}

fn id_of(customer: &pb::Customer) -> Id<Customer> {
    Id::parse(&customer.id).unwrap()
}

/// An API key, an operator's where nothing else is said.
struct Key {
    kind: &'static str,
    role: &'static str,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl Default for Key {
    fn default() -> Self {
        Self { kind: "management", role: "operator", expires_at: None, revoked_at: None }
    }
}

async fn insert_key(db: &TestDb, customer: Id<Customer>, key: Key) {
    let mut tx = db.db.begin().await.unwrap();
    let now = tx.now().await.unwrap();
    query(
        "INSERT INTO api_keys (id, customer_id, display_name, kind, role, key_prefix, created_by, created_at, \
         expires_at, revoked_at) VALUES ($1, $2, '', $3, $4, '', '', $5, $6, $7)",
    )
    .bind(Id::<ApiKey>::new(now))
    .bind(customer)
    .bind(key.kind)
    .bind(key.role)
    .bind(now)
    .bind(key.expires_at)
    .bind(key.revoked_at)
    .execute(&mut tx)
    .await
    .unwrap();
    tx.commit_unaudited("test data").await.unwrap();
}
