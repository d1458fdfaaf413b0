//! How a worker is doing, for probes and for Prometheus.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::run::Shared;

/// How long the management plane may be silent; it says that a worker is gone after the same time.
const SILENCE: Duration = Duration::from_mins(2);
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A look at a worker from outside. It may be had before the worker runs, and outlives it.
#[derive(Clone)]
pub struct Monitor {
    shared: Arc<Shared>,
}

impl Monitor {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Whether the worker is in touch with the management plane.
    ///
    /// # Errors
    /// A sentence about why not.
    pub fn health(&self) -> Result<(), String> {
        let silence = self.shared.client.last_contact().map(|at| at.elapsed());
        let trouble = self.shared.trouble();
        let why = match silence {
            Some(silence) if silence <= SILENCE => return Ok(()),
            Some(silence) => format!("the management plane has not answered for {} s", silence.as_secs()),
            None => "the management plane has not answered yet".to_owned(),
        };
        Err(trouble.map_or_else(|| why.clone(), |trouble| format!("{why}: {trouble}")))
    }

    /// The worker's metrics, in the text format of Prometheus.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        self.shared.measure();
        // Writing to a text cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.shared.metrics.registry());
        text
    }

    /// Serves `/healthz` and `/metrics` until `stop` fires. Both are for whoever reaches the listener: they hold no
    /// secrets, but loopback or a network of one's own is their place.
    ///
    /// # Errors
    /// Those of the listener.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let routes =
            Router::new().route("/healthz", get(healthz)).route("/metrics", get(metrics)).with_state(self);
        axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}

async fn healthz(State(monitor): State<Monitor>) -> impl IntoResponse {
    match monitor.health() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn metrics(State(monitor): State<Monitor>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, TEXT)], monitor.metrics())
}
