//! Changes that run at the same time.

use agentrouter_api::workspaces::UpdateWorkspaceRequest;
use agentrouter_api::workspaces::workspaces_service_server::WorkspacesService;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request};
use tokio::task::JoinSet;
use tonic::Code;

use crate::{Tenant, labels};

on_both_engines!(
    every_workspace_gets_a_number_of_its_own,
    one_of_many_takes_the_slug,
    no_change_of_another_field_is_lost,
    one_of_many_wins_an_etag,
    a_workspace_is_archived_once,
);

const TASKS: i64 = 12;

impl Tenant<'_> {
    /// The numbers of all workspaces of all customers.
    pub(crate) async fn numbers(&self) -> Vec<i64> {
        query("SELECT number AS value FROM workspaces ORDER BY number").values(&self.db.db).await.unwrap()
    }
}

async fn every_workspace_gets_a_number_of_its_own(db: TestDb) {
    let tenants = [Tenant::new(&db, "acme").await, Tenant::new(&db, "globex").await];
    let mut tasks = JoinSet::new();
    for index in 0..TASKS {
        for tenant in &tenants {
            let (service, call) = (tenant.service.clone(), call(&tenant.admin));
            let message = tenant.new_workspace(&format!("w-{index}"));
            tasks.spawn(async move { service.create_workspace(request(call, message)).await.unwrap() });
        }
    }
    tasks.join_all().await;
    assert_eq!(tenants[0].numbers().await, (1..=2 * TASKS).collect::<Vec<_>>());
}

async fn one_of_many_takes_the_slug(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (service, call, message) = (acme.service.clone(), call(&acme.admin), acme.new_workspace("eu-1"));
        tasks.spawn(async move { service.create_workspace(request(call, message)).await });
    }
    let (created, others): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((created.len(), acme.numbers().await), (1, vec![1]));
    for other in others {
        assert_eq!(refused(other), (Code::AlreadyExists, "WORKSPACE_ALREADY_EXISTS".to_owned()));
    }
}

async fn no_change_of_another_field_is_lost(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    let mut tasks = JoinSet::new();
    for change in [
        UpdateWorkspaceRequest { display_name: Some("Name".to_owned()), ..acme.change("eu-1") },
        UpdateWorkspaceRequest { labels: labels(&[("tier", "prod")]), ..acme.change("eu-1") },
    ] {
        let (service, call) = (acme.service.clone(), call(&acme.admin));
        tasks.spawn(async move { service.update_workspace(request(call, change)).await.unwrap() });
    }
    tasks.join_all().await;
    let last = acme.get("eu-1").await.unwrap().into_inner();
    assert_eq!((last.display_name.as_str(), last.etag.as_str()), ("Name", "r3"));
    assert_eq!(last.labels, labels(&[("tier", "prod")]));
}

async fn one_of_many_wins_an_etag(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let etag = acme.created("eu-1").await.etag;
    let mut tasks = JoinSet::new();
    for index in 0..TASKS {
        let (service, call) = (acme.service.clone(), call(&acme.admin));
        let change = UpdateWorkspaceRequest {
            display_name: Some(format!("Name {index}")),
            etag: etag.clone(),
            ..acme.change("eu-1")
        };
        tasks.spawn(async move { service.update_workspace(request(call, change)).await });
    }
    let (updated, others): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(updated.len(), 1);
    for other in others {
        assert_eq!(refused(other), (Code::Aborted, "ETAG_MISMATCH".to_owned()));
    }
}

async fn a_workspace_is_archived_once(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let created = acme.created("eu-1").await;
    let archive = || acme.archive("eu-1", "");
    let outcomes = tokio::join!(archive(), archive(), archive());
    let outcomes = [outcomes.0, outcomes.1, outcomes.2];
    let (archived, others): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(archived.len(), 1);
    for other in others {
        assert_eq!(refused(other), (Code::NotFound, "WORKSPACE_NOT_FOUND".to_owned()));
    }
    assert_eq!(acme.audited().await, [created.id.clone(), created.id]);
}
