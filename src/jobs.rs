//! What the server does by itself: wake-ups between replicas, what time brings about, presence, and cleaning up.

use std::sync::Arc;
use std::time::Duration;

use agentrouter_configurator::Presence;
use agentrouter_kernel::Fault;
use agentrouter_storage::{Db, StorageError, idempotency, pulse};
use agentrouter_webhooks::Watching;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Leases that ran out and retries that are due are looked for this often; a poll finds its own at once.
const SETTLE: Duration = Duration::from_millis(250);
/// How many workspaces are looked up for that at a time.
const SETTLE_LIMIT: i64 = 100;
const PRESENCE: Duration = Duration::from_secs(1);
/// How often the state of the installation is read for the metrics, however often those are asked for.
const FLEET: Duration = Duration::from_secs(15);
/// How soon people are told what happened to a workspace.
const TELL: Duration = Duration::from_secs(2);
const SWEEP: Duration = Duration::from_mins(1);
const SWEEP_LIMIT: i64 = 1_000;

/// Starts all of it.
pub(crate) fn start(db: &Db, presence: &Arc<Presence>, shutdown: &CancellationToken) -> JoinSet<()> {
    let mut jobs = JoinSet::new();
    let (pulse_db, pulse_shutdown) = (db.clone(), shutdown.clone());
    jobs.spawn(async move { pulse::run(&pulse_db, &pulse_shutdown).await });
    let (settle_db, settle_shutdown) = (db.clone(), shutdown.clone());
    every(&mut jobs, "settle", SETTLE, shutdown, move || settle(settle_db.clone(), settle_shutdown.clone()));
    let (presence, presence_db) = (Arc::clone(presence), db.clone());
    every(&mut jobs, "presence", PRESENCE, shutdown, move || {
        let (presence, db) = (Arc::clone(&presence), presence_db.clone());
        async move { presence.flush(&db).await }
    });
    let fleet_db = db.clone();
    every(&mut jobs, "fleet", FLEET, shutdown, move || {
        let db = fleet_db.clone();
        async move { agentrouter_delivery::observe_fleet(&db).await }
    });
    let signals_db = db.clone();
    every(&mut jobs, "signals", TELL, shutdown, move || {
        let db = signals_db.clone();
        async move { agentrouter_webhooks::tell_signals(&db).await.map(|_| ()) }
    });
    let (watching, watching_db) = (Arc::new(Watching::default()), db.clone());
    every(&mut jobs, "offline", TELL, shutdown, move || {
        let (watching, db) = (Arc::clone(&watching), watching_db.clone());
        async move { agentrouter_webhooks::tell_presence(&db, &watching).await.map(|_| ()) }
    });
    let purge_db = db.clone();
    every(&mut jobs, "purge", SWEEP, shutdown, move || {
        let db = purge_db.clone();
        async move { agentrouter_tenancy::finish_purges(&db).await.map(|_| ()) }
    });
    let sweep_db = db.clone();
    every(&mut jobs, "sweep", SWEEP, shutdown, move || sweep(sweep_db.clone()));
    jobs
}

/// Settles all that is due now: when a large worker dies, hundreds of leases end at once.
async fn settle(db: Db, shutdown: CancellationToken) -> Result<(), StorageError> {
    while !shutdown.is_cancelled() && agentrouter_delivery::settle_due(&db, SETTLE_LIMIT).await? > 0 {}
    Ok(())
}

async fn sweep(db: Db) -> Result<(), StorageError> {
    let mut tx = db.begin().await?;
    idempotency::sweep(&mut tx, SWEEP_LIMIT).await?;
    agentrouter_identity::sweep_expired(&mut tx, SWEEP_LIMIT).await?;
    agentrouter_configurator::sweep_upgrade_credentials(&mut tx, SWEEP_LIMIT).await?;
    agentrouter_delivery::sweep_events(&mut tx, SWEEP_LIMIT).await?;
    agentrouter_delivery::sweep_versions(&mut tx, SWEEP_LIMIT).await?;
    agentrouter_webhooks::sweep_ended(&mut tx, SWEEP_LIMIT).await?;
    tx.commit_unaudited("expired rows have no effect any more").await
}

/// Runs a job again and again until shutdown. A failure is logged and the next run tries again.
fn every<F, E>(
    jobs: &mut JoinSet<()>,
    name: &'static str,
    period: Duration,
    shutdown: &CancellationToken,
    job: impl Fn() -> F + Send + 'static,
) where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Fault> + Send,
{
    let shutdown = shutdown.clone();
    jobs.spawn(async move {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = job().await {
                tracing::warn!(job = name, error = %error.into(), "a background job failed");
            }
        }
    });
}
