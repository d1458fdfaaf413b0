//! Purging, against the schema as it is: whatever tables there are, a purged customer is in none of them.

use std::collections::BTreeMap;

use agentrouter_api::common::PageRequest;
use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::tenancy_service_server::TenancyService;
use agentrouter_kernel::id::{Customer, Id};
use agentrouter_storage::catalog::{self, Cell, Kind, Table};
use agentrouter_storage::{Db, query};
use agentrouter_testkit::{TestDb, refused, violations};
use tonic::Code;
use uuid::Uuid;

use crate::{World, archive, by, by_with_key, id_of, undelete};

agentrouter_testkit::on_both_engines!(
    a_purged_customer_is_in_no_table,
    a_purge_takes_many_steps,
    a_purge_that_was_cut_off_goes_on,
    only_archived_customers_are_purged,
    numbers_of_workspaces_are_not_given_again,
);

/// Tables of the installation, whose rows belong to no customer.
const NOBODYS: [&str; 4] = ["customers", "retired_keks", "retired_workspace_numbers", "server_secrets"];
/// Tables whose rows belong to a customer by the row they refer to.
const BY_REFERENCE: [&str; 1] = ["api_key_secrets"];
/// Where the purge itself leaves something: who did it.
const WITNESSES: [&str; 1] = ["audit_entries"];

fn purge(name: &str) -> pb::PurgeCustomerRequest {
    pb::PurgeCustomerRequest { customer_id: name.to_owned() }
}

fn missing() -> (Code, String) {
    (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned())
}

type Rows = BTreeMap<String, Vec<Vec<Cell>>>;

/// Every row of every table.
async fn dump(db: &Db) -> Rows {
    let mut rows = Rows::new();
    for table in catalog::tables(db).await.unwrap() {
        let columns: Vec<_> = table.columns.iter().collect();
        let found = catalog::rows(db, &table, &columns, &[], 100_000).await.unwrap();
        rows.insert(table.name.clone(), found);
    }
    rows
}

/// Writes one row for a customer into every table that has rows of customers. What a row refers to is known by the
/// names of its columns, and every other value is one that no other row has.
async fn fill(db: &Db, customer: Id<Customer>) {
    let mut known = BTreeMap::from([("customer_id".to_owned(), customer.uuid())]);
    for table in catalog::tables(db).await.unwrap() {
        let is_owned = table.columns.iter().any(|column| column.name == "customer_id");
        let is_known = NOBODYS.contains(&table.name.as_str()) || BY_REFERENCE.contains(&table.name.as_str());
        assert!(is_owned || is_known, "whose are the rows of {}? Purging has to know", table.name);
        // A customer has its sequence from its beginning.
        if NOBODYS.contains(&table.name.as_str()) || table.name == "customer_sequences" {
            continue;
        }
        let row = insert(db, &table, &known).await;
        let singular = match table.name.as_str() {
            "identities" => "identity_id".to_owned(),
            "liaison_configurations" => "configuration_id".to_owned(),
            "dataplane_upgrades" => "event_id".to_owned(),
            other => format!("{}_id", other.trim_end_matches('s')),
        };
        known.entry(singular).or_insert(row);
    }
}

/// Inserts a row and returns its first row id.
async fn insert(db: &Db, table: &Table, known: &BTreeMap<String, Uuid>) -> Uuid {
    let mut id = Uuid::nil();
    let mut values = Vec::new();
    for (index, column) in table.columns.iter().enumerate() {
        let unique = Uuid::from_u128(rand());
        let is_key = table.primary_key.first().is_some_and(|key| key.name == column.name);
        let is_uuid =
            column.kind == Kind::Uuid || (column.kind == Kind::Bytes && column.name.ends_with("id"));
        let cell = match column.kind {
            _ if is_uuid => {
                let value =
                    known.get(&column.name).filter(|_| column.name != "id").copied().unwrap_or(unique);
                if is_key {
                    id = value;
                }
                Cell::Bytes(value.as_bytes().to_vec())
            }
            Kind::Bytes => Cell::Bytes(unique.as_bytes().to_vec()),
            Kind::Text => Cell::Text(unique.to_string()),
            Kind::Bool => Cell::Integer(1),
            // Truth values are integers on SQLite.
            Kind::Integer if is_truth(&column.name) => Cell::Integer(1),
            Kind::Integer | Kind::Uuid => Cell::Integer(1_000 + i64::try_from(index).unwrap() + small()),
        };
        values.push(cell.bind(column.kind).unwrap());
    }
    let names: Vec<_> = table.columns.iter().map(|column| catalog::quoted(&column.name)).collect();
    let places: Vec<_> = (1..=values.len()).map(|place| format!("${place}")).collect();
    let sql = format!(
        "INSERT INTO {} ({}) VALUES ({})",
        catalog::quoted(&table.name),
        names.join(", "),
        places.join(", ")
    );
    let mut tx = db.begin().await.unwrap();
    let inserted = query(sql).bind_all(values).execute(&mut tx).await;
    assert_eq!(inserted.unwrap_or_else(|error| panic!("{}: {error:?}", table.name)), 1);
    tx.commit_unaudited("test data").await.unwrap();
    id
}

fn is_truth(column: &str) -> bool {
    column.starts_with("is_") || ["deleted", "enabled", "stuck", "requires_auth"].contains(&column)
}

fn rand() -> u128 {
    u128::from_be_bytes(agentrouter_envelope::random_bytes().unwrap())
}

fn small() -> i64 {
    i64::from(u32::from_be_bytes(agentrouter_envelope::random_bytes().unwrap()))
}

async fn a_purged_customer_is_in_no_table(db: TestDb) {
    let world = World::new(db).await;
    let (acme, other) = (id_of(&world.create("acme").await), id_of(&world.create("other").await));
    let db = &world.db.db;
    fill(db, other).await;
    let before = dump(db).await;
    let acme_before = before["customers"].len();
    fill(db, acme).await;
    for (table, rows) in dump(db).await {
        if !NOBODYS.contains(&table.as_str()) && table != "customer_sequences" {
            assert_eq!(rows.len(), before[&table].len() + 1, "{table}");
        }
    }
    world.tenancy.archive_customer(by(&world.operator, archive("acme"))).await.unwrap();
    world.tenancy.purge_customer(by(&world.operator, purge("acme"))).await.unwrap();

    let after = dump(db).await;
    let acme_bytes = Cell::Bytes(acme.uuid().as_bytes().to_vec());
    for (table, rows) in &after {
        assert!(!rows.iter().flatten().any(|cell| *cell == acme_bytes), "{table}");
        let count = before[table].iter().filter(|row| !row.contains(&acme_bytes)).count();
        if WITNESSES.contains(&table.as_str()) {
            assert_eq!(rows.len(), count + 1, "{table}");
        } else if table != "retired_workspace_numbers" {
            assert_eq!(rows.len(), count, "{table}");
        }
        for row in before[table].iter().filter(|row| !row.contains(&acme_bytes)) {
            assert!(rows.contains(row), "a row of another customer is gone or changed in {table}");
        }
    }
    assert_eq!(after["customers"].len(), acme_before - 1);
    let witness = query("SELECT target AS value FROM audit_entries WHERE customer_id = $1 ORDER BY id DESC")
        .bind(world.operator.customer);
    assert_eq!(witness.value::<String>(db).await.unwrap(), Some(acme.to_string()));

    // The slug is free, and what comes under it is another customer.
    assert_eq!(refused(world.tenancy.purge_customer(by(&world.operator, purge("acme"))).await), missing());
    assert_ne!(id_of(&world.create("acme").await), acme);
}

async fn a_purge_takes_many_steps(db: TestDb) {
    const MANY: &str = "INSERT INTO audit_entries (id, customer_id, created_at, actor_kind, actor_id, action, target, \
         outcome, reason, request_id, peer, count) VALUES ($1, $2, 1, '', '', '', '', '', '', '', '', 1)";
    let world = World::new(db).await;
    let acme = id_of(&world.create("acme").await);
    let mut tx = world.db.db.begin().await.unwrap();
    for _ in 0..2_500 {
        query(MANY).bind(Uuid::from_u128(rand())).bind(acme).execute(&mut tx).await.unwrap();
    }
    tx.commit_unaudited("test data").await.unwrap();
    world.tenancy.archive_customer(by(&world.operator, archive("acme"))).await.unwrap();
    let once = by_with_key(&world.operator, "once", purge("acme"));
    world.tenancy.purge_customer(once).await.unwrap();
    assert_eq!(world.count("SELECT CAST(COUNT(*) AS BIGINT) AS value FROM audit_entries").await, 1);
    let again = by_with_key(&world.operator, "once", purge("acme"));
    world.tenancy.purge_customer(again).await.unwrap();
}

async fn a_purge_that_was_cut_off_goes_on(db: TestDb) {
    let world = World::new(db).await;
    let acme = id_of(&world.create("acme").await);
    world.tenancy.archive_customer(by(&world.operator, archive("acme"))).await.unwrap();
    let mut tx = world.db.db.begin().await.unwrap();
    query("UPDATE customers SET purge_began_at = :now WHERE id = $1")
        .bind(acme)
        .execute(&mut tx)
        .await
        .unwrap();
    tx.commit_unaudited("as the first transaction leaves it").await.unwrap();

    // It cannot come back, it is not shown, and its slug is not free yet.
    assert_eq!(
        refused(world.tenancy.undelete_customer(by(&world.operator, undelete("acme"))).await),
        missing()
    );
    let list = pb::ListCustomersRequest { show_deleted: true, page: Some(PageRequest::default()) };
    let listed = world.tenancy.list_customers(by(&world.operator, list)).await.unwrap().into_inner();
    assert_eq!(
        listed.customers.iter().map(|found| found.customer_id.as_str()).collect::<Vec<_>>(),
        ["default"]
    );
    let create = pb::CreateCustomerRequest { customer_id: "acme".to_owned(), ..Default::default() };
    let taken = world.tenancy.create_customer(by(&world.operator, create)).await;
    assert_eq!(refused(taken), (Code::AlreadyExists, "CUSTOMER_ALREADY_EXISTS".to_owned()));

    assert_eq!(agentrouter_tenancy::finish_purges(&world.db.db).await.unwrap(), 1);
    assert_eq!(agentrouter_tenancy::finish_purges(&world.db.db).await.unwrap(), 0);
    world.create("acme").await;
}

async fn only_archived_customers_are_purged(db: TestDb) {
    let world = World::new(db).await;
    world.create("acme").await;
    let live = refused(world.tenancy.purge_customer(by(&world.operator, purge("acme"))).await);
    assert_eq!(live, (Code::FailedPrecondition, "CUSTOMER_NOT_ARCHIVED".to_owned()));
    let nobody = refused(world.tenancy.purge_customer(by(&world.operator, purge("nobody"))).await);
    assert_eq!(nobody, missing());
    assert_eq!(
        violations(world.tenancy.purge_customer(by(&world.operator, purge(""))).await),
        ["customer_id"]
    );
    world.get("acme").await.unwrap();
    world.tenancy.archive_customer(by(&world.operator, archive("acme"))).await.unwrap();
    world.tenancy.undelete_customer(by(&world.operator, undelete("acme"))).await.unwrap();
    world.get("acme").await.unwrap();
}

async fn numbers_of_workspaces_are_not_given_again(db: TestDb) {
    let world = World::new(db).await;
    for (slug, workspaces) in [("acme", 3), ("other", 1), ("empty", 0)] {
        let customer = id_of(&world.create(slug).await);
        for index in 0..workspaces {
            world.db.workspace(customer, &format!("ws-{index}")).await;
        }
        world.tenancy.archive_customer(by(&world.operator, archive(slug))).await.unwrap();
        world.tenancy.purge_customer(by(&world.operator, purge(slug))).await.unwrap();
    }
    let kept = query("SELECT highest AS value FROM retired_workspace_numbers");
    assert_eq!(kept.values::<i64>(&world.db.db).await.unwrap(), [3]);
}
