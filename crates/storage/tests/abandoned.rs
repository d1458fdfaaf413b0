//! Calls that are given up in the middle of a transaction, on both engines.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use agentrouter_kernel::SystemClock;
use agentrouter_storage::{Db, Engine, Limits, query};
use agentrouter_testkit::{TestDb, on_both_engines};
use tokio::time::timeout;

on_both_engines!(beginning_is_done_or_undone, a_commit_is_told_of_by_whoever_is_left);

const PATIENCE: Duration = Duration::from_secs(30);

/// Lets some work go on for as many turns, and drops it.
async fn give_up_after<T>(turns: usize, work: impl Future<Output = T>) {
    let mut work = pin!(work);
    for _ in 0..turns {
        let has_ended = poll_fn(|context| Poll::Ready(work.as_mut().poll(context).is_ready())).await;
        if has_ended {
            return;
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

// Behaviour 30: a connection is never left inside a transaction that nobody knows of.
async fn beginning_is_done_or_undone(test: TestDb) {
    // The time of a transaction stands still.
    const BEGAN_AT: &str = "SELECT CAST(EXTRACT(EPOCH FROM now()) * 1000000 AS BIGINT) AS value";
    let limits = Limits { max_connections: 1, ..Limits::default() };
    let db = Db::open(&test.target, limits, Arc::new(SystemClock)).await.unwrap();
    for turns in 0..40 {
        give_up_after(turns % 8, db.begin()).await;
        if db.engine() == Engine::Postgres {
            let first: Option<i64> = query(BEGAN_AT).value(&db).await.unwrap();
            let second: Option<i64> = query(BEGAN_AT).value(&db).await.unwrap();
            assert_ne!(first, second, "after {turns} turns the connection is inside a transaction");
        }
        let tx = timeout(PATIENCE, db.begin()).await.unwrap().unwrap();
        tx.commit_unaudited("test").await.unwrap();
    }
    db.close().await;
}

// Behaviour 36: a commit that its caller did not wait for wakes who waits for news.
async fn a_commit_is_told_of_by_whoever_is_left(test: TestDb) {
    let customer = test.customer("acme").await;
    let mut news = test.db.notifier().subscribe(customer);
    for turns in 1..20_i64 {
        news.mark_unchanged();
        let mut tx = test.db.begin().await.unwrap();
        query("UPDATE customer_sequences SET head = $2 WHERE customer_id = $1")
            .bind(customer)
            .bind(turns)
            .execute(&mut tx)
            .await
            .unwrap();
        tx.announce(customer);
        give_up_after(usize::try_from(turns % 5).unwrap() + 1, tx.commit_unaudited("test")).await;
        timeout(PATIENCE, news.changed()).await.unwrap().unwrap();
        let head: Option<i64> =
            query("SELECT head AS value FROM customer_sequences").value(&test.db).await.unwrap();
        assert_eq!(head, Some(turns), "it is announced once it is there");
    }
}
