//! `copy-store`: a whole installation from one database to another one, of either engine, while nobody uses either.
//!
//! The tables are those of the schema, so that a new one cannot be forgotten. The source is read in one snapshot; the
//! target is written in one transaction and committed only once both sides were read again and are the same.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use agentrouter_kernel::SystemClock;
use agentrouter_storage::catalog::{self, Cell, Column, Table, quoted};
use agentrouter_storage::{Db, Limits, StorageError, Target, Tx, Value, query};
use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::digest;
use clap::Args;

/// Rows that are read at once.
const PAGE: u32 = 500;
/// Values of one statement; SQLite takes some 32,000, PostgreSQL twice as many.
const VALUES_MAX: usize = 16_000;

/// What to copy.
#[derive(Debug, Clone, Args)]
pub struct CopyArgs {
    /// The database to copy: `sqlite:<file>` or `postgres://...`.
    #[arg(long, env = "AGENTROUTER_COPY_FROM", hide_env_values = true, value_name = "URL")]
    pub from: String,
    /// The empty database to fill.
    #[arg(long, env = "AGENTROUTER_COPY_TO", hide_env_values = true, value_name = "URL")]
    pub to: String,
}

/// What a table holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// How many rows.
    pub rows: u64,
    /// SHA-256 over all of them in the order of the primary key.
    pub digest: Vec<u8>,
}

/// Copies and returns a report: a line per table.
///
/// # Errors
/// Where either side is in use, the source is not at the schema of this program, the target holds something, or the
/// two differ after the copy. The target is as it was then.
pub async fn run(args: &CopyArgs) -> Result<String> {
    let from = Target::parse(&args.from).context("--from")?;
    let to = Target::parse(&args.to).context("--to")?;
    if let Target::Sqlite(path) = &from {
        ensure!(path.exists(), "--from: there is no such file");
    }
    let source = open(&from).await.context("--from")?;
    let target = open(&to).await.context("--to")?;
    source.take_alone().await.map_err(stop_first).context("--from")?;
    target.take_alone().await.map_err(stop_first).context("--to")?;
    let report = copy(&source, &target).await;
    source.close().await;
    target.close().await;
    report
}

fn stop_first(error: StorageError) -> anyhow::Error {
    match error {
        StorageError::Occupied => anyhow::anyhow!("the store is in use: stop every server of it first"),
        error => error.into(),
    }
}

async fn open(target: &Target) -> Result<Db> {
    if let Target::Sqlite(path) = target
        && let Some(folder) = path.parent().filter(|folder| *folder != Path::new(""))
    {
        std::fs::create_dir_all(folder).context("the folder cannot be made")?;
    }
    let limits = Limits { max_connections: 4, ..Limits::default() };
    Db::open(target, limits, Arc::new(SystemClock)).await.context("the database cannot be opened")
}

async fn copy(source: &Db, target: &Db) -> Result<String> {
    let tables = catalog::tables(source).await?;
    ensure!(!tables.is_empty(), "--from: the database holds no installation");
    target.migrate().await.context("--to: the database cannot be migrated")?;
    let twins = twins(&tables, catalog::tables(target).await?)?;

    let mut reading = source.snapshot().await?;
    let mut writing = target.begin().await?;
    for (_, twin) in &twins {
        let found = contents_page(&mut writing, twin, &[]).await?;
        ensure!(found.is_empty(), "--to: the database is not empty: {} holds rows", twin.name);
    }
    let mut report = String::from("TABLE\tROWS\tSHA-256\n");
    for (table, twin) in &twins {
        copy_table(&mut reading, table, &mut writing, twin).await.with_context(|| table.name.clone())?;
        let (left, right) = (contents(&mut reading, table).await?, contents(&mut writing, twin).await?);
        ensure!(
            left == right,
            "{} differs after the copy: {} and {} rows",
            table.name,
            left.rows,
            right.rows
        );
        write!(report, "{}\t{}\t", table.name, left.rows)?;
        for byte in left.digest.iter().take(8) {
            write!(report, "{byte:02x}")?;
        }
        report.push('\n');
    }
    writing.commit_unaudited("the audit log is copied, and this is no act of a customer").await?;
    writeln!(report, "both sides are the same")?;
    Ok(report)
}

/// Each table with the one of the same name on the other side, in the order of the target's references.
fn twins(source: &[Table], target: Vec<Table>) -> Result<Vec<(Table, Table)>> {
    let names = |table: &Table| table.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
    let mut left: HashMap<&str, &Table> = source.iter().map(|table| (table.name.as_str(), table)).collect();
    let mut twins = Vec::new();
    for twin in target {
        match left.remove(twin.name.as_str()) {
            Some(table) if names(table) == names(&twin) => twins.push((table.clone(), twin)),
            _ => bail!(
                "--from: the schema is not that of this program; run `agentrouter migrate` on it first ({})",
                twin.name
            ),
        }
    }
    ensure!(left.is_empty(), "--from: the schema is newer than this program");
    Ok(twins)
}

async fn copy_table(reading: &mut Tx, table: &Table, writing: &mut Tx, twin: &Table) -> Result<()> {
    let columns: Vec<&Column> = twin.columns.iter().collect();
    let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
    let head = format!("INSERT INTO {} ({}) VALUES ", quoted(&twin.name), names.join(", "));
    let mut after = Vec::new();
    loop {
        let rows = contents_page(reading, table, &after).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = key_of(table, last)?;
        for chunk in rows.chunks((VALUES_MAX / columns.len().max(1)).max(1)) {
            let mut values: Vec<Value> = Vec::with_capacity(chunk.len() * columns.len());
            let mut places = Vec::with_capacity(chunk.len());
            for row in chunk {
                let first = values.len() + 1;
                for (cell, column) in row.iter().zip(&columns) {
                    values.push(cell.clone().bind(column.kind)?);
                }
                let place: Vec<_> = (first..=values.len()).map(|number| format!("${number}")).collect();
                places.push(format!("({})", place.join(", ")));
            }
            let inserted =
                query(format!("{head}{}", places.join(", "))).bind_all(values).execute(writing).await?;
            ensure!(usize::try_from(inserted)? == chunk.len(), "a row was not taken");
        }
    }
}

/// Counts and digests all rows of a table.
async fn contents(source: &mut Tx, table: &Table) -> Result<Contents> {
    let mut context = digest::Context::new(&digest::SHA256);
    let (mut rows, mut after) = (0, Vec::new());
    loop {
        let page = contents_page(source, table, &after).await?;
        let Some(last) = page.last() else { break };
        after = key_of(table, last)?;
        for cell in page.iter().flatten() {
            let (tag, bytes): (u8, &[u8]) = match cell {
                Cell::Null => (0, &[]),
                Cell::Integer(value) => (1, &value.to_be_bytes()),
                Cell::Text(value) => (2, value.as_bytes()),
                Cell::Bytes(value) => (3, value),
            };
            context.update(&[tag]);
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        }
        rows += page.len() as u64;
    }
    Ok(Contents { rows, digest: context.finish().as_ref().to_vec() })
}

async fn contents_page(source: &mut Tx, table: &Table, after: &[Cell]) -> Result<Vec<Vec<Cell>>> {
    let columns: Vec<&Column> = table.columns.iter().collect();
    Ok(catalog::rows(source, table, &columns, after, PAGE).await?)
}

fn key_of(table: &Table, row: &[Cell]) -> Result<Vec<Cell>> {
    let place = |key: &Column| table.columns.iter().position(|column| column.name == key.name);
    table
        .primary_key
        .iter()
        .map(|key| place(key).and_then(|place| row.get(place)).cloned().context("a key"))
        .collect()
}
