//! What the management plane tells about itself: the instruments of its metrics, and the trace that a call belongs to.
//!
//! A [`Telemetry`] belongs to one server and travels with its database handle, so nothing here is global: two servers
//! in one process count apart. Labels are bounded: methods of the descriptors, codes, and words of this crate; never
//! an id, a slug or a path. Spans hold ids and names, never content or credentials.
//!
//! Deliberately absent: how metrics are served and where spans go to (the program), and log lines (`tracing`).

pub mod metrics;
pub mod trace;

mod process;

pub use metrics::Metrics;
pub use trace::Tracer;

use std::sync::Arc;

/// The instruments of one server. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    metrics: Metrics,
    tracer: Option<Tracer>,
}

impl Telemetry {
    /// Metrics, and traces where there is a tracer.
    pub fn new(tracer: Option<Tracer>) -> Self {
        Self(Arc::new(Inner { metrics: Metrics::default(), tracer }))
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The tracer; none where traces are off, so that they cost one comparison.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.0.tracer.as_ref()
    }
}
