//! Lists: a filter, an order and a keyset position rendered as SQL.

use std::collections::BTreeMap;
use std::fmt::Write;

use agentrouter_kernel::filter::{FieldKind, Filter, Operand, Operator, OrderBy};
use agentrouter_kernel::page::{CursorValue, PageCursor, PageSize};
use uuid::Uuid;

use crate::query::{Query, query};
use crate::row::Row;
use crate::value::Value;
use crate::{FromRow, Source, StorageError};

/// A list over one table or join. Column names are constants of the caller; values are bound.
#[derive(Debug)]
pub struct List<'a> {
    /// The statement up to and with its `WHERE` and the conditions that hold for every page, without
    /// `ORDER BY` or `LIMIT`. Its parameters are `$1` to `$n`.
    pub select: &'a str,
    /// The values of those parameters.
    pub values: Vec<Value>,
    /// Which rows to list.
    pub filter: &'a Filter,
    /// The order; the row id is appended to make it total.
    pub order: &'a [OrderBy],
    /// The column of the row id.
    pub id_column: &'static str,
    /// Whether the row id descends, too.
    pub id_descending: bool,
    /// Where the previous page ended.
    pub after: Option<&'a PageCursor>,
    /// How many rows.
    pub size: PageSize,
}

/// One page.
#[derive(Debug)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the page ended, if another one follows.
    pub next: Option<PageCursor>,
}

impl List<'_> {
    /// Reads the page.
    ///
    /// # Errors
    /// `Corrupt` where the cursor does not fit the order, besides those of any statement.
    pub async fn fetch<T: FromRow>(self, source: impl Source) -> Result<Page<T>, StorageError> {
        let size = self.size.get();
        let keys = self.keys();
        let rows = source.fetch(self.query(&keys)?).await?;
        let items = rows.iter().take(size).map(T::from_row).collect::<Result<Vec<_>, _>>()?;
        let next = match rows.get(size.wrapping_sub(1)) {
            Some(last) if rows.len() > size => Some(cursor_of(last, &keys)?),
            _ => None,
        };
        Ok(Page { items, next })
    }

    fn keys(&self) -> Vec<OrderBy> {
        let mut keys = self.order.to_vec();
        keys.push(OrderBy {
            column: self.id_column,
            descending: self.id_descending,
            kind: FieldKind::Id(""),
        });
        keys
    }

    fn query(&self, keys: &[OrderBy]) -> Result<Query, StorageError> {
        let mut text = Text { sql: self.select.to_owned(), values: self.values.clone() };
        if *self.filter != Filter::everything() {
            text.push(" AND ");
            text.filter(self.filter);
        }
        if let Some(after) = self.after {
            if after.len() != keys.len() {
                return Err(StorageError::Corrupt("a page token has the wrong number of keys".to_owned()));
            }
            text.push(" AND ");
            text.after(keys, after);
        }
        text.push(" ORDER BY ");
        for (index, key) in keys.iter().enumerate() {
            text.push(if index > 0 { ", " } else { "" });
            text.push(key.column);
            text.push(if key.descending { " DESC" } else { "" });
        }
        text.push(" LIMIT ");
        text.value(self.size.limit());
        Ok(query(text.sql).bind_all(text.values))
    }
}

fn cursor_of(row: &Row, keys: &[OrderBy]) -> Result<PageCursor, StorageError> {
    keys.iter()
        .map(|key| {
            // Statements select sort columns under their bare names.
            let name = key.column.rsplit('.').next().unwrap_or(key.column);
            Ok(match key.kind {
                FieldKind::Text | FieldKind::Enum(_) | FieldKind::Labels => CursorValue::Text(row.get(name)?),
                FieldKind::Time => CursorValue::Integer(row.get(name)?),
                FieldKind::Id(_) => CursorValue::Uuid(row.get::<Uuid>(name)?.as_u128()),
            })
        })
        .collect()
}

struct Text {
    sql: String,
    values: Vec<Value>,
}

impl Text {
    fn push(&mut self, text: &str) {
        self.sql.push_str(text);
    }

    fn value(&mut self, value: impl Into<Value>) {
        self.values.push(value.into());
        // Writing to a String cannot fail.
        let _ = write!(self.sql, "${}", self.values.len());
    }

    fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::All(parts) if parts.is_empty() => self.push("(1 = 1)"),
            Filter::All(parts) => self.joined(parts, " AND "),
            Filter::Any(parts) => self.joined(parts, " OR "),
            Filter::Not(inner) => {
                self.push("(NOT ");
                self.filter(inner);
                self.push(")");
            }
            Filter::Compare(column, operator, operand) => self.comparison(column, *operator, operand),
        }
    }

    fn joined(&mut self, parts: &[Filter], separator: &str) {
        self.push("(");
        for (index, part) in parts.iter().enumerate() {
            self.push(if index > 0 { separator } else { "" });
            self.filter(part);
        }
        self.push(")");
    }

    fn comparison(&mut self, column: &str, operator: Operator, operand: &Operand) {
        let symbol = match operator {
            Operator::Equal | Operator::Has => " = ",
            Operator::NotEqual => " <> ",
            Operator::Less => " < ",
            Operator::LessOrEqual => " <= ",
            Operator::Greater => " > ",
            Operator::GreaterOrEqual => " >= ",
        };
        match operand {
            Operand::Text(text) if operator == Operator::Has => self.contains(column, text),
            Operand::Text(text) => self.simple(column, symbol, text.as_str()),
            Operand::Time(time) => self.simple(column, symbol, *time),
            Operand::Id(Some(id)) => self.simple(column, symbol, Uuid::from_u128(*id)),
            Operand::Id(None) => {
                self.push(if operator == Operator::NotEqual { "(1 = 1)" } else { "(1 = 0)" });
            }
            Operand::Label(key, value) => {
                self.push(if operator == Operator::NotEqual { "(NOT " } else { "(" });
                self.label(column, key, value.as_deref());
                self.push(")");
            }
        }
    }

    fn simple(&mut self, column: &str, symbol: &str, value: impl Into<Value>) {
        self.push("(");
        self.push(column);
        self.push(symbol);
        self.value(value);
        self.push(")");
    }

    // `LIKE` ignores case on one engine and not on the other; `replace` is the same on both.
    fn contains(&mut self, column: &str, text: &str) {
        if text.is_empty() {
            return self.push("(1 = 1)");
        }
        self.push("(replace(");
        self.push(column);
        self.push(", ");
        self.value(text);
        self.push(", '') <> ");
        self.push(column);
        self.push(")");
    }

    // Labels are stored as canonical JSON of a flat map, where a quote inside a text is always escaped. So an
    // entry is there exactly if its text is, after the opening brace or a comma.
    fn label(&mut self, column: &str, key: &str, value: Option<&str>) {
        let json = |text: &str| serde_json::Value::from(text).to_string();
        let entry = match value {
            Some(value) => format!("{}:{}", json(key), json(value)),
            None => format!("{}:", json(key)),
        };
        self.push("(");
        self.contains(column, &format!("{{{entry}"));
        self.push(" OR ");
        self.contains(column, &format!(",{entry}"));
        self.push(")");
    }

    // (a, b, id) after (x, y, z), each column in its own direction.
    fn after(&mut self, keys: &[OrderBy], after: &[CursorValue]) {
        // The alternatives imply this bound, but an engine enters an index only by a condition that stands alone:
        // without it, a page would cost as much as all the pages before it.
        if let ([first, _, ..], Some(value)) = (keys, after.first()) {
            self.simple(first.column, if first.descending { " <= " } else { " >= " }, value.clone());
            self.push(" AND ");
        }
        self.push("(");
        for end in 0..keys.len() {
            self.push(if end > 0 { " OR (" } else { "(" });
            for (key, value) in keys.iter().zip(after).take(end) {
                self.simple(key.column, " = ", value.clone());
                self.push(" AND ");
            }
            if let (Some(key), Some(value)) = (keys.get(end), after.get(end)) {
                self.simple(key.column, if key.descending { " < " } else { " > " }, value.clone());
            }
            self.push(")");
        }
        self.push(")");
    }
}

/// The canonical text of labels: JSON with sorted keys, as [`List`] filters expect it.
pub fn labels_to_text(labels: &BTreeMap<String, String>) -> String {
    // A map of texts always has a JSON form.
    serde_json::to_string(labels).unwrap_or_default()
}

/// Reads labels back.
///
/// # Errors
/// `Corrupt` where the text is none of [`labels_to_text`].
pub fn labels_from_text(text: &str) -> Result<BTreeMap<String, String>, StorageError> {
    serde_json::from_str(text).map_err(|error| StorageError::Corrupt(format!("labels: {error}")))
}
