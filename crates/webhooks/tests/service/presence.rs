//! Workspaces that go offline and come back.

use std::time::Duration;

use agentrouter_api::workspaces::{CreateWebhookRequest, UpdateWebhookRequest};
use agentrouter_kernel::id::{Id, Workspace};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, on_both_engines};
use agentrouter_webhooks::{Watching, tell_presence};
use tokio::task::JoinSet;

use crate::Tenant;
use crate::receiver::Receiver;

on_both_engines!(
    a_workspace_goes_offline_and_comes_back,
    the_servers_own_absence_is_nobodys_fault,
    one_replica_tells,
    webhooks_get_what_they_take,
    archived_workspaces_are_not_missed,
);

async fn seen(db: &TestDb, workspace: Id<Workspace>) {
    let mut tx = db.db.begin().await.unwrap();
    query("UPDATE workspace_sync SET last_seen_at = :now WHERE workspace_id = $1")
        .bind(workspace)
        .execute(&mut tx)
        .await
        .unwrap();
    tx.commit_unaudited("test").await.unwrap();
}

/// Looks every 20 s for this long, and returns how many changes were told.
async fn watch(db: &TestDb, watching: &Watching, mut length: Duration) -> usize {
    const STEP: Duration = Duration::from_secs(20);
    let mut told = tell_presence(&db.db, watching).await.unwrap();
    while !length.is_zero() {
        db.db.advance_clock(STEP);
        length = length.saturating_sub(STEP);
        told += tell_presence(&db.db, watching).await.unwrap();
    }
    told
}

fn pair(kind: &str, workspace: &str) -> (String, String) {
    (kind.to_owned(), workspace.to_owned())
}

async fn a_workspace_goes_offline_and_comes_back(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let receiver = Receiver::start().await;
    acme.created(&receiver.url).await;
    let west = db.workspace(acme.id, "west").await;
    db.workspace(acme.id, "never-seen").await;
    let watching = Watching::default();
    seen(&db, west).await;
    assert_eq!(watch(&db, &watching, Duration::from_mins(2) - Duration::from_secs(20)).await, 0);
    assert_eq!(watch(&db, &watching, Duration::from_mins(3)).await, 1, "once");
    acme.sender.send_due().await.unwrap();
    assert_eq!(receiver.summaries(), [pair("workspace.offline", "west")]);
    let json = receiver.received()[0].json();
    assert_eq!(json["data"]["customer_id"], "acme");
    assert_eq!(json["data"]["workspace_row_id"], west.to_string());
    assert!(json["data"]["last_seen_at"].as_str().unwrap() < json["timestamp"].as_str().unwrap());

    seen(&db, west).await;
    assert_eq!(watch(&db, &watching, Duration::from_secs(40)).await, 1);
    acme.sender.send_due().await.unwrap();
    assert_eq!(receiver.summaries(), [pair("workspace.offline", "west"), pair("workspace.online", "west")]);
    assert_eq!(watch(&db, &watching, Duration::from_mins(3)).await, 1, "and so on");
}

async fn the_servers_own_absence_is_nobodys_fault(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let west = db.workspace(acme.id, "west").await;
    seen(&db, west).await;
    // Nobody could call for ten minutes.
    db.db.advance_clock(Duration::from_mins(10));
    let watching = Watching::default();
    assert_eq!(watch(&db, &watching, Duration::from_secs(100)).await, 0);
    // Neither could anybody now: the database was away.
    db.db.advance_clock(Duration::from_mins(10));
    assert_eq!(watch(&db, &watching, Duration::from_secs(100)).await, 0);
    assert_eq!(watch(&db, &watching, Duration::from_mins(1)).await, 1);
}

async fn one_replica_tells(db: TestDb) {
    const WORKSPACES: usize = 25;
    let acme = Tenant::new(&db, "acme").await;
    let (id, _) = acme.created("https://hooks.example").await;
    for index in 0..WORKSPACES {
        seen(&db, db.workspace(acme.id, &format!("ws-{index}")).await).await;
    }
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push((db.reopen().await, Watching::default()));
    }
    let mut told = 0;
    for _ in 0..9 {
        let mut looks = JoinSet::new();
        for (replica, watching) in replicas.drain(..) {
            looks.spawn(async move {
                let told = tell_presence(&replica, &watching).await.unwrap();
                (replica, watching, told)
            });
        }
        for (replica, watching, count) in looks.join_all().await {
            replica.advance_clock(Duration::from_secs(20));
            told += count;
            replicas.push((replica, watching));
        }
    }
    assert_eq!(told, WORKSPACES);
    assert_eq!(acme.deliveries(&id).await.len(), WORKSPACES);
}

async fn webhooks_get_what_they_take(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let other = Tenant::new(&db, "other").await;
    let (all, _) = acme.created("https://hooks.example").await;
    let (others, _) = other.created("https://hooks.example").await;
    let picky = CreateWebhookRequest {
        event_types: vec!["slot.stuck".to_owned()],
        ..acme.new_webhook("https://hooks.example")
    };
    let picky = acme.create(picky).await.unwrap().into_inner().webhook.unwrap().id;
    let (disabled, _) = acme.created("https://hooks.example").await;
    acme.update(UpdateWebhookRequest { enabled: Some(false), ..acme.change(&disabled) }).await.unwrap();
    seen(&db, db.workspace(acme.id, "west").await).await;
    assert_eq!(watch(&db, &Watching::default(), Duration::from_mins(3)).await, 1);
    let counts = [
        acme.deliveries(&all).await.len(),
        acme.deliveries(&picky).await.len(),
        acme.deliveries(&disabled).await.len(),
        other.deliveries(&others).await.len(),
    ];
    assert_eq!(counts, [1, 0, 0, 0]);
}

async fn archived_workspaces_are_not_missed(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let (id, _) = acme.created("https://hooks.example").await;
    let (west, east) = (db.workspace(acme.id, "west").await, db.workspace(acme.id, "east").await);
    let archive = async |workspace| {
        let mut tx = db.db.begin().await.unwrap();
        query("UPDATE workspaces SET deleted_at = :now WHERE id = $1")
            .bind(workspace)
            .execute(&mut tx)
            .await
            .unwrap();
        tx.commit_unaudited("test").await.unwrap();
    };
    seen(&db, west).await;
    seen(&db, east).await;
    archive(west).await;
    let watching = Watching::default();
    assert_eq!(watch(&db, &watching, Duration::from_mins(3)).await, 1, "east alone");
    archive(east).await;
    watch(&db, &watching, Duration::from_secs(20)).await;
    let kinds: Vec<_> = acme.deliveries(&id).await.into_iter().map(|delivery| delivery.event_type).collect();
    assert_eq!(kinds, ["workspace.offline"]);
    let kept = query("SELECT CAST(COUNT(*) AS BIGINT) AS value FROM webhook_offline_workspaces");
    assert_eq!(kept.value(&db.db).await.unwrap(), Some(0));
}
