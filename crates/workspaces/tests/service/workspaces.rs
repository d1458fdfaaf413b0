//! Create, get and update.

use agentrouter_api::workspaces::workspaces_service_server::WorkspacesService;
use agentrouter_api::workspaces::{
    CreateWorkspaceRequest, GetWorkspaceRequest, UpdateWorkspaceRequest, Workspace, WorkspaceState,
};
use agentrouter_kernel::id::{self, Id};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, call, on_both_engines, operator, refused, request, viewer, violations};
use agentrouter_workspaces::{NewWorkspace, create_workspace};
use prost_types::FieldMask;
use tonic::Code;

use crate::{Tenant, labels};

on_both_engines!(
    a_workspace_reads_back_as_created,
    a_new_workspace_starts_before_everything,
    every_wrong_field_is_named,
    a_slug_is_taken_once_per_customer,
    a_repeat_with_the_same_key_answers_the_same,
    updates_set_what_is_present_or_named,
    an_update_without_effect_keeps_the_etag,
    a_stale_etag_changes_nothing,
    tenants_do_not_see_each_other,
    mutations_are_audited,
    the_first_workspace_needs_no_caller,
    a_number_is_never_given_twice,
);

async fn a_workspace_reads_back_as_created(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let message = CreateWorkspaceRequest {
        display_name: "Frankfurt 1".to_owned(),
        labels: labels(&[("region", "eu"), ("tier", "prod")]),
        ..acme.new_workspace("eu-1")
    };
    let created = acme.create(message).await.unwrap().into_inner();
    assert!(Id::<id::Workspace>::parse(&created.id).is_some());
    assert!(created.created_at.is_some());
    let expected = Workspace {
        id: created.id.clone(),
        customer_id: "acme".to_owned(),
        workspace_id: "eu-1".to_owned(),
        display_name: "Frankfurt 1".to_owned(),
        labels: labels(&[("region", "eu"), ("tier", "prod")]),
        state: WorkspaceState::Active.into(),
        last_seen_at: None,
        created_at: created.created_at,
        updated_at: created.created_at,
        archived_at: None,
        etag: "r1".to_owned(),
    };
    assert_eq!(created, expected);
    assert_eq!(acme.get("eu-1").await.unwrap().into_inner(), expected);
    assert_eq!(acme.get(&created.id).await.unwrap().into_inner(), expected);
    // By the customer's row id, by a viewer, and by an operator of another customer.
    let elsewhere = Tenant::new(&db, "elsewhere").await;
    for caller in [viewer(acme.id, acme.slug), operator(elsewhere.id, elsewhere.slug)] {
        let message =
            GetWorkspaceRequest { customer_id: acme.id.to_string(), workspace_id: "eu-1".to_owned() };
        let found = acme.service.get_workspace(request(call(&caller), message)).await.unwrap();
        assert_eq!(found.into_inner(), expected);
    }
    assert_eq!(refused(acme.get("eu-2").await), (Code::NotFound, "WORKSPACE_NOT_FOUND".to_owned()));
}

async fn a_new_workspace_starts_before_everything(db: TestDb) {
    const START: &str = "SELECT s.position AS value FROM workspace_sync s JOIN workspaces w ON w.id = s.workspace_id \
         WHERE w.slug = 'eu-1' AND s.customer_id = w.customer_id AND s.last_seen_at IS NULL";
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    let positions: Vec<i64> = query(START).values(&db.db).await.unwrap();
    assert_eq!(positions, [0]);
}

async fn every_wrong_field_is_named(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let message = CreateWorkspaceRequest {
        customer_id: String::new(),
        workspace_id: "EU 1".to_owned(),
        display_name: "x".repeat(256),
        labels: labels(&[("", "")]),
    };
    let expected = ["customer_id", "workspace_id", "display_name", "labels"];
    assert_eq!(violations(acme.create(message).await), expected);
    assert_eq!(violations(acme.get("").await), ["workspace_id"]);
    assert_eq!(violations(acme.archive("", "").await), ["workspace_id"]);
    acme.created("eu-1").await;
    let change = UpdateWorkspaceRequest {
        display_name: Some("\u{7}".to_owned()),
        labels: labels(&[("team", &"x".repeat(256))]),
        ..acme.change("eu-1")
    };
    assert_eq!(violations(acme.update(change).await), ["display_name", "labels.team"]);
    let change = UpdateWorkspaceRequest {
        update_mask: Some(FieldMask { paths: vec!["number".to_owned()] }),
        ..UpdateWorkspaceRequest::default()
    };
    assert_eq!(violations(acme.update(change).await), ["customer_id", "workspace_id", "update_mask"]);
}

async fn a_slug_is_taken_once_per_customer(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let globex = Tenant::new(&db, "globex").await;
    let first = acme.created("eu-1").await;
    let again = CreateWorkspaceRequest { display_name: "Again".to_owned(), ..acme.new_workspace("eu-1") };
    let taken = (Code::AlreadyExists, "WORKSPACE_ALREADY_EXISTS".to_owned());
    assert_eq!(refused(acme.create(again).await), taken);
    assert_eq!(acme.get("eu-1").await.unwrap().into_inner(), first);
    assert_ne!(globex.created("eu-1").await.id, first.id);
}

async fn a_repeat_with_the_same_key_answers_the_same(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let keyed = |message: CreateWorkspaceRequest| {
        let mut call = call(&acme.admin);
        call.idempotency_key = Some("once".to_owned());
        acme.service.create_workspace(request(call, message))
    };
    let first = keyed(acme.new_workspace("eu-1")).await.unwrap().into_inner();
    assert_eq!(keyed(acme.new_workspace("eu-1")).await.unwrap().into_inner(), first);
    assert_eq!(acme.audited().await, [first.id]);
    let other = acme.new_workspace("eu-2");
    assert_eq!(refused(keyed(other).await), (Code::Aborted, "IDEMPOTENCY_KEY_REUSED".to_owned()));
    assert_eq!(refused(acme.get("eu-2").await).0, Code::NotFound);
}

async fn updates_set_what_is_present_or_named(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let created = acme.created("eu-1").await;
    let change = UpdateWorkspaceRequest {
        display_name: Some("Frankfurt".to_owned()),
        labels: labels(&[("tier", "prod")]),
        ..acme.change(&created.id)
    };
    let updated = acme.update(change).await.unwrap().into_inner();
    let expected = Workspace {
        display_name: "Frankfurt".to_owned(),
        labels: labels(&[("tier", "prod")]),
        updated_at: updated.updated_at,
        etag: "r2".to_owned(),
        ..created
    };
    assert_eq!(updated, expected);
    assert_eq!(acme.get("eu-1").await.unwrap().into_inner(), expected);
    // An absent field stays; a named one is cleared; what only the service writes is ignored.
    let change = UpdateWorkspaceRequest { display_name: Some("Main".to_owned()), ..acme.change("eu-1") };
    let updated = acme.update(change).await.unwrap().into_inner();
    assert_eq!(updated.labels, labels(&[("tier", "prod")]));
    let paths = ["labels", "state", "last_seen_at", "etag"].map(str::to_owned).to_vec();
    let change = UpdateWorkspaceRequest {
        display_name: Some("Not named".to_owned()),
        update_mask: Some(FieldMask { paths }),
        ..acme.change("eu-1")
    };
    let updated = acme.update(change).await.unwrap().into_inner();
    assert_eq!(
        (updated.display_name.as_str(), updated.labels.len(), updated.etag.as_str()),
        ("Main", 0, "r4")
    );
}

async fn an_update_without_effect_keeps_the_etag(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let created = acme.created("eu-1").await;
    let same = UpdateWorkspaceRequest { display_name: Some(String::new()), ..acme.change("eu-1") };
    assert_eq!(acme.update(same).await.unwrap().into_inner(), created);
    assert_eq!(acme.update(acme.change("eu-1")).await.unwrap().into_inner(), created);
}

// Behaviour 42: a stale etag keeps a workspace from being updated and archived.
async fn a_stale_etag_changes_nothing(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    let rename = |name: &str, etag: &str| UpdateWorkspaceRequest {
        display_name: Some(name.to_owned()),
        etag: etag.to_owned(),
        ..acme.change("eu-1")
    };
    let current = acme.update(rename("First", "r1")).await.unwrap().into_inner();
    let mismatch = (Code::Aborted, "ETAG_MISMATCH".to_owned());
    for stale in ["r1", "r3", "nonsense"] {
        assert_eq!(refused(acme.update(rename("Second", stale)).await), mismatch);
        assert_eq!(refused(acme.archive("eu-1", stale).await), mismatch);
    }
    assert_eq!(acme.get("eu-1").await.unwrap().into_inner(), current);
    acme.archive("eu-1", "r2").await.unwrap();
}

async fn tenants_do_not_see_each_other(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let globex = Tenant::new(&db, "globex").await;
    acme.created("eu-1").await;
    let theirs = globex.created("eu-1").await;
    let not_found = (Code::NotFound, "WORKSPACE_NOT_FOUND".to_owned());
    assert_eq!(refused(acme.get(&theirs.id).await), not_found);
    assert_eq!(refused(acme.update(acme.change(&theirs.id)).await), not_found);
    assert_eq!(refused(acme.archive(&theirs.id, "").await), not_found);
    let intruder = Tenant { slug: globex.slug, ..acme };
    let not_found = (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned());
    assert_eq!(refused(intruder.get("eu-1").await), not_found);
    assert_eq!(refused(intruder.create(intruder.new_workspace("eu-2")).await), not_found);
    assert_eq!(refused(intruder.update(intruder.change("eu-1")).await), not_found);
    assert_eq!(refused(intruder.archive("eu-1", "").await), not_found);
    assert_eq!(globex.get("eu-1").await.unwrap().into_inner(), theirs);
}

async fn mutations_are_audited(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let id = acme.created("eu-1").await.id;
    acme.update(UpdateWorkspaceRequest { display_name: Some("New".to_owned()), ..acme.change("eu-1") })
        .await
        .unwrap();
    acme.get("eu-1").await.unwrap();
    refused(acme.archive("eu-1", "r1").await);
    acme.archive("eu-1", "").await.unwrap();
    assert_eq!(acme.audited().await, vec![id; 3]);
}

async fn the_first_workspace_needs_no_caller(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let mut tx = db.db.begin().await.unwrap();
    let new = NewWorkspace { slug: "default".to_owned(), ..NewWorkspace::default() };
    let created = create_workspace(&mut tx, acme.id, new.clone()).await.unwrap();
    let again = create_workspace(&mut tx, acme.id, new).await.unwrap_err();
    assert_eq!(again.reason(), "WORKSPACE_ALREADY_EXISTS");
    tx.commit_unaudited("test").await.unwrap();
    assert_eq!(created.number, 1);
    assert_eq!(acme.get("default").await.unwrap().into_inner().id, created.id.to_string());
}

async fn a_number_is_never_given_twice(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    // As the purge of a customer leaves it, whose workspace had the highest number.
    let mut tx = db.db.begin().await.unwrap();
    query("INSERT INTO retired_workspace_numbers (highest) VALUES (41)").execute(&mut tx).await.unwrap();
    let new = NewWorkspace { slug: "eu-2".to_owned(), ..NewWorkspace::default() };
    let created = create_workspace(&mut tx, acme.id, new).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
    assert_eq!(created.number, 42);
}
