//! What is sealed, and where it opens.

use std::collections::{BTreeMap, BTreeSet};

use agentrouter::sealed::{SEALED, Sealed};
use agentrouter_envelope::{EnvelopeError, Keyring};
use agentrouter_storage::Db;
use agentrouter_storage::catalog::{self, Cell, Column, Kind, Table};
use agentrouter_testkit::{TestDb, postgres};

use crate::common::{KEK, TestServer};
use crate::populated::populate;

/// Columns of bytes that hold no sealed value, and why.
const PLAIN: &[(&str, &str)] = &[
    ("api_key_secrets.key_hash", "a hash"),
    ("server_secrets.public_part", "public"),
    ("idempotency_records.request_hash", "a hash"),
    ("liaison_configurations.content", "credentials are named by id and version"),
    ("liaison_configuration_versions.content", "likewise"),
    ("liaison_configuration_events.resources", "which resources were rejected"),
    ("liaison_configuration_events.metadata", "the metadata of an instruction"),
    ("dataplane_upgrades.metadata", "likewise"),
    ("workspace_sync.doctor_runtime", "what a worker tells of its data plane"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_column_of_bytes_is_known() {
    let test = postgres().await;
    let tables = catalog::tables(&test.db).await.unwrap();
    let bytes = |table: &Table| {
        let bytes = table.columns.iter().filter(|column| column.kind == Kind::Bytes);
        bytes.map(|column| format!("{}.{}", table.name, column.name)).collect::<Vec<_>>()
    };
    let found: BTreeSet<String> = tables.iter().flat_map(bytes).collect();
    let sealed = SEALED.iter().map(|sealed| format!("{}.{}", sealed.table, sealed.column));
    let known: BTreeSet<String> = PLAIN.iter().map(|(name, _)| (*name).to_owned()).chain(sealed).collect();
    let differing: Vec<_> = found.symmetric_difference(&known).collect();
    assert!(differing.is_empty(), "rotating keys would lose what is sealed here, if it is: {differing:?}");
}

// Behaviour 47: a ciphertext copied to another row, of the same tenant or another one, does not open; so for every
// column that holds any.
pub(crate) async fn a_sealed_value_opens_where_it_belongs_only(db: TestDb) {
    let server = TestServer::start(db).await;
    populate(&server).await;
    let keyring = Keyring::parse(KEK).unwrap();
    let tables = catalog::tables(&server.test_db.db).await.unwrap();
    let mut values = BTreeMap::new();
    for sealed in SEALED {
        let rows = rows(&server.test_db.db, &tables, sealed).await;
        let name = format!("{}.{}", sealed.table, sealed.column);
        for (place, (_, value)) in rows.iter().enumerate() {
            for (other, (binding, _)) in rows.iter().enumerate() {
                let aad = (sealed.bound_to)(binding).unwrap();
                let opened = keyring.open(&aad, value).map(|_| ());
                if place == other {
                    assert_eq!(opened, Ok(()), "{name}");
                } else {
                    assert_eq!(opened, Err(EnvelopeError::DoesNotOpen), "{name} copied to another row");
                }
            }
        }
        values.insert(name, rows.len());
    }
    // Two rows at least, and of two tenants where tenants have them.
    let few: Vec<_> = values.iter().filter(|(_, rows)| **rows < 2).collect();
    assert!(few.is_empty(), "{values:?}");
    server.stop().await;
}

/// What every value of a column is bound by, and the value.
async fn rows(db: &Db, tables: &[Table], sealed: &Sealed) -> Vec<(Vec<Cell>, Vec<u8>)> {
    let table = tables.iter().find(|table| table.name == sealed.table).unwrap();
    let column = |name: &str| table.columns.iter().find(|column| column.name == name).unwrap();
    let columns: Vec<&Column> =
        std::iter::once(sealed.column).chain(sealed.binding.iter().copied()).map(column).collect();
    let rows = catalog::rows(db, table, &columns, &[], 50).await.unwrap();
    let values = rows.into_iter().filter_map(|row| match row.split_first() {
        Some((Cell::Bytes(value), binding)) => Some((binding.to_vec(), value.clone())),
        _ => None,
    });
    values.collect()
}
