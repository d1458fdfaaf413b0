//! `keys rotate-kek`: every sealed value under the first configured key-encryption key, while servers serve.
//!
//! In steps of a few rows, each of them a transaction that changes a value only as long as it is the one that was
//! read; so it may be cut short anywhere and begun again, and nobody waits for it.

use std::fmt::Write as _;

use agentrouter_envelope::{EnvelopeError, Keyring};
use agentrouter_identity::keks;
use agentrouter_rpc::Deps;
use agentrouter_storage::catalog::{self, Cell, Column, Table, quoted};
use agentrouter_storage::{Db, query};
use anyhow::{Context, Result, bail, ensure};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::{Secrets, StoreArgs, StoreConfig, environment};
use crate::sealed::{SEALED, Sealed};
use crate::store;

/// Rows of one step.
const STEP: u32 = 200;
/// Rounds after which values under an old key mean that somebody goes on making them.
const ROUNDS: usize = 3;

/// What a rotation did to one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The column, such as `credentials.sealed`.
    pub column: String,
    /// How many values it holds.
    pub values: u64,
    /// How many of them were wrapped anew.
    pub rewrapped: u64,
}

/// Runs the command and returns its report.
///
/// # Errors
/// Where a value does not open, the store cannot be used, or a server goes on sealing under an old key. What was done
/// until then stays, and the command may be run again.
pub async fn run(args: &StoreArgs) -> Result<String> {
    let secrets = Secrets::load(&environment)?;
    let deps = store::open(&StoreConfig::load(args)?, secrets.keyring).await?;
    let counts = rotate(&deps.db, &deps.keyring).await?;
    let retired = keks::end_rotation(&deps.db, &deps.keyring).await?;
    deps.db.close().await;
    let mut report = String::from("COLUMN\tVALUES\tREWRAPPED\n");
    for count in counts {
        writeln!(report, "{}\t{}\t{}", count.column, count.values, count.rewrapped)?;
    }
    let target = deps.keyring.sealing_key_id();
    writeln!(report, "every value is sealed under {target:?}")?;
    for id in retired {
        writeln!(report, "{id:?} is needed no more: remove it from every server")?;
    }
    Ok(report)
}

/// Lets a running server seal under the keys that rotations left it, and keeps the store marked as in use, until
/// `shutdown`.
pub(crate) async fn follow(deps: Deps, shutdown: CancellationToken) {
    let keys = async {
        let mut ticks = tokio::time::interval(keks::FOLLOW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            match keks::follow_rotations(&deps.db, &deps.keyring).await {
                Ok(()) => {}
                // The database is away, which says nothing of the keys.
                Err(keks::KeyringError::Storage(error)) => {
                    tracing::warn!(%error, "rotations of the key-encryption key cannot be followed right now");
                }
                Err(error) => {
                    tracing::error!(%error, "the key-encryption keys of this server are not those of the database");
                }
            }
        }
    };
    tokio::join!(keys, deps.db.stay_shared(&shutdown));
}

/// Wraps every value under the first key of the ring.
///
/// # Errors
/// As [`run`].
pub async fn rotate(db: &Db, keyring: &Keyring) -> Result<Vec<Count>> {
    keks::begin_rotation(db, keyring).await.context("the rotation cannot begin")?;
    // By now no server begins to seal under an old key; after twice the time in which the running ones notice, they
    // do not either.
    tokio::time::sleep(keks::FOLLOW_EVERY * 2).await;
    let tables = catalog::tables(db).await?;
    let mut total: Vec<Count> = Vec::new();
    for round in 0..ROUNDS {
        // What they had sealed before is committed now.
        let mut tx = db.begin().await?;
        tx.drain_writers(&SEALED.iter().map(|sealed| sealed.table).collect::<Vec<_>>()).await?;
        tx.commit_unaudited("nothing is written").await?;
        let mut counts = Vec::new();
        for sealed in SEALED {
            counts.push(rewrap_column(db, keyring, &tables, sealed).await?);
        }
        let is_done = counts.iter().all(|count| count.rewrapped == 0);
        if round == 0 {
            total = counts;
        } else {
            for (total, count) in total.iter_mut().zip(counts) {
                total.values = count.values;
                total.rewrapped += count.rewrapped;
            }
        }
        if is_done {
            return Ok(total);
        }
    }
    bail!(
        "a server goes on sealing under an old key: give every server the key {:?}, and run this again",
        keyring.sealing_key_id()
    )
}

async fn rewrap_column(db: &Db, keyring: &Keyring, tables: &[Table], sealed: &Sealed) -> Result<Count> {
    let name = format!("{}.{}", sealed.table, sealed.column);
    let table = tables.iter().find(|table| table.name == sealed.table);
    let table = table.with_context(|| format!("there is no table {}", sealed.table))?;
    let key = &table.primary_key;
    let column = find(table, sealed.column)?;
    let bound: Vec<&Column> = sealed.binding.iter().map(|name| find(table, name)).collect::<Result<_>>()?;
    // Key, value, and what the value is bound to.
    let columns: Vec<&Column> = key.iter().chain([column]).chain(bound).collect();
    let places: Vec<String> = key
        .iter()
        .enumerate()
        .map(|(index, column)| format!("{} = ${}", quoted(&column.name), index + 3))
        .collect();
    let update = format!(
        "UPDATE {} SET {column} = $1 WHERE {column} = $2 AND {}",
        quoted(&table.name),
        places.join(" AND "),
        column = quoted(&column.name),
    );
    let mut count = Count { column: name.clone(), values: 0, rewrapped: 0 };
    let mut after: Vec<Cell> = Vec::new();
    loop {
        let rows = catalog::rows(db, table, &columns, &after, STEP).await?;
        let Some(last) = rows.last() else { return Ok(count) };
        after = last.get(..key.len()).context("a row without its key")?.to_vec();
        let mut changes = Vec::new();
        for row in rows {
            let (Some(place), Some(value), Some(bound)) =
                (row.get(..key.len()), row.get(key.len()), row.get(key.len() + 1..))
            else {
                bail!("a row of {name} is cut short");
            };
            let Cell::Bytes(old) = value else { continue };
            count.values += 1;
            let new = rewrap(keyring, sealed, old, bound).with_context(|| format!("a value of {name}"))?;
            changes.extend(new.map(|new| (new, old.clone(), place.to_vec())));
        }
        if changes.is_empty() {
            continue;
        }
        let mut tx = db.begin().await?;
        for (new, old, place) in changes {
            let mut statement = query(update.clone()).bind(new).bind(old);
            for (cell, column) in place.into_iter().zip(key) {
                statement = statement.bind_all([cell.bind(column.kind)?]);
            }
            count.rewrapped += statement.execute(&mut tx).await?;
        }
        tx.commit_unaudited("the values are the same").await?;
    }
}

fn rewrap(keyring: &Keyring, sealed: &Sealed, value: &[u8], bound: &[Cell]) -> Result<Option<Vec<u8>>> {
    let aad = (sealed.bound_to)(bound).context("its row is not as it should be")?;
    match keyring.rewrap(value, || aad) {
        Ok(new) => Ok(new),
        Err(EnvelopeError::UnknownKey(id)) => {
            bail!("it is sealed under the key {id:?}, which is not configured: add it, and run this again")
        }
        Err(error) => Err(error.into()),
    }
}

fn find<'a>(table: &'a Table, name: &str) -> Result<&'a Column> {
    let column = table.columns.iter().find(|column| column.name == name);
    ensure!(column.is_some(), "{} has no column {name}", table.name);
    column.with_context(|| format!("{} has no column {name}", table.name))
}
