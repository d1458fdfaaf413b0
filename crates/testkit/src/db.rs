//! A migrated database per test.

use std::sync::Arc;

use agentrouter_envelope::{Kek, Keyring};
use agentrouter_kernel::id::{Customer, Id, Identity, Project, Workspace};
use agentrouter_kernel::page::PageKey;
use agentrouter_kernel::{SystemClock, Timestamp};
use agentrouter_rpc::Deps;
use agentrouter_storage::{Db, Limits, Target, query};
use sqlx::Connection;

/// A migrated, empty database of its own.
#[derive(Debug)]
pub struct TestDb {
    /// The database.
    pub db: Db,
    /// How to reach it again, as from a second process.
    pub target: Target,
    _folder: Option<tempfile::TempDir>,
}

/// A new SQLite database in a temporary folder.
pub async fn sqlite() -> TestDb {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = Target::Sqlite(folder.path().join("test.db"));
    TestDb::open(target, Some(folder)).await
}

/// A new schema in the PostgreSQL database of the test run.
pub async fn postgres() -> TestDb {
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration to read it from")]
    let url = std::env::var("AGENTROUTER_TEST_POSTGRES_URL")
        .expect("AGENTROUTER_TEST_POSTGRES_URL is not set; run the tests with `cargo xtask test`");
    let schema = format!("t_{}", Id::<Customer>::new(Timestamp::from_micros(0)).uuid().simple());
    let mut connection = sqlx::PgConnection::connect(&url).await.expect("PostgreSQL answers");
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}")))
        .execute(&mut connection)
        .await
        .expect("a schema for the test");
    connection.close().await.expect("the connection closes");
    let separator = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{separator}options=-c%20search_path%3D{schema}");
    TestDb::open(Target::Postgres(url), None).await
}

impl TestDb {
    async fn open(target: Target, folder: Option<tempfile::TempDir>) -> Self {
        let db = connect(&target).await;
        db.migrate().await.expect("migrations apply");
        Self { db, target, _folder: folder }
    }

    /// A second handle to the same database, with pools of its own.
    pub async fn reopen(&self) -> Db {
        connect(&self.target).await
    }

    /// What services are made from, with fixed keys.
    pub fn deps(&self) -> Deps {
        let kek = Kek::new("test", &[1; 32]).expect("a valid key");
        Deps {
            db: self.db.clone(),
            keyring: Arc::new(Keyring::new(vec![kek]).expect("a valid ring")),
            page_key: Arc::new(PageKey::new(&[2; 32])),
        }
    }

    /// Inserts a live customer with this slug.
    pub async fn customer(&self, slug: &str) -> Id<Customer> {
        let mut tx = self.db.begin().await.expect("a transaction");
        let now = tx.now().await.expect("the time");
        let id = Id::<Customer>::new(now);
        query("INSERT INTO customers (id, slug, display_name, description, labels, revision, created_at, updated_at) VALUES ($1, $2, $2, '', '{}', 1, $3, $3)")
            .bind(id).bind(slug).bind(now).execute(&mut tx).await.expect("a customer");
        query("INSERT INTO customer_sequences (customer_id, head) VALUES ($1, 0)")
            .bind(id)
            .execute(&mut tx)
            .await
            .expect("its sequence");
        tx.commit_unaudited("test data").await.expect("a commit");
        id
    }

    /// Inserts a project of a customer.
    pub async fn project(&self, customer: Id<Customer>, slug: &str, is_default: bool) -> Id<Project> {
        let mut tx = self.db.begin().await.expect("a transaction");
        let now = tx.now().await.expect("the time");
        let id = Id::<Project>::new(now);
        query("INSERT INTO projects (id, customer_id, slug, display_name, description, labels, is_default, revision, created_at, updated_at) VALUES ($1, $2, $3, $3, '', '{}', $4, 1, $5, $5)")
            .bind(id).bind(customer).bind(slug).bind(is_default).bind(now).execute(&mut tx).await.expect("a project");
        tx.commit_unaudited("test data").await.expect("a commit");
        id
    }

    /// Inserts an identity of a customer.
    pub async fn identity(&self, customer: Id<Customer>, display_name: &str) -> Id<Identity> {
        let mut tx = self.db.begin().await.expect("a transaction");
        let now = tx.now().await.expect("the time");
        let id = Id::<Identity>::new(now);
        query("INSERT INTO identities (id, customer_id, display_name, email, kind, revision, created_at, updated_at) VALUES ($1, $2, $3, '', 'person', 1, $4, $4)")
            .bind(id).bind(customer).bind(display_name).bind(now).execute(&mut tx).await.expect("an identity");
        tx.commit_unaudited("test data").await.expect("a commit");
        id
    }

    /// Inserts a live workspace of a customer.
    pub async fn workspace(&self, customer: Id<Customer>, slug: &str) -> Id<Workspace> {
        let mut tx = self.db.begin().await.expect("a transaction");
        let now = tx.now().await.expect("the time");
        let id = Id::<Workspace>::new(now);
        query("INSERT INTO workspaces (id, customer_id, slug, number, display_name, labels, revision, created_at, updated_at) \
               VALUES ($1, $2, $3, (SELECT COALESCE(MAX(number), 0) + 1 FROM workspaces), $3, '{}', 1, $4, $4)")
            .bind(id).bind(customer).bind(slug).bind(now).execute(&mut tx).await.expect("a workspace");
        query("INSERT INTO workspace_sync (workspace_id, customer_id, position) VALUES ($1, $2, 0)")
            .bind(id)
            .bind(customer)
            .execute(&mut tx)
            .await
            .expect("its position");
        tx.commit_unaudited("test data").await.expect("a commit");
        id
    }
}

async fn connect(target: &Target) -> Db {
    let limits = Limits { max_connections: 8, ..Limits::default() };
    Db::open(target, limits, Arc::new(SystemClock)).await.expect("the database opens")
}
