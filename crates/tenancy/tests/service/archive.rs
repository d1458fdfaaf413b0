//! Archiving and bringing back.

use std::time::Duration;

use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::tenancy_service_server::TenancyService;
use agentrouter_delivery::{Slot, lay_out_workspace, regenerate};
use agentrouter_kernel::Timestamp;
use agentrouter_kernel::archive::UNDELETE_WINDOW;
use agentrouter_kernel::id::{Customer, Id, Workspace};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, admin, operator, refused};
use tonic::Code;

use crate::{Key, World, archive, by, by_with_key, get, id_of, insert_key, undelete};

agentrouter_testkit::on_both_engines!(
    an_archived_customer_is_missing,
    an_admin_archives_its_own_customer,
    archiving_checks_the_etag,
    archiving_supersedes_open_events,
    the_last_operator_key_stays,
    only_live_operator_keys_count,
    two_archives_do_not_rely_on_each_other,
    bringing_back_restores_what_was_there,
    bringing_back_ends_after_thirty_days,
    only_archived_customers_are_brought_back,
    a_repeated_archive_gets_its_answer_again,
);

fn missing() -> (Code, String) {
    (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned())
}

fn last_key() -> (Code, String) {
    (Code::FailedPrecondition, "LAST_OPERATOR_KEY".to_owned())
}

async fn an_archived_customer_is_missing(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("acme").await;
    world.tenancy.archive_customer(by(&world.operator, archive("acme"))).await.unwrap();
    for name in ["acme", &made.id] {
        assert_eq!(refused(world.get(name).await), missing());
        let update = pb::UpdateCustomerRequest { customer_id: name.into(), ..Default::default() };
        assert_eq!(refused(world.tenancy.update_customer(by(&world.operator, update)).await), missing());
        assert_eq!(
            refused(world.tenancy.archive_customer(by(&world.operator, archive(name))).await),
            missing()
        );
    }
    // Even to a call of its own that was admitted just before.
    let own = admin(id_of(&made), "acme");
    assert_eq!(refused(world.tenancy.get_customer(by(&own, get("acme"))).await), missing());
    assert_eq!(refused(world.tenancy.archive_customer(by(&own, archive("acme"))).await), missing());

    let list = pb::ListCustomersRequest { show_deleted: true, ..Default::default() };
    let list = world.tenancy.list_customers(by(&world.operator, list)).await.unwrap().into_inner();
    let [archived, default] = list.customers.as_slice() else { panic!("{list:?}") };
    assert_eq!(default.customer_id, "default");
    assert_eq!(archived.state(), pb::CustomerState::Archived);
    assert!(archived.archived_at.is_some());
    assert_eq!(archived.archived_at, archived.updated_at);
    assert_ne!(archived.etag, made.etag);
}

async fn an_admin_archives_its_own_customer(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("acme").await;
    let own = admin(id_of(&made), "acme");
    world.tenancy.archive_customer(by(&own, archive(&made.id))).await.unwrap();
    assert_eq!(refused(world.get("acme").await), missing());
}

// Behaviour 42: a customer is not archived with an etag that is not its own; with its own, and without one, it is.
async fn archiving_checks_the_etag(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("acme").await;
    let with_etag = |etag: &str| pb::ArchiveCustomerRequest { etag: etag.into(), ..archive("acme") };
    let stale = world.tenancy.archive_customer(by(&world.operator, with_etag("r77"))).await;
    assert_eq!(refused(stale), (Code::Aborted, "ETAG_MISMATCH".to_owned()));
    assert_eq!(world.get("acme").await.unwrap().into_inner(), made);
    world.tenancy.archive_customer(by(&world.operator, with_etag(&made.etag))).await.unwrap();
}

/// Gives a workspace a pending event.
async fn deliver(world: &World, customer: Id<Customer>, workspace: Id<Workspace>) {
    let mut tx = world.db.db.begin().await.unwrap();
    let slot = Slot::global(customer, ConfigType::Providers);
    regenerate(&mut tx, &slot, EventType::Created).await.unwrap();
    lay_out_workspace(&mut tx, customer, workspace).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
}

async fn statuses(world: &World, customer: Id<Customer>) -> Vec<String> {
    query("SELECT status AS value FROM liaison_configuration_events WHERE customer_id = $1")
        .bind(customer)
        .values(&world.db.db)
        .await
        .unwrap()
}

async fn archiving_supersedes_open_events(db: TestDb) {
    let world = World::new(db).await;
    let acme = id_of(&world.create("acme").await);
    let other = id_of(&world.create("other").await);
    for customer in [acme, other] {
        let first = world.db.workspace(customer, "first").await;
        let second = world.db.workspace(customer, "second").await;
        deliver(&world, customer, first).await;
        deliver(&world, customer, second).await;
        assert_eq!(statuses(&world, customer).await, ["pending", "pending"]);
    }
    world.tenancy.archive_customer(by(&world.operator, archive("acme"))).await.unwrap();
    assert_eq!(statuses(&world, acme).await, ["superseded", "superseded"]);
    assert_eq!(statuses(&world, other).await, ["pending", "pending"]);
}

// Behaviour 43: the customer of the last operator key is not archived.
async fn the_last_operator_key_stays(db: TestDb) {
    let world = World::new(db).await;
    let default = world.operator.customer;
    assert_eq!(
        refused(world.tenancy.archive_customer(by(&world.operator, archive("default"))).await),
        last_key()
    );
    world.get("default").await.unwrap();
    let acme = id_of(&world.create("acme").await);
    insert_key(&world.db, acme, Key::default()).await;
    world.tenancy.archive_customer(by(&world.operator, archive("default"))).await.unwrap();
    // Now the other one holds the last key, whoever asks.
    for caller in [operator(acme, "acme"), admin(acme, "acme"), operator(default, "default")] {
        assert_eq!(refused(world.tenancy.archive_customer(by(&caller, archive("acme"))).await), last_key());
    }
}

async fn only_live_operator_keys_count(db: TestDb) {
    let world = World::new(db).await;
    let soon = world.db.db.now().await.unwrap().plus(Duration::from_mins(1));
    let past = Timestamp::from_secs(1_700_000_000);
    let other = world.db.customer("other").await;
    for key in [
        Key { kind: "gateway", ..Key::default() },
        Key { role: "admin", ..Key::default() },
        Key { expires_at: Some(past), ..Key::default() },
        Key { revoked_at: Some(past), ..Key::default() },
    ] {
        insert_key(&world.db, other, key).await;
    }
    let gone = world.create("gone").await;
    insert_key(&world.db, id_of(&gone), Key::default()).await;
    world.tenancy.archive_customer(by(&world.operator, archive("gone"))).await.unwrap();
    let result = world.tenancy.archive_customer(by(&world.operator, archive("default"))).await;
    assert_eq!(refused(result), last_key());

    insert_key(&world.db, other, Key { expires_at: Some(soon), ..Key::default() }).await;
    world.db.db.advance_clock(Duration::from_secs(61));
    let result = world.tenancy.archive_customer(by(&world.operator, archive("default"))).await;
    assert_eq!(refused(result), last_key());
    let later = world.db.db.now().await.unwrap().plus(Duration::from_mins(1));
    insert_key(&world.db, other, Key { expires_at: Some(later), ..Key::default() }).await;
    world.tenancy.archive_customer(by(&world.operator, archive("default"))).await.unwrap();
}

async fn two_archives_do_not_rely_on_each_other(db: TestDb) {
    let world = World::new(db).await;
    let acme = id_of(&world.create("acme").await);
    insert_key(&world.db, acme, Key::default()).await;
    for round in 0..8 {
        let (first, second) = tokio::join!(
            world.tenancy.archive_customer(by(&world.operator, archive("acme"))),
            world.tenancy.archive_customer(by(&world.operator, archive("default"))),
        );
        assert_ne!(first.is_ok(), second.is_ok(), "round {round}: {first:?} {second:?}");
        let winner = if first.is_ok() { "acme" } else { "default" };
        assert_eq!(refused(if first.is_ok() { second } else { first }), last_key());
        world.tenancy.undelete_customer(by(&world.operator, undelete(winner))).await.unwrap();
    }
}

async fn bringing_back_restores_what_was_there(db: TestDb) {
    const PROJECTS: &str =
        "SELECT slug AS value FROM projects WHERE customer_id = $1 AND deleted_at IS NULL ORDER BY slug";
    let world = World::new(db).await;
    let made = world.create("acme").await;
    let id = id_of(&made);
    world.db.project(id, "kept", false).await;
    world.db.project(id, "put-away", false).await;
    let mut tx = world.db.db.begin().await.unwrap();
    let put_away = "UPDATE projects SET deleted_at = created_at WHERE slug = 'put-away'";
    assert_eq!(query(put_away).execute(&mut tx).await.unwrap(), 1);
    tx.commit_unaudited("test data").await.unwrap();
    world.db.workspace(id, "plane").await;

    world.tenancy.archive_customer(by(&world.operator, archive("acme"))).await.unwrap();
    let back = world.tenancy.undelete_customer(by(&world.operator, undelete("acme"))).await.unwrap();
    let back = back.into_inner();
    assert_eq!(back.state(), pb::CustomerState::Active);
    assert_eq!(back.archived_at, None);
    assert_eq!(
        (&back.id, &back.customer_id, back.created_at),
        (&made.id, &made.customer_id, made.created_at)
    );
    assert_ne!(back.etag, made.etag);
    assert_eq!(world.get("acme").await.unwrap().into_inner(), back);
    let projects: Vec<String> = query(PROJECTS).bind(id).values(&world.db.db).await.unwrap();
    assert_eq!(projects, ["default", "kept"]);
    let live = "SELECT COUNT(*) AS value FROM workspaces WHERE deleted_at IS NULL";
    assert_eq!(world.count(live).await, 1);
}

async fn bringing_back_ends_after_thirty_days(db: TestDb) {
    let world = World::new(db).await;
    for slug in ["early", "late"] {
        world.create(slug).await;
        world.tenancy.archive_customer(by(&world.operator, archive(slug))).await.unwrap();
    }
    world.db.db.advance_clock(UNDELETE_WINDOW.saturating_sub(Duration::from_mins(1)));
    world.tenancy.undelete_customer(by(&world.operator, undelete("early"))).await.unwrap();
    world.db.db.advance_clock(Duration::from_secs(61));
    let result = world.tenancy.undelete_customer(by(&world.operator, undelete("late"))).await;
    assert_eq!(refused(result), (Code::FailedPrecondition, "UNDELETE_EXPIRED".to_owned()));
    assert_eq!(refused(world.get("late").await), missing());
}

async fn only_archived_customers_are_brought_back(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("acme").await;
    let live = (Code::FailedPrecondition, "CUSTOMER_NOT_ARCHIVED".to_owned());
    let undelete = |name: &str| world.tenancy.undelete_customer(by(&world.operator, undelete(name)));
    assert_eq!(refused(undelete("acme").await), live);
    assert_eq!(refused(undelete(&made.id).await), live);
    assert_eq!(refused(undelete("nobody").await), missing());
    assert_eq!(refused(undelete("cust_01K9ZZZZZZZZZZZZZZZZZZZZZZ").await), missing());
    assert_eq!(agentrouter_testkit::violations(undelete("").await), ["customer_id"]);
    assert_eq!(world.get("acme").await.unwrap().into_inner(), made);
}

async fn a_repeated_archive_gets_its_answer_again(db: TestDb) {
    let world = World::new(db).await;
    world.create("acme").await;
    for _ in 0..2 {
        let repeat = by_with_key(&world.operator, "once", archive("acme"));
        world.tenancy.archive_customer(repeat).await.unwrap();
    }
    let result = world.tenancy.archive_customer(by_with_key(&world.operator, "twice", archive("acme"))).await;
    assert_eq!(refused(result), missing());
}
