//! Memberships.

use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::projects_service_server::ProjectsService;
use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{Id, Identity};
use agentrouter_storage::{Sql, query};
use agentrouter_testkit::{TestDb, operator, refused, violations};
use tokio::task::JoinSet;
use tonic::Code;

use crate::{World, add, by, identity, not_found};

agentrouter_testkit::on_both_engines!(
    adding_answers_with_the_member,
    a_role_is_admin_or_member,
    an_identity_is_a_member_once,
    racing_additions_have_one_winner,
    the_identity_belongs_to_the_customer,
    an_identity_that_vanishes_is_not_found,
    a_role_changes,
    only_members_are_changed_and_removed,
    members_have_etags,
    the_last_admin_stays,
    the_last_admin_leaves_by_an_admin_of_the_customer,
    admins_that_leave_together_leave_one,
    admins_that_demote_each_other_leave_one,
);

fn last_admin() -> (Code, String) {
    (Code::FailedPrecondition, "LAST_PROJECT_ADMIN".to_owned())
}

async fn adding_answers_with_the_member(db: TestDb) {
    let world = World::new(db).await;
    let project = world.create("alpha").await;
    let person = world.person("Ada").await;
    let member = world.add(&world.admin, &project.id, &person, "member").await.unwrap().into_inner();
    assert!(member.id.starts_with("mem_01"), "{}", member.id);
    assert_eq!((member.customer_id.as_str(), member.project_id.as_str()), ("acme", "alpha"));
    assert_eq!(member.identity_id, identity(&person).to_string());
    assert_eq!(member.role, "member");
    assert_eq!(member.created_at, member.updated_at);
    assert!(member.created_at.unwrap().seconds > 1_700_000_000);
    assert!(!member.etag.is_empty());
    let listed = world.list_members(&world.admin, "alpha").await.unwrap().into_inner();
    assert_eq!(listed.members, [member]);
    assert_eq!(listed.page.unwrap().next_page_token, "");
}

async fn a_role_is_admin_or_member(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    let person = world.person("Ada").await;
    for role in ["", "Admin", "owner", "admin "] {
        assert_eq!(violations(world.add(&world.admin, "alpha", &person, role).await), ["role"], "{role:?}");
        assert_eq!(violations(world.set_role(&world.admin, "alpha", &person, role).await), ["role"]);
    }
    let message = pb::AddProjectMemberRequest { identity_id: "Ada".into(), ..Default::default() };
    let fields = violations(world.projects.add_project_member(by(&world.admin, message)).await);
    assert_eq!(fields, ["customer_id", "project_id", "identity_id", "role"]);
    let message = pb::RemoveProjectMemberRequest::default();
    let fields = violations(world.projects.remove_project_member(by(&world.admin, message)).await);
    assert_eq!(fields, ["customer_id", "project_id", "identity_id"]);
    assert_eq!(world.roles("alpha").await, Vec::<String>::new());
}

async fn an_identity_is_a_member_once(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    let person = world.member("alpha", "Ada", "admin").await;
    for role in ["admin", "member"] {
        let refusal = refused(world.add(&world.admin, "alpha", &person, role).await);
        assert_eq!(refusal, (Code::AlreadyExists, "MEMBER_ALREADY_EXISTS".to_owned()));
    }
    assert_eq!(world.roles("alpha").await, [format!("{}: admin", identity(&person))]);
    world.create("beta").await;
    world.add(&world.admin, "beta", &person, "member").await.unwrap();
}

async fn racing_additions_have_one_winner(db: TestDb) {
    let world = Arc::new(World::new(db).await);
    world.create("alpha").await;
    let person = world.person("Ada").await;
    let mut tasks = JoinSet::new();
    for number in 0..12 {
        let (world, person) = (Arc::clone(&world), person.clone());
        let role = ["admin", "member"][number % 2];
        tasks.spawn(async move { world.add(&world.admin, "alpha", &person, role).await });
    }
    let (won, lost): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for loser in lost {
        assert_eq!(refused(loser), (Code::AlreadyExists, "MEMBER_ALREADY_EXISTS".to_owned()));
    }
    assert_eq!(world.roles("alpha").await.len(), 1);
}

async fn the_identity_belongs_to_the_customer(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    let other = world.db.customer("other").await;
    let foreign = world.db.identity(other, "Eve").await;
    let nobody = Id::<Identity>::new(Timestamp::from_secs(1_700_000_000));
    for caller in [world.admin.clone(), operator(other, "other")] {
        for identity in [foreign, nobody] {
            let message = add("alpha", identity, "member");
            let refusal = refused(world.projects.add_project_member(by(&caller, message)).await);
            assert_eq!(refusal, not_found("IDENTITY_NOT_FOUND"));
        }
    }
    assert_eq!(world.roles("alpha").await, Vec::<String>::new());
}

async fn an_identity_that_vanishes_is_not_found(db: TestDb) {
    // SQLite lets the addition begin only after the deletion; PostgreSQL stops it at the reference.
    const BLOCKED: Sql = Sql::Each {
        sqlite: "SELECT TRUE AS value",
        postgres: "SELECT EXISTS (SELECT 1 FROM pg_stat_activity \
             WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO project_members%') AS value",
    };
    let world = World::new(db).await;
    world.create("alpha").await;
    let person = world.person("Ada").await;
    let mut tx = world.db.db.begin().await.unwrap();
    let gone = query("DELETE FROM identities WHERE id = $1").bind(identity(&person));
    assert_eq!(gone.execute(&mut tx).await.unwrap(), 1);
    let commit = async {
        while query(BLOCKED).value::<bool>(&world.db.db).await.unwrap() != Some(true) {
            tokio::task::yield_now().await;
        }
        tx.commit_unaudited("test data").await.unwrap();
    };
    let race = async { tokio::join!(world.add(&world.admin, "alpha", &person, "member"), commit) };
    let (added, ()) = tokio::time::timeout(Duration::from_secs(20), race).await.unwrap();
    assert_eq!(refused(added), not_found("IDENTITY_NOT_FOUND"));
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM project_members").await, 0);
}

async fn a_role_changes(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    let person = world.person("Ada").await;
    let added = world.add(&world.admin, "alpha", &person, "member").await.unwrap().into_inner();
    world.db.db.advance_clock(Duration::from_secs(1));
    let promoted = world.set_role(&world.admin, "alpha", &person, "admin").await.unwrap().into_inner();
    assert_eq!((promoted.role.as_str(), &promoted.id), ("admin", &added.id));
    assert_eq!(promoted.created_at, added.created_at);
    assert!(promoted.updated_at.unwrap().seconds > added.updated_at.unwrap().seconds);
    assert_ne!(promoted.etag, added.etag);
    let same = world.set_role(&world.admin, "alpha", &person, "admin").await.unwrap().into_inner();
    assert_eq!(same, promoted);
    assert_eq!(world.roles("alpha").await, [format!("{}: admin", identity(&person))]);
}

async fn only_members_are_changed_and_removed(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    world.create("beta").await;
    let person = world.member("beta", "Ada", "member").await;
    let missing = not_found("MEMBER_NOT_FOUND");
    assert_eq!(refused(world.set_role(&world.admin, "alpha", &person, "admin").await), missing);
    assert_eq!(refused(world.remove(&world.admin, "alpha", &person).await), missing);
    world.remove(&world.admin, "beta", &person).await.unwrap();
    assert_eq!(refused(world.remove(&world.admin, "beta", &person).await), missing);
    assert_eq!(world.roles("beta").await, Vec::<String>::new());
}

// Behaviour 42: changes and removals of members follow their etags.
async fn members_have_etags(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    let person = world.person("Ada").await;
    let added = world.add(&world.admin, "alpha", &person, "member").await.unwrap().into_inner();
    let promoted = world.set_role(&world.admin, "alpha", &person, "admin").await.unwrap().into_inner();
    let update = |etag: &str| pb::UpdateProjectMemberRequest {
        customer_id: "acme".into(),
        project_id: "alpha".into(),
        identity_id: identity(&person).to_string(),
        role: "member".into(),
        etag: etag.into(),
    };
    let remove = |etag: &str| pb::RemoveProjectMemberRequest {
        customer_id: "acme".into(),
        project_id: "alpha".into(),
        identity_id: identity(&person).to_string(),
        etag: etag.into(),
    };
    let stale = (Code::Aborted, "ETAG_MISMATCH".to_owned());
    for etag in [added.etag.as_str(), "nonsense"] {
        let result = world.projects.update_project_member(by(&world.admin, update(etag))).await;
        assert_eq!(refused(result), stale);
        let result = world.projects.remove_project_member(by(&world.admin, remove(etag))).await;
        assert_eq!(refused(result), stale);
    }
    let demoted = world.projects.update_project_member(by(&world.admin, update(&promoted.etag))).await;
    let demoted = demoted.unwrap().into_inner();
    assert_eq!(demoted.role, "member");
    world.projects.remove_project_member(by(&world.admin, remove(&demoted.etag))).await.unwrap();
}

// Behaviour 43: the last admin of a project is neither removed nor demoted.
async fn the_last_admin_stays(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    let boss = world.member("alpha", "boss", "admin").await;
    let member = world.member("alpha", "member", "member").await;
    assert_eq!(refused(world.remove(&boss, "alpha", &boss).await), last_admin());
    assert_eq!(refused(world.set_role(&boss, "alpha", &boss, "member").await), last_admin());
    // With a second one, the first may go.
    world.set_role(&boss, "alpha", &member, "admin").await.unwrap();
    world.set_role(&boss, "alpha", &boss, "member").await.unwrap();
    assert_eq!(refused(world.remove(&member, "alpha", &member).await), last_admin());
    world.remove(&member, "alpha", &boss).await.unwrap();
    assert_eq!(world.roles("alpha").await, [format!("{}: admin", identity(&member))]);
}

async fn the_last_admin_leaves_by_an_admin_of_the_customer(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    let boss = world.member("alpha", "boss", "admin").await;
    world.set_role(&world.admin, "alpha", &boss, "member").await.unwrap();
    world.set_role(&world.admin, "alpha", &boss, "admin").await.unwrap();
    world.remove(&operator(world.customer, "acme"), "alpha", &boss).await.unwrap();
    assert_eq!(world.roles("alpha").await, Vec::<String>::new());
}

async fn admins_that_leave_together_leave_one(db: TestDb) {
    let world = World::new(db).await;
    for round in 0..6 {
        let project = format!("alpha-{round}");
        world.create(&project).await;
        let first = world.member(&project, "first", "admin").await;
        let second = world.member(&project, "second", "admin").await;
        let (one, other) =
            tokio::join!(world.remove(&first, &project, &first), world.remove(&second, &project, &second),);
        assert_ne!(one.is_ok(), other.is_ok(), "round {round}: {one:?} {other:?}");
        assert_eq!(refused(if one.is_ok() { other } else { one }), last_admin());
        assert_eq!(world.roles(&project).await.len(), 1);
    }
}

async fn admins_that_demote_each_other_leave_one(db: TestDb) {
    let world = World::new(db).await;
    for round in 0..6 {
        let project = format!("alpha-{round}");
        world.create(&project).await;
        let first = world.member(&project, "first", "admin").await;
        let second = world.member(&project, "second", "admin").await;
        let (one, other) = tokio::join!(
            world.set_role(&first, &project, &second, "member"),
            world.set_role(&second, &project, &first, "member"),
        );
        // The loser is a plain member by the time it is its turn.
        assert_ne!(one.is_ok(), other.is_ok(), "round {round}: {one:?} {other:?}");
        let denied = (Code::PermissionDenied, "PROJECT_ROLE_REQUIRED".to_owned());
        assert_eq!(refused(if one.is_ok() { other } else { one }), denied);
        let roles = world.roles(&project).await;
        assert_eq!(roles.iter().filter(|role| role.ends_with(": admin")).count(), 1);
    }
}
