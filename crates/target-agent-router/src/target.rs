//! The target that a worker calls.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use agentrouter_api::configurator::{Configuration, ObservedSlot};
use agentrouter_liaison::{Applied, DirTarget, Rejected, Target};
use agentrouter_manifests::Snapshot;
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::actor::{Actor, Change};
use crate::files::{Files, find};
use crate::options::{AgentRouterOptions, Mode, OpenError};
use crate::state::State;

/// Agent Router on the same machine. Clones share it.
#[derive(Clone)]
pub struct AgentRouterTarget {
    shared: Arc<Shared>,
}

struct Shared {
    slots: DirTarget,
    changes: mpsc::UnboundedSender<Change>,
    /// Why nothing runs, where something should.
    down: watch::Receiver<Option<String>>,
    stop: CancellationToken,
    /// The task that owns the process.
    task: Mutex<JoinSet<()>>,
}

impl AgentRouterTarget {
    /// Uses a folder, and runs what it holds. Needs a runtime of tokio.
    ///
    /// # Errors
    /// [`OpenError`], for the person who chose the folder: it names paths.
    pub fn open(mut options: AgentRouterOptions) -> Result<Self, OpenError> {
        let files = Files::prepare(&options)?;
        if options.mode == Mode::Run {
            let aigw = find(&options.aigw);
            options.aigw = aigw.ok_or_else(|| OpenError::NoProgram(options.aigw.clone()))?;
        }
        let slots = DirTarget::open(files.slots())?;
        let mut state = State::default();
        let held = slots.configurations();
        let fail = |source| OpenError::Io { action: "list the folder", path: files.slots(), source };
        for configuration in held.map_err(fail)? {
            if Snapshot::concerns(configuration.config_type()) {
                state.put(&configuration);
            }
        }
        let (changes, arriving) = mpsc::unbounded_channel();
        let (tell, down) = watch::channel(None);
        let stop = CancellationToken::new();
        let actor = Actor::new(options, files, slots.clone(), state, tell, stop.clone());
        let mut task = JoinSet::new();
        task.spawn(actor.run(arriving));
        Ok(Self { shared: Arc::new(Shared { slots, changes, down, stop, task: Mutex::new(task) }) })
    }

    /// Lets open requests end, and ends Agent Router. What is applied afterwards is refused.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        let mut task = std::mem::take(&mut *self.shared.task.lock().unwrap_or_else(PoisonError::into_inner));
        while task.join_next().await.is_some() {}
    }
}

impl fmt::Debug for AgentRouterTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgentRouterTarget").field(&self.shared.slots).finish()
    }
}

#[async_trait]
impl Target for AgentRouterTarget {
    async fn apply(&self, configuration: &Configuration) -> Result<Applied, Rejected> {
        if !Snapshot::concerns(configuration.config_type()) {
            // Nothing that Agent Router reads.
            return self.shared.slots.apply(configuration).await;
        }
        let (answer, answered) = oneshot::channel();
        let change = Change { configuration: configuration.clone(), answer };
        let stopped = || Rejected::transient("the worker stops");
        self.shared.changes.send(change).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    async fn observed(&self) -> Result<Option<Vec<ObservedSlot>>, Rejected> {
        if let Some(why) = self.shared.down.borrow().clone() {
            return Err(Rejected::transient(why));
        }
        self.shared.slots.observed().map(Some).map_err(|error| {
            // An error of the system names no path by itself.
            Rejected::transient(format!("cannot list the slots: {error}"))
        })
    }
}
