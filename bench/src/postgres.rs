//! What a stretch of work cost the PostgreSQL server: WAL, transactions, CPU time, and what it left behind.

use std::fs;

use agentrouter_storage::{Db, Engine, Target, query, row};
use anyhow::{Context, Result};

use crate::bench;
use crate::stats::{digits, figure};

row! {
    /// Counters of a server.
    #[derive(Debug)]
    struct Counters {
        wal: i64,
        transactions: i64,
        backend: i64,
    }
}

/// Counters at the start of a stretch of work; none on SQLite.
#[derive(Debug)]
pub(crate) struct Meter(Option<(Counters, Option<u64>)>);

/// What a stretch of work cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wal_bytes: f64,
    /// Transactions that wrote.
    transactions: f64,
    /// Of all processes of the server; none where it runs on another machine.
    cpu_seconds: Option<f64>,
}

impl Meter {
    pub(crate) async fn start(db: &Db) -> Result<Self> {
        if db.engine() == Engine::Sqlite {
            return Ok(Self(None));
        }
        let counters = counters(db).await?;
        let ticks = cpu_ticks(counters.backend);
        Ok(Self(Some((counters, ticks))))
    }

    /// The cost since the start; none on SQLite.
    pub(crate) async fn stop(self, db: &Db) -> Result<Option<Cost>> {
        let Some((before, ticks_before)) = self.0 else { return Ok(None) };
        let after = counters(db).await?;
        let ticks =
            cpu_ticks(after.backend).zip(ticks_before).map(|(after, before)| after.saturating_sub(before));
        Ok(Some(Cost {
            wal_bytes: figure(after.wal - before.wal),
            transactions: figure(after.transactions - before.transactions),
            cpu_seconds: ticks.map(|ticks| figure(ticks) / 100.0),
        }))
    }
}

impl Cost {
    /// The cost of each of so many events.
    pub(crate) fn per_event(self, events: usize) -> String {
        let events = figure(events);
        let cpu = self.cpu_seconds.map_or_else(
            || "CPU time unknown".to_owned(),
            |seconds| format!("{} CPU-s of the database per 1,000", digits(seconds / events * 1e3)),
        );
        format!(
            "{} bytes of WAL and {} writing transactions an event, {cpu}",
            digits(self.wal_bytes / events),
            digits(self.transactions / events)
        )
    }
}

async fn counters(db: &Db) -> Result<Counters> {
    // Ids of transactions are counted at once; the server's statistics lag behind by seconds. The log is forced out first:
    // what is only in memory counts too.
    const COUNTERS: &str = "SELECT CAST(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') AS BIGINT) AS wal, \
         CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS TEXT) AS BIGINT) AS transactions, \
         CAST(pg_backend_pid() AS BIGINT) AS backend";
    Ok(query(COUNTERS).one(db).await?)
}

/// User and system time of all processes of a server, in ticks of 10 ms, by one of its backends.
fn cpu_ticks(backend: i64) -> Option<u64> {
    let postmaster = Stat::read(&backend.to_string())?.parent;
    let own = Stat::read(&postmaster.to_string())?;
    let children = fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let stat = Stat::read(entry.ok()?.file_name().to_str()?)?;
        (stat.parent == postmaster).then_some(stat.own)
    });
    Some(own.own + own.ended_children + children.sum::<u64>())
}

/// What the kernel tells of a process.
struct Stat {
    parent: u64,
    own: u64,
    ended_children: u64,
}

impl Stat {
    fn read(pid: &str) -> Option<Self> {
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name in parentheses, and may hold spaces.
        let fields: Vec<u64> = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .map(|field| field.parse().unwrap_or_default())
            .collect();
        let field = |index: usize| fields.get(index).copied();
        Some(Self {
            parent: field(1)?,
            own: field(11)? + field(12)?,
            ended_children: field(13)? + field(14)?,
        })
    }
}

/// Dead and live rows of a database, once nobody else is connected: only then its statistics are complete.
pub(crate) async fn dead_rows(target: &Target) -> Result<String> {
    row! {
        struct Rows {
            dead: i64,
            live: i64,
            vacuums: i64,
        }
    }
    const ROWS: &str = "SELECT CAST(COALESCE(SUM(n_dead_tup), 0) AS BIGINT) AS dead, \
         CAST(COALESCE(SUM(n_live_tup), 0) AS BIGINT) AS live, \
         CAST(COALESCE(SUM(autovacuum_count), 0) AS BIGINT) AS vacuums FROM pg_stat_user_tables";
    let db = bench::open(target).await?;
    let rows: Rows = query(ROWS).one(&db).await.context("statistics")?;
    db.close().await;
    Ok(format!(
        "{} dead rows beside {} live ones at the end, {} autovacuums",
        rows.dead, rows.live, rows.vacuums
    ))
}
