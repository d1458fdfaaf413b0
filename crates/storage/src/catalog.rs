//! What a database holds, whoever it belongs to: its tables as the schema itself tells them, and their rows as bare
//! values. For work on the store as a whole, such as copying it; services never ask.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sqlx::{Column as _, Row as _, TypeInfo, ValueRef};

use crate::db::{Db, Engine};
use crate::error::StorageError;
use crate::query::{Source, query};
use crate::row::Row;
use crate::value::Value;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An integer of 64 bits, and on SQLite a truth value, too.
    Integer,
    /// A truth value of PostgreSQL.
    Bool,
    /// A text.
    Text,
    /// Bytes, and on SQLite a row id, too.
    Bytes,
    /// A row id of PostgreSQL.
    Uuid,
}

impl Kind {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "INTEGER" | "bigint" | "integer" | "smallint" => Self::Integer,
            "boolean" => Self::Bool,
            "TEXT" | "text" => Self::Text,
            "BLOB" | "bytea" => Self::Bytes,
            "uuid" => Self::Uuid,
            _ => return None,
        })
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type on this engine.
    pub kind: Kind,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns, by name.
    pub columns: Vec<Column>,
    /// The columns of its primary key, in the key's order.
    pub primary_key: Vec<Column>,
    /// The other tables that its rows refer to.
    pub references: BTreeSet<String>,
}

/// A value of a row, the same for both engines: a truth value is 0 or 1, a row id its 16 bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Cell {
    /// Nothing.
    Null,
    /// An integer.
    Integer(i64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A row may hold anything, and nobody needs to read it in a message.
        f.write_str("Cell(..)")
    }
}

impl Cell {
    /// The value as a column of this type takes it.
    ///
    /// # Errors
    /// `Corrupt` where the column cannot hold it.
    pub fn bind(self, kind: Kind) -> Result<Value, StorageError> {
        let misfit = || StorageError::Corrupt("a value has another type than its column".to_owned());
        Ok(match (self, kind) {
            (Self::Null, Kind::Integer) => Value::Integer(None),
            (Self::Null, Kind::Bool) => Value::Bool(None),
            (Self::Null, Kind::Text) => Value::Text(None),
            (Self::Null, Kind::Bytes) => Value::Bytes(None),
            (Self::Null, Kind::Uuid) => Value::Uuid(None),
            (Self::Integer(value), Kind::Integer) => Value::Integer(Some(value)),
            (Self::Integer(value @ (0 | 1)), Kind::Bool) => Value::Bool(Some(value == 1)),
            (Self::Text(value), Kind::Text) => Value::Text(Some(value)),
            (Self::Bytes(value), Kind::Bytes) => Value::Bytes(Some(value)),
            (Self::Bytes(value), Kind::Uuid) => {
                Value::Uuid(Some(uuid::Uuid::from_slice(&value).map_err(|_| misfit())?))
            }
            _ => return Err(misfit()),
        })
    }
}

/// All tables, a table after those that it refers to. Bookkeeping of migrations is left out.
///
/// # Errors
/// `Corrupt` where a column has a type that this crate does not use, or tables refer to each other in a circle.
pub async fn tables(db: &Db) -> Result<Vec<Table>, StorageError> {
    let mut tables = BTreeMap::<String, Table>::new();
    for row in db.read(query(columns_sql(db.engine()))).await? {
        let (name, column, kind): (String, String, String) =
            (row.get("table_name")?, row.get("column_name")?, row.get("kind")?);
        let kind = Kind::parse(&kind)
            .ok_or_else(|| StorageError::Corrupt(format!("{name}.{column} has the type {kind}")))?;
        let table = tables.entry(name.clone()).or_insert_with(|| Table {
            name,
            columns: Vec::new(),
            primary_key: Vec::new(),
            references: BTreeSet::new(),
        });
        table.columns.push(Column { name: column, kind });
    }
    for row in db.read(query(keys_sql(db.engine()))).await? {
        let (name, column): (String, String) = (row.get("table_name")?, row.get("column_name")?);
        if let Some(table) = tables.get_mut(&name) {
            table.primary_key.extend(table.columns.iter().find(|known| known.name == column).cloned());
        }
    }
    for row in db.read(query(references_sql(db.engine()))).await? {
        let (name, other): (String, String) = (row.get("table_name")?, row.get("other")?);
        if let Some(table) = tables.get_mut(&name).filter(|table| table.name != other) {
            table.references.insert(other);
        }
    }
    in_order(tables)
}

fn in_order(mut tables: BTreeMap<String, Table>) -> Result<Vec<Table>, StorageError> {
    let mut ordered: Vec<Table> = Vec::new();
    while !tables.is_empty() {
        let ready =
            tables.values().find(|table| !table.references.iter().any(|other| tables.contains_key(other)));
        let Some(name) = ready.map(|table| table.name.clone()) else {
            return Err(StorageError::Corrupt("tables refer to each other in a circle".to_owned()));
        };
        ordered.extend(tables.remove(&name));
    }
    Ok(ordered)
}

/// Rows of a table in the order of its primary key, at most `limit` of those after `after`, which holds the key's
/// values, or from the start where it is empty.
///
/// # Errors
/// Where the table has no primary key, besides those of any statement.
pub async fn rows(
    source: impl Source,
    table: &Table,
    columns: &[&Column],
    after: &[Cell],
    limit: u32,
) -> Result<Vec<Vec<Cell>>, StorageError> {
    if table.primary_key.is_empty() {
        return Err(StorageError::Corrupt(format!("{} has no primary key", table.name)));
    }
    let names = |columns: &[&Column]| {
        columns.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ")
    };
    let key = names(&table.primary_key.iter().collect::<Vec<_>>());
    let mut values = Vec::new();
    let mut later = String::new();
    if !after.is_empty() {
        for (cell, column) in after.iter().zip(&table.primary_key) {
            values.push(cell.clone().bind(column.kind)?);
        }
        let parameters: Vec<_> = (1..=values.len()).map(|number| format!("${number}")).collect();
        later = format!("WHERE ({key}) > ({})", parameters.join(", "));
    }
    values.push(limit.into());
    let sql = format!(
        "SELECT {} FROM {} {later} ORDER BY {key} LIMIT ${}",
        names(columns),
        quoted(&table.name),
        values.len()
    );
    source.fetch(query(sql).bind_all(values)).await?.iter().map(Row::cells).collect()
}

/// A name as part of a statement. Names come from the schema, so this is for words such as `order`.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Row {
    /// All values, in the order of the statement.
    ///
    /// # Errors
    /// `Corrupt` where one has a type that this crate does not use.
    pub fn cells(&self) -> Result<Vec<Cell>, StorageError> {
        let unknown = |kind: &str| StorageError::Corrupt(format!("a value has the type {kind}"));
        match self {
            Self::Sqlite(row) => (0..row.columns().len())
                .map(|index| {
                    let raw = row.try_get_raw(index)?;
                    Ok(match (raw.is_null(), raw.type_info().name()) {
                        (true, _) => Cell::Null,
                        (_, "INTEGER") => Cell::Integer(row.try_get_unchecked(index)?),
                        (_, "TEXT") => Cell::Text(row.try_get_unchecked(index)?),
                        (_, "BLOB") => Cell::Bytes(row.try_get_unchecked(index)?),
                        (_, other) => return Err(unknown(other)),
                    })
                })
                .collect(),
            Self::Postgres(row) => row
                .columns()
                .iter()
                .enumerate()
                .map(|(index, column)| {
                    if row.try_get_raw(index)?.is_null() {
                        return Ok(Cell::Null);
                    }
                    Ok(match column.type_info().name() {
                        "INT8" => Cell::Integer(row.try_get(index)?),
                        "INT4" => Cell::Integer(row.try_get::<i32, _>(index)?.into()),
                        "INT2" => Cell::Integer(row.try_get::<i16, _>(index)?.into()),
                        "BOOL" => Cell::Integer(row.try_get::<bool, _>(index)?.into()),
                        "TEXT" => Cell::Text(row.try_get(index)?),
                        "BYTEA" => Cell::Bytes(row.try_get(index)?),
                        "UUID" => Cell::Bytes(row.try_get::<uuid::Uuid, _>(index)?.as_bytes().to_vec()),
                        other => return Err(unknown(other)),
                    })
                })
                .collect(),
        }
    }
}

fn columns_sql(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => {
            "SELECT t.name AS table_name, c.name AS column_name, c.type AS kind \
             FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' \
             AND t.name NOT LIKE '\\_sqlx%' ESCAPE '\\' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
             ORDER BY t.name, c.name"
        }
        Engine::Postgres => {
            "SELECT CAST(c.table_name AS TEXT) AS table_name, CAST(c.column_name AS TEXT) AS column_name, \
             CAST(c.data_type AS TEXT) AS kind \
             FROM information_schema.columns c JOIN information_schema.tables t \
             ON t.table_schema = c.table_schema AND t.table_name = c.table_name \
             WHERE c.table_schema = current_schema() AND t.table_type = 'BASE TABLE' \
             AND c.table_name <> '_sqlx_migrations' ORDER BY 1, 2"
        }
    }
}

fn keys_sql(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => {
            "SELECT t.name AS table_name, c.name AS column_name FROM sqlite_schema t \
             JOIN pragma_table_info(t.name) c WHERE t.type = 'table' AND c.pk > 0 ORDER BY t.name, c.pk"
        }
        Engine::Postgres => {
            "SELECT CAST(c.relname AS TEXT) AS table_name, CAST(a.attname AS TEXT) AS column_name \
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid \
             CROSS JOIN LATERAL unnest(k.conkey) WITH ORDINALITY AS p(number, place) \
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.number \
             WHERE k.contype = 'p' AND c.relnamespace = to_regnamespace(current_schema()) ORDER BY c.relname, p.place"
        }
    }
}

fn references_sql(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => {
            "SELECT t.name AS table_name, f.\"table\" AS other FROM sqlite_schema t \
             JOIN pragma_foreign_key_list(t.name) f WHERE t.type = 'table'"
        }
        Engine::Postgres => {
            "SELECT CAST(c.relname AS TEXT) AS table_name, CAST(o.relname AS TEXT) AS other \
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class o ON o.oid = k.confrelid \
             WHERE k.contype = 'f' AND c.relnamespace = to_regnamespace(current_schema())"
        }
    }
}
