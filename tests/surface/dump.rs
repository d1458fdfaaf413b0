//! The whole database as text, on either engine, read behind the server's back.

use std::collections::BTreeSet;

use agentrouter_storage::{Db, Engine, query};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Tables that record calls, and not what the calls are about.
const RECORDS: [&str; 2] = ["audit_entries", "idempotency_records"];
/// Tables in which jobs of the server note what happened to workspaces, and whom they told of it.
const TOLD: [&str; 3] = ["webhook_offline_workspaces", "webhook_stuck_slots", "workspace_signals"];
/// Columns that move by themselves: when a key was used and when a worker called.
const MOVING: [&str; 2] = ["last_used_at", "last_seen_at"];
/// The queue to webhooks, of which a job moves all but these columns. Of its messages, jobs add all but those that a call
/// asked for.
const QUEUE: &str = "webhook_deliveries";
const QUEUED: [&str; 7] =
    ["id", "customer_id", "webhook_id", "message_id", "event_type", "payload", "created_at"];
const ASKED_FOR: &str = "event_type = 'webhook.test'";

/// Reads a database as a whole.
pub(crate) struct Reader {
    db: Db,
    everything: String,
    state: String,
}

impl Reader {
    pub(crate) async fn new(db: &Db) -> Self {
        let tables = tables(db).await;
        assert!(tables.len() > 15, "{} tables", tables.len());
        let everything: Vec<String> = tables.iter().map(|table| table.select(|_| true)).collect();
        let is_state = |name: &str| !RECORDS.contains(&name) && !TOLD.contains(&name);
        let state = tables.iter().filter(|table| is_state(&table.name)).map(|table| {
            if table.name == QUEUE {
                format!("{} WHERE {ASKED_FOR}", table.select(|column| QUEUED.contains(&column)))
            } else {
                table.select(|column| !MOVING.contains(&column))
            }
        });
        let state: Vec<String> = state.collect();
        Self { db: db.clone(), everything: everything.join(" UNION ALL "), state: state.join(" UNION ALL ") }
    }

    /// Every row of every table.
    pub(crate) async fn everything(&self) -> Dump {
        Dump(query(self.everything.clone()).values(&self.db).await.unwrap())
    }

    /// What calls are about: without the records of calls, and without what moves by itself.
    pub(crate) async fn state(&self) -> Dump {
        Dump(query(self.state.clone()).values(&self.db).await.unwrap())
    }
}

/// Rows, each the name of its table and a JSON object. Bytes are texts that begin with `\x`, in hexadecimal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Dump(Vec<String>);

impl Dump {
    /// Every row that only one of the two has.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        if self == other {
            return Vec::new();
        }
        let (own, others) = (self.0.iter().collect::<BTreeSet<_>>(), other.0.iter().collect::<BTreeSet<_>>());
        own.symmetric_difference(&others).map(|row| (*row).clone()).collect()
    }

    /// The rows that belong to a customer.
    pub(crate) fn of_customer(&self, customer: Uuid) -> Self {
        let is_own = |row: &&String| {
            let (table, columns) = parse(row);
            let column = if table == "customers" { "id" } else { "customer_id" };
            columns.get(column).and_then(as_uuid) == Some(customer)
        };
        Self(self.0.iter().filter(is_own).cloned().collect())
    }

    /// All rows as one text.
    pub(crate) fn into_text(self) -> String {
        self.0.join("\n")
    }

    /// Every value with its table and its column.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (&str, String, Value)> {
        self.0.iter().flat_map(|row| {
            let (table, columns) = parse(row);
            columns.into_iter().map(move |(column, value)| (table, column, value))
        })
    }
}

/// A row id as either engine shows it.
pub(crate) fn as_uuid(value: &Value) -> Option<Uuid> {
    let text = value.as_str()?;
    Uuid::try_parse(text.strip_prefix("\\x").unwrap_or(text)).ok()
}

fn parse(row: &str) -> (&str, Map<String, Value>) {
    let (table, columns) = row.split_once(' ').unwrap();
    (table, serde_json::from_str(columns).unwrap())
}

struct Table {
    engine: Engine,
    name: String,
    columns: Vec<String>,
}

async fn tables(db: &Db) -> Vec<Table> {
    let (names, columns) = match db.engine() {
        Engine::Sqlite => (
            "SELECT name AS value FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
            "SELECT name AS value FROM pragma_table_info($1)",
        ),
        Engine::Postgres => (
            "SELECT CAST(tablename AS TEXT) AS value FROM pg_tables WHERE schemaname = current_schema()",
            "SELECT CAST(column_name AS TEXT) AS value FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name = $1",
        ),
    };
    let mut tables = Vec::new();
    for name in query(names).values::<String>(db).await.unwrap() {
        let columns = query(columns).bind(&name).values(db).await.unwrap();
        tables.push(Table { engine: db.engine(), name, columns });
    }
    tables
}

impl Table {
    /// Reads the rows with some of the columns.
    fn select(&self, is_read: impl Fn(&str) -> bool) -> String {
        let columns = self.columns.iter().filter(|column| is_read(column.as_str()));
        let (function, column): (&str, fn(&String) -> String) = match self.engine {
            Engine::Sqlite => ("json_object", |name| {
                format!(
                    r#"'{name}', CASE typeof("{name}") WHEN 'blob' THEN '\x' || lower(hex("{name}")) ELSE "{name}" END"#
                )
            }),
            Engine::Postgres => ("json_build_object", |name| format!(r#"'{name}', "{name}""#)),
        };
        let columns: Vec<String> = columns.map(column).collect();
        let (name, columns) = (&self.name, columns.join(", "));
        format!(r#"SELECT '{name} ' || CAST({function}({columns}) AS TEXT) AS value FROM "{name}""#)
    }
}
