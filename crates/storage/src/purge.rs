//! Removing everything that belongs to a customer, a bounded number of rows at a time.
//!
//! Which tables there are, and in what order their rows may go, is read from the schema: a table that is added later is
//! purged, too, as long as its rows say whose they are.

use agentrouter_kernel::id::{Customer, Id};

use crate::catalog::{self, Table};
use crate::error::StorageError;
use crate::query::query;
use crate::{Db, Tx};

/// The column that says whose a row is.
const OWNER: &str = "customer_id";
/// Tables whose rows belong to a customer by the row that they refer to, and the condition that finds them.
const BY_REFERENCE: &[(&str, &str)] =
    &[("api_key_secrets", "api_key_id IN (SELECT id FROM api_keys WHERE customer_id = $1)")];
/// Tables without an index by customer alone, and the conditions under which there are some.
const IN_PARTS: &[(&str, &[&str])] =
    &[("liaison_configuration_events", &["is_open = TRUE", "is_open = FALSE"])];

/// What a purge has to do, in order.
#[derive(Debug)]
pub struct Plan(Vec<String>);

impl Plan {
    /// The statements that empty the tables of a customer, rows that refer to others first.
    ///
    /// # Errors
    /// Those of reading the schema.
    pub async fn read(db: &Db) -> Result<Self, StorageError> {
        let tables = catalog::tables(db).await?;
        Ok(Self(tables.iter().rev().flat_map(statements).collect()))
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no table belongs to customers.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes up to `limit` rows of a step; returns how many there were. Fewer than the limit are the last ones.
    ///
    /// # Errors
    /// Those of the statement.
    pub async fn step(
        &self,
        tx: &mut Tx,
        step: usize,
        customer: Id<Customer>,
        limit: i64,
    ) -> Result<u64, StorageError> {
        let Some(statement) = self.0.get(step) else { return Ok(0) };
        query(statement.clone()).bind(customer).bind(limit).execute(tx).await
    }
}

fn statements(table: &Table) -> Vec<String> {
    let by_reference = BY_REFERENCE.iter().find(|(name, _)| *name == table.name);
    let owned = table.columns.iter().any(|column| column.name == OWNER).then_some("customer_id = $1");
    let Some(condition) = by_reference.map(|(_, condition)| *condition).or(owned) else { return Vec::new() };
    let key =
        table.primary_key.iter().map(|column| catalog::quoted(&column.name)).collect::<Vec<_>>().join(", ");
    let name = catalog::quoted(&table.name);
    let parts =
        IN_PARTS.iter().find(|(name, _)| *name == table.name).map_or(&["TRUE"][..], |(_, parts)| parts);
    let delete = |part: &&str| {
        format!(
            "DELETE FROM {name} WHERE ({key}) IN (SELECT {key} FROM {name} WHERE {condition} AND {part} LIMIT $2)"
        )
    };
    parts.iter().map(delete).collect()
}
