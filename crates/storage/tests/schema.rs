//! The two schemas are one schema, and a schema from another program is refused.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]

use std::collections::BTreeSet;

use agentrouter_storage::{Db, Engine, StorageError, query};
use agentrouter_testkit::{TestDb, on_both_engines, postgres, sqlite};

on_both_engines!(a_newer_schema_is_refused, a_changed_migration_is_refused, migrating_twice_changes_nothing);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_engines_have_the_same_tables_columns_and_indexes() {
    let (sqlite, postgres) = (sqlite().await, postgres().await);
    let (left, right) = (shape(&sqlite.db).await, shape(&postgres.db).await);
    assert!(left.len() > 100, "{} names", left.len());
    let differing: Vec<_> = left.symmetric_difference(&right).collect();
    assert_eq!(differing, Vec::<&String>::new());
}

/// Every table, column (with whether it may be null) and named index.
async fn shape(db: &Db) -> BTreeSet<String> {
    let statements: [&str; 2] = match db.engine() {
        Engine::Sqlite => [
            "SELECT t.name || '.' || c.name || CASE WHEN c.\"notnull\" = 1 OR c.pk > 0 THEN '' ELSE ' null' END AS value \
             FROM sqlite_schema t JOIN pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND t.name NOT LIKE '\\_sqlx%' ESCAPE '\\' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
            "SELECT 'index ' || name AS value FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL",
        ],
        Engine::Postgres => [
            "SELECT CAST(table_name || '.' || column_name || CASE is_nullable WHEN 'YES' THEN ' null' ELSE '' END AS TEXT) AS value \
             FROM information_schema.columns WHERE table_schema = current_schema() AND table_name <> '_sqlx_migrations'",
            "SELECT CAST('index ' || c.relname AS TEXT) AS value FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid \
             WHERE c.relnamespace = to_regnamespace(current_schema()) AND c.relname <> '_sqlx_migrations_pkey' \
             AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u'))",
        ],
    };
    let mut names = BTreeSet::new();
    for statement in statements {
        names.extend(query(statement).values::<String>(db).await.unwrap());
    }
    names
}

async fn a_newer_schema_is_refused(test: TestDb) {
    const NEWER: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         SELECT 9999, 'from the future', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1";
    run(&test.db, NEWER).await;
    assert!(matches!(test.reopen().await.migrate().await, Err(StorageError::NewerSchema(9999))));
}

async fn a_changed_migration_is_refused(test: TestDb) {
    const CHANGED: &str = "UPDATE _sqlx_migrations SET checksum = \
         (SELECT checksum FROM _sqlx_migrations WHERE version = 1) WHERE version = 2";
    run(&test.db, CHANGED).await;
    assert!(matches!(test.reopen().await.migrate().await, Err(StorageError::ChangedMigration(2))));
}

async fn migrating_twice_changes_nothing(test: TestDb) {
    let before = shape(&test.db).await;
    test.reopen().await.migrate().await.unwrap();
    assert_eq!(shape(&test.db).await, before);
}

async fn run(db: &Db, statement: &'static str) {
    let mut tx = db.begin().await.unwrap();
    assert_eq!(query(statement).execute(&mut tx).await.unwrap(), 1);
    tx.commit_unaudited("test").await.unwrap();
}
