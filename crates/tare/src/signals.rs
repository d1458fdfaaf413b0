//! Stopping on request.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::{Failure, INTERRUPTED};

/// SIGINT and SIGTERM, from here on.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).context("cannot listen for signals").map_err(Failure::other);
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Runs work until it ends. The first signal asks it to, the second one ends the program.
    pub(crate) async fn watch(mut self, stop: CancellationToken, work: impl Future<Output = ()>) {
        let signals = async {
            self.next().await;
            tracing::info!("stopping; a second signal stops at once");
            stop.cancel();
            self.next().await;
            tracing::warn!("stopped at once");
            std::process::exit(INTERRUPTED)
        };
        tokio::select! {
            () = work => {}
            () = signals => {}
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
