//! A running server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, environment};
use crate::telemetry::Exporter;
use crate::{bootstrap, edge, jobs, metrics, rotate, store, telemetry, wire};
use agentrouter_edge::Timely;
use agentrouter_identity::Issuers;
use agentrouter_listener::{self as listener, Settings, Tls};
use agentrouter_storage::Db;
use agentrouter_webhooks::{Sender, TargetPolicy};

/// How long calls under way may take to end after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(25);

/// A server that listens.
#[derive(Debug)]
pub struct Running {
    /// Where it listens; the port is known even if 0 was asked for.
    pub address: SocketAddr,
    /// The database behind it.
    pub db: Db,
    stop: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
    jobs: JoinSet<()>,
    /// Where `/metrics` is served beside that.
    pub metrics_address: Option<SocketAddr>,
    exporter: Exporter,
}

/// Starts a server. It serves when this returns.
///
/// # Errors
/// Where the address is taken, the database cannot be used, or the keys do not fit.
pub async fn start(config: Config) -> Result<Running> {
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("AGENTROUTER_LISTEN (listen): {}", config.listen))?;
    let address = listener.local_addr()?;
    let metrics_listener = match config.observability.metrics_listen {
        Some(listen) => Some(
            TcpListener::bind(listen)
                .await
                .with_context(|| format!("AGENTROUTER_METRICS_LISTEN (metrics_listen): {listen}"))?,
        ),
        None => None,
    };
    // Before the database is touched: a server that cannot be reached has no business there.
    let tls = match &config.edge.tls {
        Some(tls) => Some(Tls::load(tls.files.clone()).await.context("AGENTROUTER_TLS_* (tls)")?),
        None => None,
    };
    let issuers = Issuers::new(config.oidc_issuers).context("oidc_issuers")?;
    let (telemetry, exporter) = telemetry::instruments(&config.observability.traces, &environment)?;
    let deps = store::open_with(&config.store, config.secrets.keyring, telemetry).await?;
    bootstrap::bootstrap(&deps, config.secrets.bootstrap_key.as_ref(), &config.store.data_dir).await?;
    let stop = CancellationToken::new();
    let webhooks = if config.webhook_allow_private { TargetPolicy::Any } else { TargetPolicy::Public };
    let full_syncs = config.full_syncs_per_second;
    let wired = wire::wire(&deps, issuers, webhooks, full_syncs, &config.edge, &stop).await?;
    let mut jobs = jobs::start(&deps.db, &wired.presence, &stop);
    jobs.spawn(wired.key_usage.run(stop.clone()));
    let (authenticator, streams_stop) = (Arc::clone(&wired.authenticator), stop.clone());
    jobs.spawn(async move { authenticator.end_streams(&streams_stop).await });
    let (watch_db, watch_stop) = (deps.db.clone(), stop.clone());
    jobs.spawn(async move { wired.status_watch.run(&watch_db, &watch_stop).await });
    let sender = Sender::new(&deps, webhooks).context("the client of webhooks")?;
    jobs.spawn(sender.run(stop.clone()));
    jobs.spawn(rotate::follow(deps.clone(), stop.clone()));

    let metrics_address = metrics_listener.as_ref().map(TcpListener::local_addr).transpose()?;
    if let Some(listener) = metrics_listener {
        let serving = listener::serve(listener, Settings::default(), metrics::open(&deps.db), stop.clone());
        jobs.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "metrics are not served any more");
            }
        });
    }
    // Who can reach a loopback address is at home already.
    let metrics = if address.ip().is_loopback() {
        metrics::open(&deps.db)
    } else {
        metrics::guarded(&deps.db, &wired.authenticator)
    };
    let router = wired.router.merge(metrics);
    let (health, signal) = (wired.health, stop.clone());
    jobs.spawn(async move {
        signal.cancelled().await;
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    });
    if let (Some(tls), Some(settings)) = (&tls, &config.edge.tls) {
        jobs.spawn(tls.clone().follow(settings.reload, stop.clone()));
    }
    let is_tls = tls.is_some();
    let settings = Settings { limits: config.edge.connections, tls };
    let service = Timely::new(router, config.edge.bodies, edge::client_streams());
    let serving = listener::serve(listener, settings, service, stop.clone());
    #[expect(clippy::disallowed_methods, reason = "`Running` awaits it")]
    let serving = tokio::spawn(serving);
    if let Some(address) = metrics_address {
        tracing::info!(%address, "serving metrics");
    }
    tracing::info!(%address, tls = is_tls, engine = ?deps.db.engine(), "serving");
    Ok(Running { address, db: deps.db, stop, serving, jobs, metrics_address, exporter })
}

impl Running {
    /// Stops: new calls are refused, calls under way end, long polls end at once, presence is written.
    ///
    /// # Errors
    /// Where serving had failed.
    pub async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        let outcome = tokio::time::timeout(DRAIN, &mut self.serving).await;
        if outcome.is_err() {
            tracing::warn!("calls were still under way after {} s and are cut off", DRAIN.as_secs());
            self.serving.abort();
        }
        let ended = async { while self.jobs.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, ended).await.is_err() {
            tracing::warn!(
                "background jobs were still under way after {} s and are cut off",
                DRAIN.as_secs()
            );
            self.jobs.shutdown().await;
        }
        self.db.close().await;
        self.exporter.stop().await;
        if let Ok(served) = outcome {
            served.context("the server task")??;
        }
        Ok(())
    }

    /// Serves until the process is told to stop.
    ///
    /// # Errors
    /// Where serving fails.
    pub async fn until_signalled(mut self, signals: &mut Signals) -> Result<()> {
        tokio::select! {
            () = signals.received() => tracing::info!("stopping"),
            served = &mut self.serving => {
                served.context("the server task")??;
                anyhow::bail!("the server stopped by itself");
            }
        }
        self.stop().await
    }
}

/// SIGINT and SIGTERM, which no longer end the process by themselves once this is made.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Begins to catch them. Done before anything is served, so that no call is cut off by an early one.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn catch() -> Result<Self> {
        let caught = |kind, name| signal(kind).with_context(|| format!("{name} cannot be caught"));
        Ok(Self {
            interrupt: caught(SignalKind::interrupt(), "SIGINT")?,
            terminate: caught(SignalKind::terminate(), "SIGTERM")?,
        })
    }

    /// Waits for either.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits for SIGINT or SIGTERM.
pub async fn signalled() {
    match Signals::catch() {
        Ok(mut signals) => signals.received().await,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "only a kill ends this");
            std::future::pending::<()>().await;
        }
    }
}
