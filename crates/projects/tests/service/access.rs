//! What roles and memberships allow.

use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::projects_service_server::ProjectsService;
use agentrouter_kernel::{CredentialKind, Principal, Role};
use agentrouter_testkit::{TestDb, operator, refused, session, viewer};
use tonic::{Code, Status};

use crate::{World, by, identity, not_found};

agentrouter_testkit::on_both_engines!(
    strangers_do_not_learn_of_a_project,
    members_read,
    project_admins_write,
    viewers_read_every_project,
    a_viewer_writes_where_it_is_a_project_admin,
    admins_and_operators_write_everywhere,
    a_membership_grants_its_own_project_only,
    a_key_is_no_more_than_its_role,
    a_membership_ends_at_once,
);

fn role_required() -> (Code, String) {
    (Code::PermissionDenied, "PROJECT_ROLE_REQUIRED".to_owned())
}

/// The outcome of every read of a project.
async fn reads(world: &World, caller: &Principal, project: &str) -> Vec<Result<(), Status>> {
    vec![world.get(caller, project).await.map(|_| ()), world.list_members(caller, project).await.map(|_| ())]
}

/// The outcome of every write of a project that is open to its admins. Where they are allowed, the project ends
/// up archived.
async fn writes(world: &World, caller: &Principal, project: &str) -> Vec<Result<(), Status>> {
    let guest = world.person("guest").await;
    vec![
        world.rename(caller, project, "renamed").await.map(|_| ()),
        world.add(caller, project, &guest, "member").await.map(|_| ()),
        world.set_role(caller, project, &guest, "admin").await.map(|_| ()),
        world.remove(caller, project, &guest).await.map(|_| ()),
        world.archive(caller, project).await.map(|_| ()),
    ]
}

#[track_caller]
fn all_refused(outcomes: Vec<Result<(), Status>>, expected: &(Code, String)) {
    for outcome in outcomes {
        assert_eq!(refused(outcome.map(tonic::Response::new)), *expected);
    }
}

#[track_caller]
fn all_allowed(outcomes: Vec<Result<(), Status>>) {
    for outcome in outcomes {
        outcome.unwrap();
    }
}

/// What a caller learns from a refusal, with the name it asked for left out.
fn seen(status: &Status, name: &str) -> (Code, String, String) {
    let details = String::from_utf8_lossy(status.details()).replace(name, "*");
    (status.code(), status.message().replace(name, "*"), details)
}

async fn strangers_do_not_learn_of_a_project(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("aaaa").await;
    let stranger = world.person("stranger").await;
    for (there, missing) in [("aaaa", "bbbb"), (made.id.as_str(), "proj_01K9ZZZZZZZZZZZZZZZZZZZZZZ")] {
        let mut answers = Vec::new();
        for name in [there, missing] {
            let mut outcomes = reads(&world, &stranger, name).await;
            outcomes.extend(writes(&world, &stranger, name).await);
            let refusals = outcomes.into_iter().map(|outcome| seen(&outcome.unwrap_err(), name));
            answers.push(refusals.collect::<Vec<_>>());
        }
        assert_eq!(answers[0], answers[1]);
        assert!(answers[0].iter().all(|(code, ..)| *code == Code::NotFound));
    }
    assert_eq!(world.get(&world.admin, "aaaa").await.unwrap().into_inner(), made);
}

async fn members_read(db: TestDb) {
    let world = World::new(db).await;
    let made = world.create("alpha").await;
    let member = world.member("alpha", "member", "member").await;
    all_allowed(reads(&world, &member, "alpha").await);
    all_refused(writes(&world, &member, "alpha").await, &role_required());
    assert_eq!(world.get(&member, &made.id).await.unwrap().into_inner(), made);
}

async fn project_admins_write(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    let member = world.member("alpha", "boss", "admin").await;
    all_allowed(reads(&world, &member, "alpha").await);
    all_allowed(writes(&world, &member, "alpha").await);
    // Archived, it is missing to its members too.
    all_refused(reads(&world, &member, "alpha").await, &not_found("PROJECT_NOT_FOUND"));
    all_refused(writes(&world, &member, "alpha").await, &not_found("PROJECT_NOT_FOUND"));
}

async fn viewers_read_every_project(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    let person = identity(&world.member("alpha", "member", "member").await);
    for caller in [
        viewer(world.customer, "acme"),
        session(world.customer, "acme", person, Some(Role::Viewer)),
        session(world.customer, "acme", identity(&world.person("nobody").await), Some(Role::Viewer)),
    ] {
        all_allowed(reads(&world, &caller, "alpha").await);
        all_refused(writes(&world, &caller, "alpha").await, &role_required());
        all_refused(writes(&world, &caller, "nothing").await, &not_found("PROJECT_NOT_FOUND"));
    }
}

async fn a_viewer_writes_where_it_is_a_project_admin(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    world.create("beta").await;
    let person = identity(&world.member("alpha", "boss", "admin").await);
    let caller = session(world.customer, "acme", person, Some(Role::Viewer));
    all_allowed(writes(&world, &caller, "alpha").await);
    all_refused(writes(&world, &caller, "beta").await, &role_required());
}

async fn admins_and_operators_write_everywhere(db: TestDb) {
    let world = World::new(db).await;
    let elsewhere = world.db.customer("elsewhere").await;
    let person = identity(&world.person("admin").await);
    for (slug, caller) in [
        ("alpha", world.admin.clone()),
        ("beta", operator(elsewhere, "elsewhere")),
        ("gamma", session(world.customer, "acme", person, Some(Role::Admin))),
    ] {
        world.create(slug).await;
        all_allowed(reads(&world, &caller, slug).await);
        all_allowed(writes(&world, &caller, slug).await);
    }
}

async fn a_membership_grants_its_own_project_only(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    world.create("beta").await;
    let boss = world.member("alpha", "boss", "admin").await;
    let missing = not_found("PROJECT_NOT_FOUND");
    all_refused(reads(&world, &boss, "beta").await, &missing);
    all_refused(writes(&world, &boss, "beta").await, &missing);
    all_refused(reads(&world, &boss, "default").await, &missing);
    // Nor does it reach the project of another customer under the same slug.
    let other = world.db.customer("other").await;
    world.db.project(other, "alpha", false).await;
    let message = pb::GetProjectRequest { customer_id: "other".into(), project_id: "alpha".into() };
    let refusal = refused(world.projects.get_project(by(&boss, message)).await);
    assert_eq!(refusal, not_found("CUSTOMER_NOT_FOUND"));
}

async fn a_key_is_no_more_than_its_role(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    let boss = world.member("alpha", "boss", "admin").await;
    let key = Principal { credential: CredentialKind::ApiKey, role: Some(Role::Viewer), ..boss.clone() };
    all_refused(writes(&world, &key, "alpha").await, &role_required());
}

async fn a_membership_ends_at_once(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    let boss = world.member("alpha", "boss", "admin").await;
    world.set_role(&world.admin, "alpha", &boss, "member").await.unwrap();
    all_refused(writes(&world, &boss, "alpha").await, &role_required());
    all_allowed(reads(&world, &boss, "alpha").await);
    world.remove(&world.admin, "alpha", &boss).await.unwrap();
    all_refused(reads(&world, &boss, "alpha").await, &not_found("PROJECT_NOT_FOUND"));
}
