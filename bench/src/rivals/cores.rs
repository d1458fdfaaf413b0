//! One core for the servers, another one for their clients.

use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The core of the servers.
pub(crate) fn server() -> Result<usize> {
    usable()?.first().copied().context("no core")
}

/// The core of the clients, and of services behind a proxy. That of the servers, too, where there is only one.
pub(crate) fn client() -> Result<usize> {
    let usable = usable()?;
    usable.get(1).or(usable.first()).copied().context("no core")
}

fn usable() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Runs something in a thread that stays on a core, as do the processes that it starts.
pub(crate) fn on<T: Send>(core: usize, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pinned = || {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set).with_context(|| format!("core {core}"))?;
        run()
    };
    thread::scope(|scope| scope.spawn(pinned).join()).map_err(|_| anyhow!("a thread panicked"))?
}
