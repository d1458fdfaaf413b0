//! Migrations: forward only, the same names for both engines, refused where history does not match.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};

use crate::db::Pool;
use crate::error::StorageError;

mod files {
    include!(concat!(env!("OUT_DIR"), "/migrations.rs"));
}

pub(crate) async fn run(pool: &Pool) -> Result<(), StorageError> {
    let outcome = match pool {
        Pool::Sqlite { write, .. } => migrator(files::SQLITE)?.run(write).await,
        Pool::Postgres(pool) => migrator(files::POSTGRES)?.run(pool).await,
    };
    outcome.map_err(|error| match error {
        MigrateError::VersionMissing(version) => StorageError::NewerSchema(version),
        MigrateError::VersionMismatch(version) => StorageError::ChangedMigration(version),
        other => StorageError::Migration(Box::new(other)),
    })
}

fn migrator(files: &[(&'static str, &'static str)]) -> Result<Migrator, StorageError> {
    let migrations = files
        .iter()
        .map(|(name, sql)| {
            let (number, description) = name.split_once('_').unwrap_or((name, ""));
            let version = number.parse().map_err(|_| {
                StorageError::Corrupt(format!("migration {name} does not begin with a number"))
            })?;
            let description = Cow::Owned(description.replace('_', " "));
            let sql = AssertSqlSafe(*sql).into_sql_str();
            Ok(Migration::new(version, description, MigrationType::Simple, sql, false))
        })
        .collect::<Result<Vec<_>, StorageError>>()?;
    Ok(Migrator::with_migrations(migrations))
}
