//! Repeated and concurrent writes.

use std::sync::Arc;

use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::projects_service_server::ProjectsService;
use agentrouter_testkit::{TestDb, refused, viewer};
use tokio::task::JoinSet;
use tonic::Code;

use crate::{World, add, archive, by, by_with_key, create, identity, update};

agentrouter_testkit::on_both_engines!(
    a_repeated_key_gets_the_same_answer,
    a_key_is_bound_to_its_request_and_caller,
    racing_repeats_create_one_project,
    racing_creations_of_a_slug_have_one_winner,
    racing_updates_with_an_etag_have_one_winner,
    racing_updates_without_an_etag_lose_nothing,
    racing_archives_have_one_winner,
);

async fn a_repeated_key_gets_the_same_answer(db: TestDb) {
    let world = World::new(db).await;
    let first = world.projects.create_project(by_with_key(&world.admin, "c", create("alpha"))).await;
    let first = first.unwrap().into_inner();
    let person = identity(&world.person("Ada").await);
    let member = add("alpha", person, "admin");
    let added = world.projects.add_project_member(by_with_key(&world.admin, "m", member.clone())).await;
    let added = added.unwrap().into_inner();
    world.projects.archive_project(by_with_key(&world.admin, "a", archive("alpha"))).await.unwrap();

    // The answers of then, though the project is archived now.
    let again = world.projects.create_project(by_with_key(&world.admin, "c", create("alpha"))).await;
    assert_eq!(again.unwrap().into_inner(), first);
    let again = world.projects.add_project_member(by_with_key(&world.admin, "m", member)).await;
    assert_eq!(again.unwrap().into_inner(), added);
    world.projects.archive_project(by_with_key(&world.admin, "a", archive("alpha"))).await.unwrap();
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM projects").await, 2);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM project_members").await, 1);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM audit_entries").await, 3);
}

async fn a_key_is_bound_to_its_request_and_caller(db: TestDb) {
    let world = World::new(db).await;
    world.projects.create_project(by_with_key(&world.admin, "k", create("alpha"))).await.unwrap();
    let reused = world.projects.create_project(by_with_key(&world.admin, "k", create("beta"))).await;
    assert_eq!(refused(reused), (Code::Aborted, "IDEMPOTENCY_KEY_REUSED".to_owned()));
    // Another caller's key is another key.
    let other = viewer(world.customer, "acme");
    let taken = world.projects.create_project(by_with_key(&other, "k", create("alpha"))).await;
    assert_eq!(refused(taken), (Code::AlreadyExists, "PROJECT_ALREADY_EXISTS".to_owned()));
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM projects").await, 2);
}

async fn racing_repeats_create_one_project(db: TestDb) {
    let world = Arc::new(World::new(db).await);
    let mut tasks = JoinSet::new();
    for _ in 0..12 {
        let world = Arc::clone(&world);
        tasks.spawn(async move {
            let message = by_with_key(&world.admin, "k", create("alpha"));
            world.projects.create_project(message).await.unwrap().into_inner()
        });
    }
    let answers = tasks.join_all().await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM projects").await, 2);
}

async fn racing_creations_of_a_slug_have_one_winner(db: TestDb) {
    let world = Arc::new(World::new(db).await);
    let mut tasks = JoinSet::new();
    for _ in 0..12 {
        let world = Arc::clone(&world);
        tasks.spawn(async move { world.projects.create_project(by(&world.admin, create("alpha"))).await });
    }
    let (won, lost): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for loser in lost {
        assert_eq!(refused(loser), (Code::AlreadyExists, "PROJECT_ALREADY_EXISTS".to_owned()));
    }
}

async fn racing_updates_with_an_etag_have_one_winner(db: TestDb) {
    let world = Arc::new(World::new(db).await);
    let etag = world.create("alpha").await.etag;
    let mut tasks = JoinSet::new();
    for number in 0..12 {
        let (world, etag) = (Arc::clone(&world), etag.clone());
        tasks.spawn(async move {
            let message = pb::UpdateProjectRequest {
                display_name: Some(format!("by {number}")),
                etag,
                ..update("alpha")
            };
            world.projects.update_project(by(&world.admin, message)).await
        });
    }
    let (mut won, lost): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for loser in lost {
        assert_eq!(refused(loser), (Code::Aborted, "ETAG_MISMATCH".to_owned()));
    }
    let winner = won.remove(0).unwrap().into_inner();
    assert_eq!(world.get(&world.admin, "alpha").await.unwrap().into_inner(), winner);
}

async fn racing_updates_without_an_etag_lose_nothing(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    for round in 0..8 {
        let text = pb::UpdateProjectRequest { description: Some(format!("text {round}")), ..update("alpha") };
        let name = format!("name {round}");
        let (first, second) = tokio::join!(
            world.rename(&world.admin, "alpha", &name),
            world.projects.update_project(by(&world.admin, text)),
        );
        first.unwrap();
        second.unwrap();
        let found = world.get(&world.admin, "alpha").await.unwrap().into_inner();
        assert_eq!(found.display_name, name);
        assert_eq!(found.description, format!("text {round}"));
    }
}

async fn racing_archives_have_one_winner(db: TestDb) {
    let world = Arc::new(World::new(db).await);
    world.create("alpha").await;
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let world = Arc::clone(&world);
        tasks.spawn(async move { world.archive(&world.admin, "alpha").await });
    }
    let (won, lost): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for loser in lost {
        assert_eq!(refused(loser), (Code::NotFound, "PROJECT_NOT_FOUND".to_owned()));
    }
}
