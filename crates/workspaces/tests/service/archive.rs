//! ArchiveWorkspace.

use agentrouter_api::workspaces::ArchiveWorkspaceResponse;
use agentrouter_testkit::{TestDb, on_both_engines, refused, violations};
use tonic::Code;

use crate::Tenant;
use crate::fleet::Worker;

on_both_engines!(an_archived_workspace_is_missing, its_slug_and_number_stay_taken, its_open_events_end,);

async fn an_archived_workspace_is_missing(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let created = acme.created("eu-1").await;
    let archived = acme.archive(&created.id, &created.etag).await.unwrap().into_inner();
    assert_eq!(archived, ArchiveWorkspaceResponse {});
    let not_found = (Code::NotFound, "WORKSPACE_NOT_FOUND".to_owned());
    assert_eq!(refused(acme.get("eu-1").await), not_found);
    assert_eq!(refused(acme.get(&created.id).await), not_found);
    assert_eq!(refused(acme.update(acme.change("eu-1")).await), not_found);
    assert_eq!(refused(acme.archive("eu-1", "").await), not_found);
    assert_eq!(refused(acme.status("eu-1").await), not_found);
    assert_eq!(refused(acme.issue("eu-1").await), not_found);
    assert_eq!(violations(acme.status("").await), ["workspace_id"]);
}

async fn its_slug_and_number_stay_taken(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    acme.archive("eu-1", "").await.unwrap();
    let taken = (Code::AlreadyExists, "WORKSPACE_ALREADY_EXISTS".to_owned());
    assert_eq!(refused(acme.create(acme.new_workspace("eu-1")).await), taken);
    acme.created("eu-2").await;
    assert_eq!(acme.numbers().await, [1, 2]);
}

async fn its_open_events_end(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    acme.created("eu-2").await;
    let (leaving, staying) = (Worker::new(&acme, "eu-1").await, Worker::new(&acme, "eu-2").await);
    acme.change_providers(1).await;
    let event = leaving.only_pending().await;
    let claim = leaving.hold(event.id).await;
    acme.change_providers(2).await;
    assert_eq!((leaving.pending().await.len(), leaving.open_events().await), (0, 2));

    acme.archive("eu-1", "").await.unwrap();
    assert_eq!(leaving.open_events().await, 0);
    // What the worker still holds is not its any more.
    let late = leaving.complete(&event, &claim, crate::fleet::applied()).await;
    assert_eq!(late.unwrap_err().reason(), "STALE_CLAIM");
    assert_eq!(staying.converge().await, 1);
    assert!(acme.status("eu-2").await.unwrap().into_inner().converged);
}
