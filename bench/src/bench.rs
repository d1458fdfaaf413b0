//! What every measure gets: sizes, a fresh database, a server over it, and the report.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agentrouter::server::Running;
use agentrouter_kernel::SystemClock;
use agentrouter_storage::{Db, Engine, Limits, Target, query};
use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::postgres;
use crate::report::{Report, name};
use crate::server::{self, Api, KEY};

/// Where one engine is measured.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) report: &'a Report,
    pub(crate) engine: Engine,
    quick: bool,
    folder: TempDir,
    /// The server, for PostgreSQL.
    postgres: Option<String>,
    /// Whether the PostgreSQL server is ours to restart.
    pub(crate) is_own_cluster: bool,
    databases: AtomicUsize,
}

impl<'a> Bench<'a> {
    pub(crate) fn sqlite(report: &'a Report, quick: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let databases = AtomicUsize::new(0);
        Ok(Self {
            report,
            engine: Engine::Sqlite,
            quick,
            folder,
            postgres: None,
            is_own_cluster: false,
            databases,
        })
    }

    pub(crate) fn postgres(
        report: &'a Report,
        quick: bool,
        url: String,
        is_own_cluster: bool,
    ) -> Result<Self> {
        let mut bench = Self::sqlite(report, quick)?;
        (bench.engine, bench.postgres, bench.is_own_cluster) = (Engine::Postgres, Some(url), is_own_cluster);
        Ok(bench)
    }

    /// A size: the first one, or the second one for a quick look.
    pub(crate) fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// What the engine is called.
    pub(crate) fn name(&self) -> &'static str {
        name(self.engine)
    }

    /// Prints a figure of this engine.
    pub(crate) fn line(&self, measure: &str, text: impl std::fmt::Display) {
        self.report.line(measure, self.name(), text);
    }

    /// Prints a figure of this engine beside its bar.
    pub(crate) fn judge(&self, bar: &crate::bars::Bar, value: f64) {
        self.report.judge(bar, self.name(), value);
    }

    /// An empty database of its own, so that no measure pays for the rows of another one.
    pub(crate) async fn database(&self) -> Result<Target> {
        // Others may use the same server.
        let own = std::process::id();
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let Some(url) = &self.postgres else {
            return Ok(Target::Sqlite(self.folder.path().join(format!("bench-{number}.db"))));
        };
        let name = format!("agentrouter_bench_{own}_{number}");
        let server = open(&Target::Postgres(url.clone())).await?;
        query(format!("CREATE DATABASE {name}")).values::<i64>(&server).await?;
        server.close().await;
        Ok(Target::Postgres(with_database(url, &name)?))
    }

    /// Deletes a database that [`Bench::database`] made.
    pub(crate) async fn drop_database(&self, target: &Target) -> Result<()> {
        match (target, &self.postgres) {
            (Target::Postgres(url), Some(server)) => {
                let name = database_of(url).context("a URL with a database")?.1.to_owned();
                let server = open(&Target::Postgres(server.clone())).await?;
                query(format!("DROP DATABASE {name} WITH (FORCE)")).values::<i64>(&server).await?;
                server.close().await;
            }
            (Target::Sqlite(path), _) => {
                for suffix in ["", "-wal", "-shm"] {
                    let mut file = path.clone().into_os_string();
                    file.push(suffix);
                    // The last connection may have taken the other files with it.
                    let _ = std::fs::remove_file(file);
                }
            }
            (Target::Postgres(_), None) => {}
        }
        Ok(())
    }

    /// A server in this process over an empty database.
    pub(crate) async fn site(&self) -> Result<Site> {
        let target = self.database().await?;
        Site::open(target).await
    }
}

/// A server in this process, with its operator's connection.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) target: Target,
    pub(crate) running: Running,
    pub(crate) api: Api,
    _folder: TempDir,
}

impl Site {
    pub(crate) async fn open(target: Target) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let running = server::in_process(folder.path(), &target).await?;
        let api = server::api(running.address, KEY).await?;
        Ok(Self { target, running, api, _folder: folder })
    }

    pub(crate) fn db(&self) -> &Db {
        &self.running.db
    }

    /// Stops the server and deletes its database.
    pub(crate) async fn close(self, bench: &Bench<'_>) -> Result<()> {
        // The operator's connection would keep the server waiting.
        drop(self.api);
        self.running.stop().await?;
        bench.drop_database(&self.target).await
    }

    /// [`Site::close`], printing what is left in the tables of PostgreSQL.
    pub(crate) async fn close_and_count(self, bench: &Bench<'_>, measure: &str) -> Result<()> {
        drop(self.api);
        self.running.stop().await?;
        if bench.engine == Engine::Postgres {
            bench.line(measure, postgres::dead_rows(&self.target).await?);
        }
        bench.drop_database(&self.target).await
    }
}

/// A handle of our own to a database.
pub(crate) async fn open(target: &Target) -> Result<Db> {
    let limits = Limits { max_connections: 4, acquire_timeout: Duration::from_secs(30) };
    Ok(Db::open(target, limits, Arc::new(SystemClock)).await?)
}

/// The parts of a URL before the name of its database, the name, and the rest.
fn database_of(url: &str) -> Option<(&str, &str, &str)> {
    let (address, options) = url.split_at(url.find('?').unwrap_or(url.len()));
    let host = address.find("://")? + 3;
    let slash = address.get(host..)?.find('/')? + host;
    Some((address.get(..=slash)?, address.get(slash + 1..)?, options))
}

fn with_database(url: &str, name: &str) -> Result<String> {
    let (before, _, after) = database_of(url)
        .context("--postgres-url must name a database: postgres://user@host:port/database")?;
    Ok(format!("{before}{name}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced() {
        let url = "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable";
        assert_eq!(with_database(url, "x").unwrap(), "postgres://postgres@127.0.0.1:5432/x?sslmode=disable");
        assert_eq!(with_database("postgres://h/", "x").unwrap(), "postgres://h/x");
        assert!(with_database("postgres://h", "x").is_err());
    }
}
