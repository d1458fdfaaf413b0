//! Rows as they come back, from either engine.

use std::collections::BTreeMap;

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{Id, Kind};
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, ValueRef as _};
use uuid::Uuid;

use crate::error::StorageError;
use crate::list::labels_from_text;

/// A row of a result.
pub enum Row {
    /// From SQLite.
    Sqlite(SqliteRow),
    /// From PostgreSQL.
    Postgres(PgRow),
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Row(..)")
    }
}

impl Row {
    /// The value of a column, by the name the statement gives it.
    ///
    /// # Errors
    /// `Corrupt` where the column does not exist or holds something else.
    pub fn get<T: FromColumn>(&self, column: &str) -> Result<T, StorageError> {
        T::from_column(self, column)
    }

    fn is_null(&self, column: &str) -> Result<bool, StorageError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get_raw(column)?.is_null(),
            Self::Postgres(row) => row.try_get_raw(column)?.is_null(),
        })
    }
}

/// A type that a column can hold.
pub trait FromColumn: Sized {
    /// Reads the column.
    fn from_column(row: &Row, column: &str) -> Result<Self, StorageError>;
}

/// A type that a row can hold; made by [`crate::row!`].
pub trait FromRow: Sized {
    /// Reads the row.
    fn from_row(row: &Row) -> Result<Self, StorageError>;
}

macro_rules! native {
    ($($type:ty),*) => {$(
        impl FromColumn for $type {
            fn from_column(row: &Row, column: &str) -> Result<Self, StorageError> {
                // Unchecked on SQLite, where expressions have no declared type.
                Ok(match row {
                    Row::Sqlite(row) => row.try_get_unchecked(column)?,
                    Row::Postgres(row) => row.try_get(column)?,
                })
            }
        }
    )*};
}
native!(i64, bool, String, Vec<u8>, Uuid);

impl<K: Kind> FromColumn for Id<K> {
    fn from_column(row: &Row, column: &str) -> Result<Self, StorageError> {
        row.get(column).map(Self::from_uuid)
    }
}

impl FromColumn for Timestamp {
    fn from_column(row: &Row, column: &str) -> Result<Self, StorageError> {
        row.get(column).map(Self::from_micros)
    }
}

impl FromColumn for BTreeMap<String, String> {
    /// Labels.
    fn from_column(row: &Row, column: &str) -> Result<Self, StorageError> {
        labels_from_text(&row.get::<String>(column)?)
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn from_column(row: &Row, column: &str) -> Result<Self, StorageError> {
        if row.is_null(column)? { Ok(None) } else { T::from_column(row, column).map(Some) }
    }
}

/// Declares a struct whose fields are the columns of a statement.
#[macro_export]
macro_rules! row {
    ($(#[$meta:meta])* $visibility:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_visibility:vis $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        $visibility struct $name {
            $($(#[$field_meta])* $field_visibility $field: $type,)*
        }

        impl $crate::FromRow for $name {
            fn from_row(row: &$crate::Row) -> Result<Self, $crate::StorageError> {
                Ok(Self { $($field: row.get(stringify!($field))?,)* })
            }
        }
    };
}
