//! Creating, reading and updating.

use std::collections::BTreeMap;
use std::time::Duration;

use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::tenancy_service_server::TenancyService;
use agentrouter_kernel::id::{Customer, Id};
use agentrouter_storage::{query, row};
use agentrouter_tenancy::{NewCustomer, create_customer};
use agentrouter_testkit::{TestDb, admin, call, refused, request, violations};
use prost_types::FieldMask;
use tonic::Code;

use crate::{World, archive, by, get, id_of};

agentrouter_testkit::on_both_engines!(
    creating_answers_with_the_customer,
    a_new_customer_has_a_sequence_and_a_default_project,
    a_creation_is_audited_in_the_new_customer,
    creating_names_every_violation,
    a_slug_is_taken_once_and_stays_taken,
    the_server_creates_customers_too,
    a_customer_is_found_by_slug_and_row_id,
    the_customer_header_must_agree_with_the_path,
    an_update_changes_what_it_names,
    a_mask_clears_what_it_names,
    an_update_names_every_violation,
    an_update_without_a_change_keeps_the_etag,
    a_stale_etag_is_aborted,
);

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn mask(paths: &[&str]) -> FieldMask {
    FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() }
}

fn update(name: &str) -> pb::UpdateCustomerRequest {
    pb::UpdateCustomerRequest { customer_id: name.to_owned(), ..Default::default() }
}

async fn creating_answers_with_the_customer(db: TestDb) {
    let world = World::new(db).await;
    let message = pb::CreateCustomerRequest {
        customer_id: "acme".into(),
        display_name: "Acme Ünited".into(),
        description: "Two\nlines".into(),
        labels: labels(&[("tier", "gold"), ("region", "eu")]),
    };
    let made =
        world.tenancy.create_customer(by(&world.operator, message.clone())).await.unwrap().into_inner();
    assert!(made.id.starts_with("cust_01"), "{}", made.id);
    assert_eq!(made.customer_id, "acme");
    assert_eq!(made.display_name, message.display_name);
    assert_eq!(made.description, message.description);
    assert_eq!(made.labels, message.labels);
    assert_eq!(made.state(), pb::CustomerState::Active);
    assert_eq!(made.created_at, made.updated_at);
    assert!(made.created_at.unwrap().seconds > 1_700_000_000);
    assert_eq!(made.archived_at, None);
    assert!(!made.etag.is_empty());
    assert_eq!(world.get("acme").await.unwrap().into_inner(), made);
}

row! {
    #[derive(Debug, PartialEq)]
    struct ProjectRow {
        slug: String,
        display_name: String,
        is_default: bool,
        head: i64,
    }
}

async fn a_new_customer_has_a_sequence_and_a_default_project(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("acme").await;
    let rows: Vec<ProjectRow> = query(
        "SELECT slug, display_name, is_default, head FROM projects \
         JOIN customer_sequences ON customer_sequences.customer_id = projects.customer_id \
         WHERE projects.customer_id = $1",
    )
    .bind(id_of(&made))
    .all(&world.db.db)
    .await
    .unwrap();
    let expected =
        ProjectRow { slug: "default".into(), display_name: "Default".into(), is_default: true, head: 0 };
    assert_eq!(rows, [expected]);
}

row! {
    struct AuditRow {
        customer_id: Id<Customer>,
        actor_id: String,
        target: String,
        outcome: String,
        request_id: String,
    }
}

async fn a_creation_is_audited_in_the_new_customer(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("acme").await;
    let rows: Vec<AuditRow> =
        query("SELECT customer_id, actor_id, target, outcome, request_id FROM audit_entries")
            .all(&world.db.db)
            .await
            .unwrap();
    let [entry] = rows.as_slice() else { panic!("one entry, not {}", rows.len()) };
    assert_eq!(entry.customer_id, id_of(&made));
    assert_eq!(entry.actor_id, world.operator.credential_id);
    assert_eq!(entry.target, made.id);
    assert_eq!(entry.outcome, "succeeded");
    assert_eq!(entry.request_id, "request-1");
}

async fn creating_names_every_violation(db: TestDb) {
    let world = World::new(db).await;
    let message = pb::CreateCustomerRequest {
        customer_id: "Acme".into(),
        display_name: "x".repeat(256),
        description: "bell\u{7}".into(),
        labels: labels(&[("", "v"), ("long", &"v".repeat(256))]),
    };
    let fields = violations(world.tenancy.create_customer(by(&world.operator, message)).await);
    assert_eq!(fields, ["customer_id", "display_name", "description", "labels", "labels.long"]);
    for slug in ["", "a_b", "-a", "a-", "1a", "cust_01K9ZZZZZZZZZZZZZZZZZZZZZZ", &"a".repeat(64)] {
        let message = pb::CreateCustomerRequest { customer_id: slug.into(), ..Default::default() };
        let fields = violations(world.tenancy.create_customer(by(&world.operator, message)).await);
        assert_eq!(fields, ["customer_id"], "{slug}");
    }
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM customers").await, 1);
}

async fn a_slug_is_taken_once_and_stays_taken(db: TestDb) {
    let world = World::new(db).await;
    world.create("acme").await;
    let again = pb::CreateCustomerRequest { customer_id: "acme".into(), ..Default::default() };
    let taken = (Code::AlreadyExists, "CUSTOMER_ALREADY_EXISTS".to_owned());
    assert_eq!(refused(world.tenancy.create_customer(by(&world.operator, again.clone())).await), taken);
    world.tenancy.archive_customer(by(&world.operator, archive("acme"))).await.unwrap();
    assert_eq!(refused(world.tenancy.create_customer(by(&world.operator, again)).await), taken);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM customers").await, 2);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM projects").await, 1);
}

async fn the_server_creates_customers_too(db: TestDb) {
    let mut tx = db.db.begin().await.unwrap();
    let new = NewCustomer { slug: "default".into(), display_name: "Default".into(), ..Default::default() };
    let made = create_customer(&mut tx, new.clone()).await.unwrap();
    let fault = create_customer(&mut tx, new).await.unwrap_err();
    assert_eq!(fault.reason(), "CUSTOMER_ALREADY_EXISTS");
    tx.commit_unaudited("the first start").await.unwrap();
    let world = World {
        tenancy: agentrouter_tenancy::Tenancy::new(db.deps()),
        operator: admin(made.id, "default"),
        db,
    };
    let found = world.get("default").await.unwrap().into_inner();
    assert_eq!((found.id, found.display_name), (made.id.to_string(), "Default".to_owned()));
}

async fn a_customer_is_found_by_slug_and_row_id(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("acme").await;
    for name in ["acme", &made.id, &made.id.to_lowercase()] {
        assert_eq!(world.get(name).await.unwrap().into_inner(), made, "{name}");
    }
    for name in ["acm", "ACME", "cust_01K9ZZZZZZZZZZZZZZZZZZZZZZ", "%"] {
        let missing = (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned());
        assert_eq!(refused(world.get(name).await), missing, "{name}");
    }
    assert_eq!(violations(world.get("").await), ["customer_id"]);
}

async fn the_customer_header_must_agree_with_the_path(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("acme").await;
    let with_header = |header: &str| {
        let mut call = call(&world.operator);
        call.customer_header = Some(header.to_owned());
        call
    };
    for header in ["acme", &made.id] {
        world.tenancy.get_customer(request(with_header(header), get("acme"))).await.unwrap();
    }
    let field = ["x-agentrouter-customer"];
    let other = || with_header("default");
    assert_eq!(violations(world.tenancy.get_customer(request(other(), get("acme"))).await), field);
    assert_eq!(violations(world.tenancy.update_customer(request(other(), update("acme"))).await), field);
    assert_eq!(violations(world.tenancy.archive_customer(request(other(), archive("acme"))).await), field);
    world.tenancy.archive_customer(by(&world.operator, archive("acme"))).await.unwrap();
    let undelete = request(other(), crate::undelete("acme"));
    assert_eq!(violations(world.tenancy.undelete_customer(undelete).await), field);
}

async fn an_update_changes_what_it_names(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("acme").await;
    world.db.db.advance_clock(Duration::from_secs(1));
    let message = pb::UpdateCustomerRequest {
        display_name: Some("Acme".into()),
        labels: labels(&[("tier", "gold")]),
        ..update("acme")
    };
    let first = world.tenancy.update_customer(by(&world.operator, message)).await.unwrap().into_inner();
    assert_eq!(first.display_name, "Acme");
    assert_eq!(first.description, "");
    assert_eq!(first.labels, labels(&[("tier", "gold")]));
    assert_eq!(first.created_at, made.created_at);
    assert!(first.updated_at.unwrap().seconds > made.updated_at.unwrap().seconds);
    assert_ne!(first.etag, made.etag);

    let message = pb::UpdateCustomerRequest {
        description: Some("about".into()),
        labels: labels(&[("region", "eu")]),
        etag: first.etag.clone(),
        ..update(&made.id)
    };
    let second = world.tenancy.update_customer(by(&world.operator, message)).await.unwrap().into_inner();
    assert_eq!((second.display_name.as_str(), second.description.as_str()), ("Acme", "about"));
    assert_eq!(second.labels, labels(&[("region", "eu")]));
    assert_eq!(world.get("acme").await.unwrap().into_inner(), second);
}

async fn a_mask_clears_what_it_names(db: TestDb) {
    let world = World::new(db).await;
    let message = pb::CreateCustomerRequest {
        customer_id: "acme".into(),
        display_name: "Acme".into(),
        description: "about".into(),
        labels: labels(&[("tier", "gold")]),
    };
    world.tenancy.create_customer(by(&world.operator, message)).await.unwrap();
    // What the mask does not name stays, though it has a value; output-only fields are passed over.
    let message = pb::UpdateCustomerRequest {
        display_name: Some("ignored".into()),
        update_mask: Some(mask(&["labels", "id", "state", "etag", "customer_id"])),
        ..update("acme")
    };
    let first = world.tenancy.update_customer(by(&world.operator, message)).await.unwrap().into_inner();
    assert_eq!((first.display_name.as_str(), first.description.as_str()), ("Acme", "about"));
    assert_eq!(first.labels, BTreeMap::new());

    let message = pb::UpdateCustomerRequest {
        display_name: Some("New".into()),
        update_mask: Some(mask(&["*"])),
        ..update("acme")
    };
    let second = world.tenancy.update_customer(by(&world.operator, message)).await.unwrap().into_inner();
    assert_eq!((second.display_name.as_str(), second.description.as_str()), ("New", ""));
}

async fn an_update_names_every_violation(db: TestDb) {
    let world = World::new(db).await;
    world.create("acme").await;
    let message = pb::UpdateCustomerRequest {
        display_name: Some("x".repeat(256)),
        description: Some("x".repeat(4097)),
        labels: labels(&[(&"k".repeat(64), "v")]),
        update_mask: Some(mask(&["slug", "display_name", "description", "labels.tier"])),
        ..update("")
    };
    let fields = violations(world.tenancy.update_customer(by(&world.operator, message)).await);
    assert_eq!(fields, ["customer_id", "update_mask", "display_name", "description", "labels"]);
}

async fn an_update_without_a_change_keeps_the_etag(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("acme").await;
    for message in
        [update("acme"), pb::UpdateCustomerRequest { display_name: Some(String::new()), ..update("acme") }]
    {
        let same = world.tenancy.update_customer(by(&world.operator, message)).await.unwrap().into_inner();
        assert_eq!(same, made);
    }
}

// Behaviour 42: an update of a customer with a stale etag is ABORTED.
async fn a_stale_etag_is_aborted(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("acme").await;
    let with_etag = |etag: &str| pb::UpdateCustomerRequest {
        display_name: Some(format!("after {etag}")),
        etag: etag.to_owned(),
        ..update("acme")
    };
    let fresh = world.tenancy.update_customer(by(&world.operator, with_etag(&made.etag))).await;
    let fresh = fresh.unwrap().into_inner();
    let stale = (Code::Aborted, "ETAG_MISMATCH".to_owned());
    for etag in [made.etag.as_str(), "nonsense", "r-1", "r99"] {
        let result = world.tenancy.update_customer(by(&world.operator, with_etag(etag))).await;
        assert_eq!(refused(result), stale, "{etag}");
    }
    // Also where nothing would change.
    let unchanged = pb::UpdateCustomerRequest { etag: made.etag.clone(), ..update("acme") };
    assert_eq!(refused(world.tenancy.update_customer(by(&world.operator, unchanged)).await), stale);
    assert_eq!(world.get("acme").await.unwrap().into_inner(), fresh);
}
