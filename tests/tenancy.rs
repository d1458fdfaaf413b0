//! The database is asked for one tenant at a time: the statements behind every RPC, taken from the server while it
//! works, and run again for a tenant that there is not.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

mod common;
mod surface;

use std::collections::{BTreeMap, BTreeSet};

use agentrouter_kernel::id::{Customer, Id};
use agentrouter_storage::{Db, Engine, Query, Source, Statement, Value, query};
use agentrouter_testkit::{TestDb, on_both_engines};
use common::{OPERATOR_KEY, TestServer};
use surface::client::Client;
use surface::table::RPCS;
use surface::tenant::{Names, Tenant};
use uuid::Uuid;

on_both_engines!(statements_name_their_tenant, the_named_tenant_is_the_only_one_reached);

/// Statements that are not about one tenant, by how they begin, and why. Whoever adds a line says in it what keeps the
/// statement from showing one tenant the rows of another.
const OF_ALL_TENANTS: &[(&str, &str)] = &[
    // Who calls: the tenant is what is asked for.
    (
        "SELECT k.id, k.customer_id, c.slug AS customer_slug, k.role",
        "by the hash of the key, which says the tenant",
    ),
    (
        "SELECT t.customer_id, c.slug AS customer_slug, t.token_use",
        "by the id of the token, which says the tenant",
    ),
    // Yes or no.
    (
        "SELECT CAST(CASE WHEN EXISTS (SELECT 1 FROM workspace_sync s",
        "of the workspace that the caller was resolved to",
    ),
    ("SELECT EXISTS (SELECT 1 FROM api_keys JOIN customers", "whether any customer is left with an operator"),
    ("SELECT EXISTS (SELECT 1 FROM workspace_signals", "whether a job has anything to do"),
    (
        "SELECT CAST(1 AS BIGINT) AS value WHERE EXISTS (SELECT 1 FROM webhook",
        "whether a job has anything to do",
    ),
    // SQLite would walk all events of the tenant, were it named.
    (
        "SELECT configuration_id, version FROM liaison_configuration_events WHERE workspace_id = $1 AND is_open",
        "of the workspace that the caller was resolved to",
    ),
    (
        "SELECT e.id, e.configuration_id, e.customer_id, e.version, e.status",
        "what is due in the workspace of a caller, or of one that a job is at",
    ),
    (
        "SELECT y.workspace_id, w.revision",
        "of the workspaces that callers watch, each resolved when its watch began",
    ),
    // Who purges a tenant is of another one, and so is the entry that tells of it.
    ("INSERT INTO audit_entries", "of the tenant that the entry is for"),
];

/// Statements of jobs, which go over all tenants and show nothing to any. A transaction with one of them is a job's.
const OF_JOBS: &[(&str, &str)] = &[
    (
        "SELECT DISTINCT workspace_id, customer_id FROM liaison_configuration_events WHERE due_at",
        "what is due",
    ),
    ("UPDATE workspace_sync SET last_seen_at", "workspaces whose tokens were used"),
    ("UPDATE api_keys SET last_used_at", "keys that were used"),
    ("SELECT s.key_hash AS value FROM api_key_secrets", "keys that opened streams"),
    ("SELECT t.id AS value FROM", "tokens that opened streams"),
    ("DELETE FROM tokens WHERE id IN", "what expired"),
    ("DELETE FROM revoked_tokens WHERE (customer_id, jti) IN", "what expired"),
    (
        "DELETE FROM liaison_configuration_versions WHERE (configuration_id, version) IN",
        "what is kept no longer",
    ),
    ("SELECT id AS value FROM liaison_configuration_events WHERE id <", "what is kept no longer"),
    ("DELETE FROM liaison_configuration_events WHERE id", "what is kept no longer"),
    ("SELECT customer_id, head FROM customer_sequences", "what moved, for wake-ups"),
    ("SELECT MIN(CASE WHEN t.made", "a figure of the metrics"),
    (
        "SELECT CAST(COUNT(*) AS BIGINT) AS value FROM liaison_configuration_events WHERE stuck",
        "a figure of the metrics",
    ),
    ("SELECT CAST(COALESCE(SUM(CASE WHEN s.last_seen_at", "a figure of the metrics"),
    ("SELECT head AS value FROM ( SELECT (SELECT d.id FROM webhook_deliveries", "the next of each webhook"),
    ("UPDATE webhook_deliveries SET", "by the id that the statement before gave"),
    ("DELETE FROM webhook_", "what ended"),
    ("INSERT INTO webhook_", "for the tenant of each row that they are made from"),
    ("SELECT b.workspace_id, b.customer_id, b.configuration_id", "slots whose webhooks were told"),
    ("SELECT o.workspace_id, o.customer_id", "workspaces whose webhooks were told"),
    ("SELECT y.workspace_id, y.customer_id", "workspaces that were not seen for a while"),
    (
        "SELECT s.id, s.customer_id, c.slug AS customer_slug, s.workspace_id",
        "signals, each for its own tenant",
    ),
    ("DELETE FROM workspace_signals WHERE id", "signals that were passed on"),
];

/// The statements of a server that answers every RPC once for a tenant, and the tenant.
struct Traffic {
    server: TestServer,
    tenant: Tenant,
    statements: Vec<Statement>,
    /// The tables that know of tenants.
    tables: BTreeSet<String>,
}

impl Traffic {
    async fn new(db: TestDb) -> Self {
        let server = TestServer::start(db).await;
        let client = Client(server.channel().await);
        let [acme, globex] = [("acme", "-of-acme"), ("globex", "-of-globex")]
            .map(|(customer, suffix)| Names { customer, suffix });
        let tenant = Tenant::create(&client, OPERATOR_KEY, acme).await;
        Tenant::create(&client, OPERATOR_KEY, globex).await;
        let mut journal = server.running.db.statements();
        for rpc in RPCS {
            let _ = tenant.call_rightly(&client, rpc).await;
        }
        let mut statements = Vec::new();
        while let Ok(statement) = journal.try_recv() {
            statements.push(statement);
        }
        let tables = tables(&server.test_db.db).await;
        Self { server, tenant, statements, tables }
    }

    fn engine(&self) -> Engine {
        self.server.test_db.db.engine()
    }

    /// The statements about rows of tenants.
    fn about_tenants(&self) -> impl Iterator<Item = (&Statement, &str)> {
        let texts = self.statements.iter().map(|statement| (statement, statement.query.text(self.engine())));
        texts.filter(|(_, text)| words(text).any(|word| self.tables.contains(word)))
    }
}

/// Every table with a column for the tenant, so that a new one is seen at once.
async fn tables(db: &Db) -> BTreeSet<String> {
    const SQLITE: &str = "SELECT m.name AS value FROM sqlite_master m JOIN pragma_table_info(m.name) c \
         WHERE m.type = 'table' AND c.name = 'customer_id'";
    const POSTGRES: &str = "SELECT CAST(table_name AS TEXT) AS value FROM information_schema.columns \
         WHERE table_schema = current_schema() AND column_name = 'customer_id'";
    let sql = if db.engine() == Engine::Sqlite { SQLITE } else { POSTGRES };
    let tables: BTreeSet<String> = query(sql).values(db).await.unwrap().into_iter().collect();
    assert!(tables.len() > 20, "{tables:?}");
    tables
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// The parameters, counted from 0, that a column for the tenant must equal.
fn predicates(text: &str) -> BTreeSet<usize> {
    text.match_indices("customer_id = $")
        .filter_map(|(at, found)| {
            let digits = text[at + found.len()..].split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse::<usize>().ok()?.checked_sub(1)
        })
        .collect()
}

/// The tenants that a statement names in a condition, or writes rows for.
fn named(query: &Query, text: &str, known: &BTreeSet<Uuid>) -> BTreeSet<Uuid> {
    let is_insert = text.trim_start().starts_with("INSERT") && text.contains("customer_id");
    let value = |index: usize| match query.bound().get(index) {
        Some(Value::Uuid(Some(uuid))) => Some(*uuid),
        _ => None,
    };
    let mut named: BTreeSet<_> = predicates(text).into_iter().filter_map(value).collect();
    if is_insert {
        let written = (0..query.bound().len()).filter_map(value);
        named.extend(written.filter(|uuid| known.contains(uuid)));
    }
    named
}

/// Whether each of the rows that a statement was given names its tenant, as where calls share a commit.
fn names_one_per_row(text: &str) -> bool {
    ["customer_id = d.customer", "customer_id = l.customer"].iter().any(|condition| text.contains(condition))
}

fn begins_as(text: &str, listed: &[(&str, &str)]) -> bool {
    listed.iter().any(|(beginning, _)| text.starts_with(beginning))
}

fn shown(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

// Behaviour 41: every statement names the one tenant of its transaction, and one that forgets to is found here.
async fn statements_name_their_tenant(db: TestDb) {
    let traffic = Traffic::new(db).await;
    let known = query("SELECT id AS value FROM customers").values(&traffic.server.test_db.db).await.unwrap();
    let known: BTreeSet<Uuid> = known.into_iter().collect();
    let of_jobs = traffic.about_tenants().filter(|(_, text)| begins_as(&shown(text), OF_JOBS));
    let jobs: BTreeSet<u64> = of_jobs.filter_map(|(statement, _)| statement.transaction).collect();
    let mut tenants: BTreeMap<u64, Uuid> = BTreeMap::new();
    let mut faults = BTreeSet::new();
    for (statement, text) in traffic.about_tenants() {
        let text = shown(text);
        let is_of_job = statement.transaction.is_some_and(|number| jobs.contains(&number));
        if is_of_job || begins_as(&text, OF_JOBS) || begins_as(&text, OF_ALL_TENANTS) {
            continue;
        }
        let named = named(&statement.query, &text, &known);
        let of_transaction = statement.transaction.and_then(|number| tenants.get(&number).copied());
        if named.len() > 1 || of_transaction.is_some_and(|tenant| named.iter().any(|named| *named != tenant))
        {
            faults.insert(format!("two tenants: {text}"));
        }
        match (named.first(), statement.transaction) {
            (Some(tenant), Some(number)) => {
                tenants.entry(number).or_insert(*tenant);
            }
            // By the id of a row that its transaction read under the name of the tenant, or wrote.
            (None, Some(_)) if of_transaction.is_some() || names_one_per_row(&text) => {}
            (None, _) => {
                faults.insert(format!("no tenant: {text}"));
            }
            (Some(_), None) => {}
        }
    }
    assert!(faults.is_empty(), "{} statements:\n{}", faults.len(), Vec::from_iter(faults).join("\n"));
    traffic.server.stop().await;
}

// Behaviour 41: run for a tenant that there is not, statements reach nothing; without the condition, they would.
async fn the_named_tenant_is_the_only_one_reached(db: TestDb) {
    let traffic = Traffic::new(db).await;
    let db = &traffic.server.test_db.db;
    let nobody = Id::<Customer>::new(db.now().await.unwrap()).uuid();
    let mut tried = BTreeSet::new();
    let mut reached_without = 0;
    for (statement, text) in traffic.about_tenants() {
        let predicates = predicates(text);
        let values = statement.query.bound();
        let is_acme = |index: &usize| matches!(values.get(*index), Some(Value::Uuid(Some(uuid))) if *uuid == traffic.tenant.customer.uuid());
        // What writes a new row, or gives one row whatever there is, tells nothing.
        let is_plain = !text.contains("VALUES")
            && !text.contains("COUNT(")
            && !text.contains("EXISTS (SELECT 1 FROM")
            && !text.contains("SUM(")
            && !text.contains("MAX(")
            && !text.contains("MIN(");
        if !is_plain
            || predicates.is_empty()
            || !predicates.iter().all(is_acme)
            || !tried.insert(text.to_owned())
        {
            continue;
        }
        let for_nobody = |text: &str| {
            let values = values.iter().enumerate().map(|(index, value)| {
                if predicates.contains(&index) { Value::from(nobody) } else { value.clone() }
            });
            query(text.to_owned()).bind_all(values)
        };
        assert_eq!(reached(db, text, for_nobody(text)).await, Ok(0), "{}", shown(text));
        let without = predicates.iter().fold(text.to_owned(), |text, index| {
            let number = index + 1;
            text.replace(
                &format!("customer_id = ${number}"),
                &format!("customer_id <> CAST(${number} AS uuid)"),
            )
        });
        let without = if traffic.engine() == Engine::Sqlite {
            without.replace(" AS uuid)", " AS BLOB)")
        } else {
            without
        };
        reached_without +=
            usize::from(reached(db, &without, for_nobody(&without)).await.is_ok_and(|rows| rows > 0));
    }
    assert!(
        tried.len() > 60 && reached_without > 25,
        "{} tried, {reached_without} reached something",
        tried.len()
    );
    traffic.server.stop().await;
}

/// How many rows a statement gives or touches, in a transaction that is rolled back.
async fn reached(db: &Db, text: &str, query: Query) -> Result<u64, String> {
    let mut tx = db.begin().await.unwrap();
    let gives_rows = text.trim_start().starts_with("SELECT") || text.contains("RETURNING");
    let outcome = if gives_rows {
        Source::fetch(&mut tx, query).await.map(|rows| rows.len() as u64)
    } else {
        query.execute(&mut tx).await
    };
    outcome.map_err(|error| error.to_string())
}
