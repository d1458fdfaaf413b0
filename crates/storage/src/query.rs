//! Statements: one text for both engines wherever it can be, values bound by number.

use std::borrow::Cow;

use agentrouter_kernel::Timestamp;
use futures::future::BoxFuture;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Postgres, Sqlite};

use crate::error::StorageError;
use crate::row::{FromColumn, FromRow, Row};
use crate::value::Value;
use crate::{Db, Engine, Tx, dialect};

/// The text of a statement. Parameters are `$1`, `$2`, ... on both engines, and `:now` is the stored clock.
#[derive(Debug, Clone)]
pub enum Sql {
    /// The same text for both engines.
    Same(Cow<'static, str>),
    /// The few that differ, side by side.
    Each {
        /// For SQLite.
        sqlite: &'static str,
        /// For PostgreSQL.
        postgres: &'static str,
    },
}

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self::Same(Cow::Borrowed(text))
    }
}

impl From<String> for Sql {
    /// For texts assembled from constants. Values never go into the text.
    fn from(text: String) -> Self {
        Self::Same(Cow::Owned(text))
    }
}

/// A statement with its values.
#[derive(Debug, Clone)]
#[must_use = "a statement does nothing until it is run"]
pub struct Query {
    sql: Sql,
    values: Vec<Value>,
}

/// Starts a statement.
pub fn query(sql: impl Into<Sql>) -> Query {
    Query { sql: sql.into(), values: Vec::new() }
}

impl Query {
    /// Binds the next parameter.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Binds several parameters.
    pub fn bind_all(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        self.values.extend(values);
        self
    }

    /// Its text for an engine.
    pub fn text(&self, engine: Engine) -> &str {
        match (&self.sql, engine) {
            (Sql::Same(text), _) => text,
            (Sql::Each { sqlite, .. }, Engine::Sqlite) => sqlite,
            (Sql::Each { postgres, .. }, Engine::Postgres) => postgres,
        }
    }

    /// The values bound to it, from `$1` on.
    pub fn bound(&self) -> &[Value] {
        &self.values
    }

    /// Refuses what only one of the engines could store.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        let has_nul = |text: &String| text.as_bytes().contains(&0);
        let is_bad = self.values.iter().any(|value| match value {
            Value::Text(text) => text.as_ref().is_some_and(has_nul),
            Value::Texts(texts) => texts.iter().any(has_nul),
            _ => false,
        });
        if is_bad { Err(StorageError::Nul) } else { Ok(()) }
    }

    /// Runs the statement and returns how many rows it touched.
    pub async fn execute(self, tx: &mut Tx) -> Result<u64, StorageError> {
        tx.execute(self).await
    }

    /// Runs the statement and returns its only row.
    ///
    /// # Errors
    /// `Corrupt` where there is none.
    pub async fn one<T: FromRow>(self, source: impl Source) -> Result<T, StorageError> {
        self.optional(source).await?.ok_or_else(|| StorageError::Corrupt("a row is missing".to_owned()))
    }

    /// Runs the statement and returns its first row, if there is one.
    pub async fn optional<T: FromRow>(self, source: impl Source) -> Result<Option<T>, StorageError> {
        source.fetch(self).await?.first().map(T::from_row).transpose()
    }

    /// Runs the statement and returns all rows.
    pub async fn all<T: FromRow>(self, source: impl Source) -> Result<Vec<T>, StorageError> {
        source.fetch(self).await?.iter().map(T::from_row).collect()
    }

    /// Runs the statement and returns the column `value` of its first row, if there is one.
    pub async fn value<T: FromColumn>(self, source: impl Source) -> Result<Option<T>, StorageError> {
        source.fetch(self).await?.first().map(|row| row.get("value")).transpose()
    }

    /// Runs the statement and returns the column `value` of all rows.
    pub async fn values<T: FromColumn>(self, source: impl Source) -> Result<Vec<T>, StorageError> {
        source.fetch(self).await?.iter().map(|row| row.get("value")).collect()
    }

    pub(crate) fn for_sqlite(
        mut self,
        now: Timestamp,
    ) -> Result<sqlx::query::Query<'static, Sqlite, SqliteArguments>, StorageError> {
        let text = match self.sql {
            Sql::Same(text) => text,
            Sql::Each { sqlite, .. } => Cow::Borrowed(sqlite),
        };
        let text = with_now(text, &mut self.values, now.as_micros(), |parameter| parameter);
        let mut query = sqlx::query(AssertSqlSafe(text.into_owned()));
        for value in self.values {
            query = match value {
                Value::Integer(value) => query.bind(value),
                Value::Bool(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
                Value::Uuid(value) => query.bind(value),
                Value::Uuids(values) => {
                    query.bind(json(values.iter().map(|uuid| uuid.simple().to_string()).collect::<Vec<_>>())?)
                }
                Value::Integers(values) => query.bind(json(values)?),
                Value::Texts(values) => query.bind(json(values)?),
            };
        }
        Ok(query)
    }

    pub(crate) fn for_postgres(
        mut self,
        clock_offset: i64,
    ) -> sqlx::query::Query<'static, Postgres, PgArguments> {
        let text = match self.sql {
            Sql::Same(text) => text,
            Sql::Each { postgres, .. } => Cow::Borrowed(postgres),
        };
        let text = with_now(text, &mut self.values, clock_offset, |parameter| {
            format!("({} + CAST({parameter} AS BIGINT))", dialect::POSTGRES_CLOCK)
        });
        let mut query = sqlx::query(AssertSqlSafe(text.into_owned()));
        for value in self.values {
            query = match value {
                Value::Integer(value) => query.bind(value),
                Value::Bool(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
                Value::Uuid(value) => query.bind(value),
                Value::Uuids(values) => query.bind(values),
                Value::Integers(values) => query.bind(values),
                Value::Texts(values) => query.bind(values),
            };
        }
        query
    }
}

/// Replaces `:now` by a parameter of its own.
fn with_now(
    text: Cow<'static, str>,
    values: &mut Vec<Value>,
    value: i64,
    expression: impl FnOnce(String) -> String,
) -> Cow<'static, str> {
    if !text.contains(":now") {
        return text;
    }
    values.push(value.into());
    Cow::Owned(text.replace(":now", &expression(format!("${}", values.len()))))
}

fn json<T>(values: Vec<T>) -> Result<String, StorageError>
where
    serde_json::Value: From<Vec<T>>,
{
    serde_json::to_string(&serde_json::Value::from(values))
        .map_err(|error| StorageError::Corrupt(error.to_string()))
}

/// Where rows are read: `&Db` for a read of its own, `&mut Tx` for one inside a transaction.
pub trait Source: Send {
    /// Runs a statement and returns its rows.
    fn fetch<'a>(self, query: Query) -> BoxFuture<'a, Result<Vec<Row>, StorageError>>
    where
        Self: 'a;
}

impl Source for &Db {
    fn fetch<'a>(self, query: Query) -> BoxFuture<'a, Result<Vec<Row>, StorageError>>
    where
        Self: 'a,
    {
        Box::pin(self.read(query))
    }
}

impl Source for &mut Tx {
    fn fetch<'a>(self, query: Query) -> BoxFuture<'a, Result<Vec<Row>, StorageError>>
    where
        Self: 'a,
    {
        Box::pin(Tx::fetch(self, query))
    }
}
