//! Archiving, bringing back and purging projects.

use std::time::Duration;

use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::projects_service_server::ProjectsService;
use agentrouter_kernel::archive::UNDELETE_WINDOW;
use agentrouter_testkit::{TestDb, operator, refused, violations};
use tonic::Code;

use crate::{World, by, create, not_found};

agentrouter_testkit::on_both_engines!(
    an_archived_project_is_missing,
    its_slug_stays_taken_until_it_is_purged,
    the_default_project_stays,
    bringing_back_restores_the_members,
    bringing_back_ends_after_thirty_days,
    only_archived_projects_are_brought_back_or_purged,
);

fn missing() -> (Code, String) {
    not_found("PROJECT_NOT_FOUND")
}

async fn listed(world: &World, show_deleted: bool) -> Vec<pb::Project> {
    let message = pb::ListProjectsRequest { customer_id: "acme".into(), page: None, show_deleted };
    world.projects.list_projects(by(&world.admin, message)).await.unwrap().into_inner().projects
}

async fn an_archived_project_is_missing(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("alpha").await;
    world.archive(&world.admin, &made.id).await.unwrap();
    let person = world.person("Ada").await;
    for name in ["alpha", &made.id] {
        assert_eq!(refused(world.get(&world.admin, name).await), missing());
        assert_eq!(refused(world.rename(&world.admin, name, "x").await), missing());
        assert_eq!(refused(world.archive(&world.admin, name).await), missing());
        assert_eq!(refused(world.add(&world.admin, name, &person, "member").await), missing());
        assert_eq!(refused(world.set_role(&world.admin, name, &person, "member").await), missing());
        assert_eq!(refused(world.remove(&world.admin, name, &person).await), missing());
        assert_eq!(refused(world.list_members(&world.admin, name).await), missing());
    }
    let live = listed(&world, false).await;
    assert_eq!(live.iter().map(|project| project.project_id.as_str()).collect::<Vec<_>>(), ["default"]);
    let all = listed(&world, true).await;
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].project_id, "alpha");
    assert_eq!(all[0].state(), pb::ProjectState::Archived);
    assert!(all[0].archived_at.is_some());
    assert_ne!(all[0].etag, made.etag);
}

async fn its_slug_stays_taken_until_it_is_purged(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("alpha").await;
    world.member("alpha", "Ada", "admin").await;
    world.archive(&world.admin, "alpha").await.unwrap();
    let refusal = refused(world.projects.create_project(by(&world.admin, create("alpha"))).await);
    assert_eq!(refusal, (Code::AlreadyExists, "PROJECT_ALREADY_EXISTS".to_owned()));
    world.purge(&operator(world.customer, "acme"), "alpha").await.unwrap();
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM project_members").await, 0);
    assert_eq!(refused(world.undelete(&world.admin, &made.id).await), missing());
    let again = world.create("alpha").await;
    assert_ne!(again.id, made.id);
}

// Behaviour 43: the default project is not archived, whoever asks.
async fn the_default_project_stays(db: TestDb) {
    let world = World::new(db).await;
    for caller in [world.admin.clone(), operator(world.customer, "acme")] {
        let refusal = refused(world.archive(&caller, "default").await);
        assert_eq!(refusal, (Code::FailedPrecondition, "DEFAULT_PROJECT".to_owned()));
    }
    world.get(&world.admin, "default").await.unwrap();
}

async fn bringing_back_restores_the_members(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("alpha").await;
    let boss = world.member("alpha", "boss", "admin").await;
    let members = world.roles("alpha").await;
    world.archive(&boss, "alpha").await.unwrap();
    let back = world.undelete(&world.admin, "alpha").await.unwrap().into_inner();
    assert_eq!(back.state(), pb::ProjectState::Active);
    assert_eq!(back.archived_at, None);
    assert_eq!((&back.id, back.created_at), (&made.id, made.created_at));
    assert_ne!(back.etag, made.etag);
    assert_eq!(world.get(&boss, "alpha").await.unwrap().into_inner(), back);
    assert_eq!(world.roles("alpha").await, members);
    world.rename(&boss, "alpha", "Alpha").await.unwrap();
}

async fn bringing_back_ends_after_thirty_days(db: TestDb) {
    let world = World::new(db).await;
    for slug in ["early", "late"] {
        world.create(slug).await;
        world.archive(&world.admin, slug).await.unwrap();
    }
    world.db.db.advance_clock(UNDELETE_WINDOW.saturating_sub(Duration::from_mins(1)));
    world.undelete(&world.admin, "early").await.unwrap();
    world.db.db.advance_clock(Duration::from_secs(61));
    let refusal = refused(world.undelete(&world.admin, "late").await);
    assert_eq!(refusal, (Code::FailedPrecondition, "UNDELETE_EXPIRED".to_owned()));
    // It can still be purged.
    world.purge(&operator(world.customer, "acme"), "late").await.unwrap();
}

async fn only_archived_projects_are_brought_back_or_purged(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("alpha").await;
    let operator = operator(world.customer, "acme");
    let live = (Code::FailedPrecondition, "PROJECT_NOT_ARCHIVED".to_owned());
    for name in ["alpha", &made.id, "default"] {
        assert_eq!(refused(world.undelete(&world.admin, name).await), live, "{name}");
        assert_eq!(refused(world.purge(&operator, name).await), live, "{name}");
    }
    assert_eq!(refused(world.undelete(&world.admin, "nothing").await), missing());
    assert_eq!(refused(world.purge(&operator, "nothing").await), missing());
    assert_eq!(violations(world.undelete(&world.admin, "").await), ["project_id"]);
    assert_eq!(violations(world.purge(&operator, "").await), ["project_id"]);
    assert_eq!(world.get(&world.admin, "alpha").await.unwrap().into_inner(), made);
}
