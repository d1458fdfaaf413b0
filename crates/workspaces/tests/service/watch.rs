//! ResyncWorkspace, and the stream of a workspace's status.

use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator::{ConfigType, EventStatus};
use agentrouter_api::workspaces::workspaces_service_server::WorkspacesService;
use agentrouter_api::workspaces::{
    ResyncWorkspaceRequest, ResyncWorkspaceResponse, WatchWorkspaceStatusRequest, WorkspaceStatus,
};
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request, viewer, violations};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status};

use crate::Tenant;
use crate::fleet::Worker;

on_both_engines!(
    a_resync_queues_everything_again,
    a_resync_may_be_about_one_slot,
    a_stream_shows_each_change_once,
    a_stream_ends_with_its_workspace_and_with_the_server,
    streams_of_others_do_not_exist,
);

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

impl Tenant<'_> {
    async fn resync(
        &self,
        message: ResyncWorkspaceRequest,
    ) -> Result<Response<ResyncWorkspaceResponse>, Status> {
        self.service.resync_workspace(request(call(&self.admin), message)).await
    }

    async fn resynced(&self, message: ResyncWorkspaceRequest) -> i32 {
        self.resync(message).await.unwrap().into_inner().replayed_total
    }

    fn everything(&self, workspace_id: &str) -> ResyncWorkspaceRequest {
        ResyncWorkspaceRequest {
            customer_id: self.slug.to_owned(),
            workspace_id: workspace_id.to_owned(),
            ..ResyncWorkspaceRequest::default()
        }
    }

    fn watch_request(&self, workspace_id: &str) -> WatchWorkspaceStatusRequest {
        WatchWorkspaceStatusRequest {
            customer_id: self.slug.to_owned(),
            workspace_id: workspace_id.to_owned(),
        }
    }

    async fn watched(&self, workspace_id: &str) -> BoxStream<'static, Result<WorkspaceStatus, Status>> {
        let caller = call(&viewer(self.id, self.slug));
        let message = request(caller, self.watch_request(workspace_id));
        self.service.watch_workspace_status(message).await.unwrap().into_inner()
    }

    /// Keeps the streams awake until the test ends, or the token is cancelled.
    fn keep_watch(&self, shutdown: &CancellationToken) -> JoinSet<()> {
        let (watch, db, shutdown) = (self.service.status_watch(), self.db.db.clone(), shutdown.clone());
        let mut running = JoinSet::new();
        running.spawn(async move { Arc::clone(&watch).run(&db, &shutdown).await });
        running
    }
}

async fn next(
    stream: &mut BoxStream<'static, Result<WorkspaceStatus, Status>>,
) -> Option<Result<WorkspaceStatus, Status>> {
    tokio::time::timeout(PATIENCE, stream.next()).await.unwrap()
}

async fn a_resync_queues_everything_again(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    let worker = Worker::new(&acme, "eu-1").await;
    acme.change_providers(1).await;
    assert_eq!(acme.resynced(acme.everything("eu-1")).await, 0, "it is queued already");
    worker.converge().await;
    assert_eq!(acme.resynced(acme.everything("eu-1")).await, 1);
    assert_eq!(acme.resynced(acme.everything("eu-1")).await, 0);
    assert_eq!(worker.converge().await, 1);
    let status = acme.status("eu-1").await.unwrap().into_inner();
    assert!(status.converged);
    assert_eq!(status.slots[0].event_status(), EventStatus::Applied);
    let missing = (Code::NotFound, "WORKSPACE_NOT_FOUND".to_owned());
    assert_eq!(refused(acme.resync(acme.everything("nowhere")).await), missing);
}

async fn a_resync_may_be_about_one_slot(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    acme.change_providers(1).await;
    Worker::new(&acme, "eu-1").await.converge().await;
    let slot = |config_type: ConfigType| ResyncWorkspaceRequest {
        config_type: config_type.into(),
        ..acme.everything("eu-1")
    };
    assert_eq!(acme.resynced(slot(ConfigType::Providers)).await, 1);
    let missing = (Code::NotFound, "CONFIGURATION_NOT_FOUND".to_owned());
    assert_eq!(refused(acme.resync(slot(ConfigType::McpCatalog)).await), missing);
    let nameless = ResyncWorkspaceRequest { key_id: "key".to_owned(), ..acme.everything("") };
    assert_eq!(violations(acme.resync(nameless).await), ["workspace_id", "config_type"]);
    let unknown = ResyncWorkspaceRequest { config_type: 999, ..acme.everything("eu-1") };
    assert_eq!(violations(acme.resync(unknown).await), ["config_type"]);
}

// Behaviour 38: a reader that is slow finds the newest status when it reads on, not every one that was.
async fn a_stream_shows_each_change_once(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    acme.created("eu-2").await;
    let worker = Worker::new(&acme, "eu-1").await;
    let _running = acme.keep_watch(&CancellationToken::new());
    let mut stream = acme.watched("eu-1").await;
    let first = next(&mut stream).await.unwrap().unwrap();
    assert_eq!((first.converged, first.slots.len()), (true, 0));
    assert_eq!(first, acme.status("eu-1").await.unwrap().into_inner());

    acme.change_providers(1).await;
    let waiting = next(&mut stream).await.unwrap().unwrap();
    assert_eq!((waiting.converged, waiting.pending_events), (false, 1));
    let event = worker.only_pending().await;
    worker.hold(event.id).await;
    let held = next(&mut stream).await.unwrap().unwrap();
    assert_eq!((held.pending_events, held.in_flight_events), (0, 1));

    // Nobody reads while all of this happens.
    acme.change_providers(2).await;
    acme.change_providers(3).await;
    acme.change_providers(4).await;
    let newest = next(&mut stream).await.unwrap().unwrap();
    assert_eq!(newest.slots[0].desired_version, 4);
    let quiet = tokio::time::timeout(Duration::from_secs(3), stream.next()).await;
    assert!(quiet.is_err(), "nothing happens, so nothing is shown");
}

async fn a_stream_ends_with_its_workspace_and_with_the_server(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    acme.created("eu-2").await;
    let shutdown = CancellationToken::new();
    let mut running = acme.keep_watch(&shutdown);
    let (mut archived, mut left) = (acme.watched("eu-1").await, acme.watched("eu-2").await);
    next(&mut archived).await.unwrap().unwrap();
    next(&mut left).await.unwrap().unwrap();
    acme.archive("eu-1", "").await.unwrap();
    let end = next(&mut archived).await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::NotFound);
    assert!(next(&mut archived).await.is_none());

    shutdown.cancel();
    assert!(next(&mut left).await.is_none());
    running.join_next().await.unwrap().unwrap();
    let mut late = acme.watched("eu-2").await;
    next(&mut late).await.unwrap().unwrap();
    assert!(next(&mut late).await.is_none());
}

// Behaviour 39: a stream of another customer's workspace is as missing as that of no workspace.
async fn streams_of_others_do_not_exist(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let other = Tenant::new(&db, "other").await;
    other.created("theirs").await;
    for name in ["theirs", "nobodys"] {
        let watch = acme.service.watch_workspace_status(request(call(&acme.admin), acme.watch_request(name)));
        let refusal = refused(watch.await.map(|_| Response::new(())));
        assert_eq!(refusal, (Code::NotFound, "WORKSPACE_NOT_FOUND".to_owned()));
        let resync = acme.resync(acme.everything(name)).await;
        assert_eq!(refused(resync), (Code::NotFound, "WORKSPACE_NOT_FOUND".to_owned()));
    }
}
