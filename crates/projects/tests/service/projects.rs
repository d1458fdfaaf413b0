//! Creating, reading and updating projects.

use std::collections::BTreeMap;
use std::time::Duration;

use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::projects_service_server::ProjectsService;
use agentrouter_kernel::id::{Customer, Id};
use agentrouter_storage::{query, row};
use agentrouter_testkit::{TestDb, refused, violations};
use prost_types::FieldMask;
use tonic::Code;

use crate::{World, by, create, not_found, update};

agentrouter_testkit::on_both_engines!(
    creating_answers_with_the_project,
    creating_names_every_violation,
    a_slug_is_taken_once_in_a_customer,
    a_project_is_found_by_slug_and_row_id,
    an_update_changes_what_it_names,
    a_mask_clears_what_it_names,
    an_update_names_every_violation,
    an_update_without_a_change_keeps_the_etag,
    a_stale_etag_is_aborted,
    writes_are_audited_with_the_project,
);

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn mask(paths: &[&str]) -> FieldMask {
    FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() }
}

async fn creating_answers_with_the_project(db: TestDb) {
    let world = World::new(db).await;
    let message = pb::CreateProjectRequest {
        display_name: "Alpha".into(),
        description: "The first".into(),
        labels: labels(&[("team", "one")]),
        ..create("alpha")
    };
    let made = world.projects.create_project(by(&world.admin, message.clone())).await.unwrap().into_inner();
    assert!(made.id.starts_with("proj_01"), "{}", made.id);
    assert_eq!((made.customer_id.as_str(), made.project_id.as_str()), ("acme", "alpha"));
    assert_eq!((&made.display_name, &made.description), (&message.display_name, &message.description));
    assert_eq!(made.labels, message.labels);
    assert_eq!(made.state(), pb::ProjectState::Active);
    assert_eq!(made.created_at, made.updated_at);
    assert!(made.created_at.unwrap().seconds > 1_700_000_000);
    assert_eq!(made.archived_at, None);
    assert!(!made.etag.is_empty());
    assert_eq!(world.get(&world.admin, "alpha").await.unwrap().into_inner(), made);
}

async fn creating_names_every_violation(db: TestDb) {
    let world = World::new(db).await;
    let message = pb::CreateProjectRequest {
        customer_id: String::new(),
        project_id: "Alpha".into(),
        display_name: "x".repeat(256),
        description: "x".repeat(4097),
        labels: labels(&[("k", "\n")]),
    };
    let fields = violations(world.projects.create_project(by(&world.admin, message)).await);
    assert_eq!(fields, ["customer_id", "project_id", "display_name", "description", "labels.k"]);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM projects").await, 1);
}

async fn a_slug_is_taken_once_in_a_customer(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    for slug in ["alpha", "default"] {
        let refusal = refused(world.projects.create_project(by(&world.admin, create(slug))).await);
        assert_eq!(refusal, (Code::AlreadyExists, "PROJECT_ALREADY_EXISTS".to_owned()));
    }
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM projects").await, 2);
}

async fn a_project_is_found_by_slug_and_row_id(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("alpha").await;
    for customer in ["acme".to_owned(), world.customer.to_string()] {
        for name in ["alpha", &made.id] {
            let message = pb::GetProjectRequest { customer_id: customer.clone(), project_id: name.into() };
            let found = world.projects.get_project(by(&world.admin, message)).await.unwrap();
            assert_eq!(found.into_inner(), made, "{customer} {name}");
        }
    }
    for name in ["alph", "proj_01K9ZZZZZZZZZZZZZZZZZZZZZZ", &world.customer.to_string()] {
        let refusal = refused(world.get(&world.admin, name).await);
        assert_eq!(refusal, not_found("PROJECT_NOT_FOUND"), "{name}");
    }
    let message = pb::GetProjectRequest::default();
    let fields = violations(world.projects.get_project(by(&world.admin, message)).await);
    assert_eq!(fields, ["customer_id", "project_id"]);
}

async fn an_update_changes_what_it_names(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("alpha").await;
    world.db.db.advance_clock(Duration::from_secs(1));
    let message = pb::UpdateProjectRequest {
        display_name: Some("Alpha".into()),
        labels: labels(&[("team", "one")]),
        etag: made.etag.clone(),
        ..update("alpha")
    };
    let first = world.projects.update_project(by(&world.admin, message)).await.unwrap().into_inner();
    assert_eq!((first.display_name.as_str(), first.description.as_str()), ("Alpha", ""));
    assert_eq!(first.labels, labels(&[("team", "one")]));
    assert_eq!(
        (&first.id, &first.project_id, first.created_at),
        (&made.id, &made.project_id, made.created_at)
    );
    assert!(first.updated_at.unwrap().seconds > made.updated_at.unwrap().seconds);
    assert_ne!(first.etag, made.etag);
    let message = pb::UpdateProjectRequest {
        description: Some("about".into()),
        labels: labels(&[("tier", "x")]),
        ..update(&made.id)
    };
    let second = world.projects.update_project(by(&world.admin, message)).await.unwrap().into_inner();
    assert_eq!((second.display_name.as_str(), second.description.as_str()), ("Alpha", "about"));
    assert_eq!(second.labels, labels(&[("tier", "x")]));
    assert_eq!(world.get(&world.admin, "alpha").await.unwrap().into_inner(), second);
    // The default project is a project like the others here.
    let renamed = world.rename(&world.admin, "default", "Main").await.unwrap().into_inner();
    assert_eq!(renamed.display_name, "Main");
}

async fn a_mask_clears_what_it_names(db: TestDb) {
    let world = World::new(db).await;
    let message = pb::CreateProjectRequest {
        display_name: "Alpha".into(),
        description: "about".into(),
        labels: labels(&[("team", "one")]),
        ..create("alpha")
    };
    world.projects.create_project(by(&world.admin, message)).await.unwrap();
    let message = pb::UpdateProjectRequest {
        display_name: Some("ignored".into()),
        update_mask: Some(mask(&["labels", "description", "id", "project_id", "state", "etag"])),
        ..update("alpha")
    };
    let found = world.projects.update_project(by(&world.admin, message)).await.unwrap().into_inner();
    assert_eq!((found.display_name.as_str(), found.description.as_str()), ("Alpha", ""));
    assert_eq!(found.labels, BTreeMap::new());
}

async fn an_update_names_every_violation(db: TestDb) {
    let world = World::new(db).await;
    let message = pb::UpdateProjectRequest {
        customer_id: String::new(),
        project_id: String::new(),
        display_name: Some("\u{1}".into()),
        description: Some("x".repeat(4097)),
        labels: labels(&[("", "v")]),
        update_mask: Some(mask(&["nope", "*"])),
        etag: String::new(),
    };
    let fields = violations(world.projects.update_project(by(&world.admin, message)).await);
    assert_eq!(fields, ["customer_id", "project_id", "update_mask", "display_name", "description", "labels"]);
}

async fn an_update_without_a_change_keeps_the_etag(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("alpha").await;
    let same = world.rename(&world.admin, "alpha", "").await.unwrap().into_inner();
    assert_eq!(same, made);
}

// Behaviour 42: a stale etag keeps a project from being updated and archived.
async fn a_stale_etag_is_aborted(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("alpha").await;
    let renamed = world.rename(&world.admin, "alpha", "Alpha").await.unwrap().into_inner();
    let stale = (Code::Aborted, "ETAG_MISMATCH".to_owned());
    for etag in [made.etag.as_str(), "nonsense"] {
        let message = pb::UpdateProjectRequest {
            description: Some("lost".into()),
            etag: etag.into(),
            ..update("alpha")
        };
        assert_eq!(refused(world.projects.update_project(by(&world.admin, message)).await), stale);
        let message = pb::ArchiveProjectRequest { etag: etag.into(), ..crate::archive("alpha") };
        assert_eq!(refused(world.projects.archive_project(by(&world.admin, message)).await), stale);
    }
    assert_eq!(world.get(&world.admin, "alpha").await.unwrap().into_inner(), renamed);
    let message = pb::ArchiveProjectRequest { etag: renamed.etag, ..crate::archive("alpha") };
    world.projects.archive_project(by(&world.admin, message)).await.unwrap();
}

row! {
    #[derive(Debug, PartialEq)]
    struct AuditRow {
        customer_id: Id<Customer>,
        target: String,
    }
}

async fn writes_are_audited_with_the_project(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("alpha").await;
    world.rename(&world.admin, "alpha", "Alpha").await.unwrap();
    let person = world.person("Ada").await;
    let member = world.add(&world.admin, "alpha", &person, "admin").await.unwrap().into_inner();
    world.set_role(&world.admin, "alpha", &person, "member").await.unwrap();
    world.remove(&world.admin, "alpha", &person).await.unwrap();
    world.archive(&world.admin, "alpha").await.unwrap();
    world.undelete(&world.admin, "alpha").await.unwrap();
    // Refused ones leave none.
    refused(world.archive(&world.admin, "default").await);
    let entries: Vec<AuditRow> =
        query("SELECT customer_id, target FROM audit_entries ORDER BY created_at, id")
            .all(&world.db.db)
            .await
            .unwrap();
    let targets: Vec<_> = entries.iter().map(|entry| entry.target.as_str()).collect();
    let (project, member) = (made.id.as_str(), member.id.as_str());
    assert_eq!(targets, [project, project, member, member, member, project, project]);
    assert!(entries.iter().all(|entry| entry.customer_id == world.customer));
}
