//! Transactions, the stored clock, errors and wake-ups, on both engines.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]

use std::sync::Arc;
use std::time::Duration;

use agentrouter_kernel::id::{Customer, Id};
use agentrouter_kernel::{FaultKind, Timestamp};
use agentrouter_storage::idempotency::{self, IdempotencyKey};
use agentrouter_storage::{AuditEntry, CallOrigin, Engine, StorageError, audit, pulse, query};
use agentrouter_testkit::{TestDb, admin, on_both_engines};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

on_both_engines!(
    dropping_rolls_back,
    a_commit_writes_its_audit_entry,
    denials_coalesce,
    the_clock_is_the_databases_and_moves_for_tests,
    concurrent_increments_are_all_kept,
    errors_have_kinds,
    a_failed_statement_ends_its_transaction,
    idempotency_records_expire,
    values_come_back_as_they_went,
    commits_wake_who_waits,
    other_processes_are_woken,
);

async fn count(test: &TestDb, table: &str) -> i64 {
    query(format!("SELECT CAST(COUNT(*) AS BIGINT) AS value FROM {table}"))
        .value(&test.db)
        .await
        .unwrap()
        .unwrap()
}

async fn dropping_rolls_back(test: TestDb) {
    let customer = test.customer("acme").await;
    let mut tx = test.db.begin().await.unwrap();
    query("UPDATE customers SET display_name = 'changed' WHERE id = $1")
        .bind(customer)
        .execute(&mut tx)
        .await
        .unwrap();
    drop(tx);
    let name: Option<String> =
        query("SELECT display_name AS value FROM customers").value(&test.db).await.unwrap();
    assert_eq!(name.as_deref(), Some("acme"));
}

fn entry(customer: Id<Customer>) -> AuditEntry {
    let origin = CallOrigin { request_id: "request-1".into(), peer: "127.0.0.1:1".into() };
    AuditEntry { customer, action: "test.act".into(), target: "row_1".into(), origin }
}

async fn a_commit_writes_its_audit_entry(test: TestDb) {
    agentrouter_storage::row! {
        struct Entry {
            actor_kind: String,
            actor_id: String,
            action: String,
            target: String,
            outcome: String,
            request_id: String,
            count: i64,
        }
    }
    let customer = test.customer("acme").await;
    let tx = test.db.begin().await.unwrap();
    tx.commit(&admin(customer, "acme"), entry(customer)).await.unwrap();
    let row: Entry = query("SELECT * FROM audit_entries").one(&test.db).await.unwrap();
    assert_eq!((row.actor_kind.as_str(), row.actor_id.as_str()), ("api_key", "key_admin"));
    assert_eq!(
        (row.action.as_str(), row.target.as_str(), row.outcome.as_str()),
        ("test.act", "row_1", "succeeded")
    );
    assert_eq!((row.request_id.as_str(), row.count), ("request-1", 1));
}

async fn denials_coalesce(test: TestDb) {
    let customer = test.customer("acme").await;
    let caller = admin(customer, "acme");
    for _ in 0..3 {
        audit::record_denial(&test.db, &caller, &entry(customer), "ROLE_REQUIRED").await.unwrap();
    }
    audit::record_denial(&test.db, &caller, &entry(customer), "OTHER").await.unwrap();
    let counts: Vec<i64> = query("SELECT count AS value FROM audit_entries ORDER BY created_at, id")
        .values(&test.db)
        .await
        .unwrap();
    assert_eq!(counts, [3, 1]);
    test.db.advance_clock(Duration::from_mins(2));
    audit::record_denial(&test.db, &caller, &entry(customer), "ROLE_REQUIRED").await.unwrap();
    assert_eq!(count(&test, "audit_entries").await, 3);
}

async fn the_clock_is_the_databases_and_moves_for_tests(test: TestDb) {
    let mut tx = test.db.begin().await.unwrap();
    let first = tx.now().await.unwrap();
    assert_eq!(tx.now().await.unwrap(), first, "one time per transaction");
    drop(tx);
    test.db.advance_clock(Duration::from_hours(1));
    let later = test.db.now().await.unwrap();
    assert!(later.since(first) >= Duration::from_hours(1) && later.since(first) < Duration::from_hours(2));
}

async fn concurrent_increments_are_all_kept(test: TestDb) {
    let customer = test.customer("acme").await;
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let db = test.db.clone();
        tasks.spawn(async move {
            for _ in 0..10 {
                let mut tx = db.begin().await.unwrap();
                query("UPDATE customer_sequences SET head = head + 1 WHERE customer_id = $1")
                    .bind(customer)
                    .execute(&mut tx)
                    .await
                    .unwrap();
                tx.commit_unaudited("test").await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let head: Option<i64> =
        query("SELECT head AS value FROM customer_sequences").value(&test.db).await.unwrap();
    assert_eq!(head, Some(160));
}

async fn errors_have_kinds(test: TestDb) {
    const INSERT: &str = "INSERT INTO customer_sequences (customer_id, head) VALUES ($1, 0)";
    let customer = test.customer("acme").await;
    let mut tx = test.db.begin().await.unwrap();
    let conflict = query(INSERT).bind(customer).execute(&mut tx).await.unwrap_err();
    assert!(matches!(conflict, StorageError::Conflict(_)), "{conflict:?}");
    drop(tx);
    let mut tx = test.db.begin().await.unwrap();
    let nobody = Id::<Customer>::new(Timestamp::from_secs(1));
    // SQLite checks foreign keys with the statement, as PostgreSQL does.
    let missing = query(INSERT).bind(nobody).execute(&mut tx).await.unwrap_err();
    assert!(matches!(missing, StorageError::ForeignKey(_)), "{missing:?}");
    drop(tx);
    // What only PostgreSQL would refuse is refused by both.
    for (text, is_refused) in [("a\0b", true), ("ab", false)] {
        let named = query("SELECT id AS value FROM customers WHERE slug = $1").bind(text);
        let refused = named.value::<uuid::Uuid>(&test.db).await;
        assert_eq!(matches!(refused, Err(StorageError::Nul)), is_refused, "{refused:?}");
    }
    let fault = agentrouter_kernel::Fault::from(StorageError::Nul);
    assert_eq!(fault.kind(), FaultKind::InvalidArgument);
    if test.db.engine() == Engine::Postgres {
        for (limit, statement) in [
            ("SET LOCAL statement_timeout = 20", "SELECT pg_sleep(10)"),
            ("SET LOCAL idle_in_transaction_session_timeout = 20", ""),
        ] {
            let mut tx = test.db.begin().await.unwrap();
            query(limit).execute(&mut tx).await.unwrap();
            if statement.is_empty() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            let late = query(statement).execute(&mut tx).await.unwrap_err();
            assert!(matches!(late, StorageError::Unavailable(_)), "{late:?}");
        }
    }
    let wrong = query("SELECT nothing FROM nowhere").value::<i64>(&test.db).await.unwrap_err();
    let fault = agentrouter_kernel::Fault::from(wrong);
    assert_eq!(fault.kind(), FaultKind::Internal);
    assert!(!fault.message().contains("nowhere"), "no SQL leaves: {}", fault.message());
}

// Behaviour 29: nobody is told that something is stored which is not.
async fn a_failed_statement_ends_its_transaction(test: TestDb) {
    const INSERT: &str = "INSERT INTO customer_sequences (customer_id, head) VALUES ($1, 0)";
    const RENAME: &str = "UPDATE customers SET display_name = 'changed' WHERE id = $1";
    let customer = test.customer("acme").await;
    for fails_first in [false, true] {
        let mut tx = test.db.begin().await.unwrap();
        if !fails_first {
            query(RENAME).bind(customer).execute(&mut tx).await.unwrap();
        }
        assert!(!tx.is_broken());
        query(INSERT).bind(customer).execute(&mut tx).await.unwrap_err();
        assert!(tx.is_broken());
        let refused = tx.commit_unaudited("test").await;
        assert!(matches!(refused, Err(StorageError::Broken)), "{refused:?}");
        let name: Option<String> =
            query("SELECT display_name AS value FROM customers").value(&test.db).await.unwrap();
        assert_eq!(name.as_deref(), Some("acme"));
    }
}

async fn idempotency_records_expire(test: TestDb) {
    let customer = test.customer("acme").await;
    let key = |hash: u8| IdempotencyKey {
        caller: "key_1".into(),
        method: "m".into(),
        key: "k".into(),
        request_hash: vec![hash],
    };
    let mut tx = test.db.begin().await.unwrap();
    let now = tx.now().await.unwrap();
    assert_eq!(idempotency::find(&mut tx, &key(1), now).await.unwrap(), None);
    idempotency::keep(&mut tx, &key(1), customer, vec![42]).await.unwrap();
    assert_eq!(idempotency::find(&mut tx, &key(1), now).await.unwrap(), Some(vec![42]));
    let reused = idempotency::find(&mut tx, &key(2), now).await.unwrap_err();
    assert_eq!((reused.kind(), reused.reason()), (FaultKind::Aborted, "IDEMPOTENCY_KEY_REUSED"));
    tx.commit_unaudited("test").await.unwrap();
    test.db.advance_clock(idempotency::RETENTION);
    let mut tx = test.db.begin().await.unwrap();
    let now = tx.now().await.unwrap();
    assert_eq!(idempotency::find(&mut tx, &key(2), now).await.unwrap(), None);
    idempotency::keep(&mut tx, &key(2), customer, vec![43]).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
    test.db.advance_clock(idempotency::RETENTION);
    let mut tx = test.db.begin().await.unwrap();
    assert_eq!(idempotency::sweep(&mut tx, 10).await.unwrap(), 1);
}

async fn values_come_back_as_they_went(test: TestDb) {
    agentrouter_storage::row! {
        #[derive(Debug, PartialEq)]
        struct Values {
            integer: i64,
            truth: bool,
            text: String,
            bytes: Vec<u8>,
            id: Id<Customer>,
            time: Timestamp,
            absent: Option<String>,
            present: Option<i64>,
        }
    }
    const SELECT: &str = "SELECT CAST($1 AS BIGINT) AS integer, ($2 = TRUE) AS truth, CAST($3 AS TEXT) AS text, $4 AS bytes, \
         $5 AS id, CAST($6 AS BIGINT) AS time, CAST($7 AS TEXT) AS absent, CAST($8 AS BIGINT) AS present";
    let id = Id::<Customer>::new(Timestamp::from_micros(1_790_000_000_123_456));
    let values: Values = query(SELECT)
        .bind(i64::MIN)
        .bind(true)
        .bind("naïve ' \" text")
        .bind(vec![0u8, 255])
        .bind(id)
        .bind(Timestamp::from_micros(-1))
        .bind(None::<String>)
        .bind(Some(7i64))
        .one(&test.db)
        .await
        .unwrap();
    let expected = Values {
        integer: i64::MIN,
        truth: true,
        text: "naïve ' \" text".into(),
        bytes: vec![0, 255],
        id,
        time: Timestamp::from_micros(-1),
        absent: None,
        present: Some(7),
    };
    assert_eq!(values, expected);
}

async fn commits_wake_who_waits(test: TestDb) {
    let customer = test.customer("acme").await;
    let other = test.customer("other").await;
    let (mut news, other_news) =
        (test.db.notifier().subscribe(customer), test.db.notifier().subscribe(other));
    let mut tx = test.db.begin().await.unwrap();
    tx.announce(customer);
    assert!(!news.has_changed().unwrap(), "nothing is announced before it is committed");
    tx.commit_unaudited("test").await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), news.changed()).await.unwrap().unwrap();
    assert!(!other_news.has_changed().unwrap());
    let mut tx = test.db.begin().await.unwrap();
    tx.announce(customer);
    drop(tx);
    news.borrow_and_update();
    assert!(!news.has_changed().unwrap(), "nothing is announced after a rollback");
}

/// On PostgreSQL two handles are two processes. On SQLite there is one, and passing on ends at once.
async fn other_processes_are_woken(test: TestDb) {
    let customer = test.customer("acme").await;
    let stop = CancellationToken::new();
    let elsewhere = Arc::new(test.reopen().await);
    let mut tasks = JoinSet::new();
    for db in [test.db.clone(), (*elsewhere).clone()] {
        let stop = stop.clone();
        tasks.spawn(async move { pulse::run(&db, &stop).await });
    }
    if test.db.engine() == Engine::Sqlite {
        tokio::time::timeout(Duration::from_secs(5), tasks.join_all()).await.unwrap();
        return;
    }
    let mut news = elsewhere.notifier().subscribe(customer);
    // The safety poll finds a moved sequence even where no notification was sent.
    for notified in [true, false] {
        let mut tx = test.db.begin().await.unwrap();
        query("UPDATE customer_sequences SET head = head + 1").execute(&mut tx).await.unwrap();
        if notified {
            tx.announce(customer);
        }
        news.borrow_and_update();
        tx.commit_unaudited("test").await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), news.changed()).await.unwrap().unwrap();
    }
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), tasks.join_all()).await.unwrap();
}
