//! A worker of a data plane, racing with another one. Sometimes it fails, and sometimes it dies with an event in its
//! hands, and its ghost reports the event when it is too late.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_api::configurator::{
    AcknowledgeEventRequest, CompleteEventRequest, ConfigurationEvent, ConfigurationQuery,
    GetConfigurationRequest, ListPendingEventsRequest,
};
use tokio::time::Instant;
use tonic::Code;

use crate::call::{Gone, Trouble, answered, told};
use crate::common::Api;
use crate::ledger::{Ledger, Winner};

/// How long the claims of a dying worker hold.
const DYING: Duration = Duration::from_secs(1);
/// Claims that hold for as long are never expected to run out; shorter ones may, however soon they are asked for again.
const LONG: Duration = Duration::from_mins(1);
/// How long a poll waits at most while there are ghosts, who are to be heard soon.
const HAUNTED: Duration = Duration::from_millis(200);
/// Events that used as many attempts are handled well: after the fifth one, a slot is stuck.
const BAD_ATTEMPTS: i32 = 2;

/// How a worker goes about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    /// How long its polls wait.
    pub(crate) wait: Duration,
    /// How long its claims hold.
    pub(crate) lease: Duration,
}

impl Default for Habits {
    fn default() -> Self {
        Self { wait: Duration::from_millis(200), lease: LONG }
    }
}

pub(crate) struct Worker {
    id: String,
    habits: Habits,
    workspace: String,
    pub(crate) token: String,
    ledger: Arc<Mutex<Ledger>>,
    /// Whether it neither fails nor dies any more.
    pub(crate) is_calm: bool,
    rng: fastrand::Rng,
    task: Task,
    ghosts: Vec<Ghost>,
}

/// What it is at.
enum Task {
    Poll,
    /// It asks for an event, for the first time or because it does not know whether it got it.
    Claim {
        event: Box<ConfigurationEvent>,
        fate: Fate,
        asked: i32,
        asked_at: Instant,
    },
    /// It has applied an event, or failed to, and reports that.
    Complete {
        request: CompleteEventRequest,
        attempt: i32,
        asked: i32,
        /// When its lease may be over, at the earliest.
        held_until: Instant,
    },
}

/// What is going to happen while it holds an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Applies,
    Fails,
    Dies,
}

/// A claim of a worker that died.
struct Ghost {
    request: CompleteEventRequest,
    /// When its lease is over for certain.
    due: Instant,
}

type Client = ConfiguratorServiceClient<Api>;

impl Worker {
    pub(crate) fn new(
        workspace: &str,
        id: &str,
        token: &str,
        habits: Habits,
        ledger: Arc<Mutex<Ledger>>,
    ) -> Self {
        Self {
            id: id.to_owned(),
            habits,
            workspace: workspace.to_owned(),
            token: token.to_owned(),
            ledger,
            is_calm: false,
            rng: fastrand::Rng::new(),
            task: Task::Poll,
            ghosts: Vec::new(),
        }
    }

    /// The same worker with dice of its own.
    pub(crate) fn with_rng(self, rng: fastrand::Rng) -> Self {
        Self { rng, ..self }
    }

    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.task, Task::Poll) && self.ghosts.is_empty()
    }

    /// Makes the connection, by a poll that does not wait.
    pub(crate) async fn look(&self, api: &Api) -> Result<(), Gone> {
        let request = ListPendingEventsRequest { worker_id: self.id.clone(), ..Default::default() };
        answered(Client::new(api.clone()).list_pending_events(request).await).map(|_| ())
    }

    pub(crate) async fn step(&mut self, api: &Api) -> Result<(), Gone> {
        let mut client = Client::new(api.clone());
        self.haunt(&mut client).await?;
        match &mut self.task {
            Task::Poll => {}
            Task::Claim { asked, asked_at, .. } => {
                *asked += 1;
                *asked_at = Instant::now();
            }
            Task::Complete { asked, .. } => *asked += 1,
        }
        // A task is taken up again until its end is known.
        let next = match &self.task {
            Task::Poll => self.poll(&mut client).await?,
            Task::Claim { event, fate, asked, asked_at } => {
                self.claim(&mut client, event, *fate, *asked, *asked_at).await?
            }
            Task::Complete { request, attempt, asked, held_until } => {
                self.complete(&mut client, request, *attempt, *asked, *held_until).await?
            }
        };
        if let Some((task, ghost)) = next {
            self.task = task;
            self.ghosts.extend(ghost);
        }
        Ok(())
    }

    async fn poll(&mut self, client: &mut Client) -> Result<Next, Gone> {
        let wait = if self.ghosts.is_empty() { self.habits.wait } else { self.habits.wait.min(HAUNTED) };
        let request = ListPendingEventsRequest {
            wait: Some(to_proto(wait)),
            worker_id: self.id.clone(),
            ..Default::default()
        };
        let pending = answered(client.list_pending_events(request).await)?.unwrap_or_default().events;
        for (index, event) in pending.iter().enumerate() {
            let twice = pending[..index].iter().any(|other| slot(other) == slot(event));
            assert!(!twice, "two events of one slot wait: {pending:?}");
            assert_eq!(event.workspace_id, self.workspace);
        }
        let event = pending.into_iter().next();
        let asked_at = Instant::now();
        Ok(event.map(|event| {
            (Task::Claim { fate: self.fate(&event), event: Box::new(event), asked: 0, asked_at }, None)
        }))
    }

    fn fate(&mut self, event: &ConfigurationEvent) -> Fate {
        if self.is_calm || event.attempt >= BAD_ATTEMPTS {
            return Fate::Applies;
        }
        match self.rng.u8(..32) {
            0 => Fate::Dies,
            1 => Fate::Fails,
            _ => Fate::Applies,
        }
    }

    async fn claim(
        &self,
        client: &mut Client,
        event: &ConfigurationEvent,
        fate: Fate,
        asked: i32,
        asked_at: Instant,
    ) -> Result<Next, Gone> {
        let lease = if fate == Fate::Dies { DYING } else { self.habits.lease };
        let is_short = lease < LONG;
        let request = AcknowledgeEventRequest {
            event_id: event.id.clone(),
            worker_id: self.id.clone(),
            lease: Some(to_proto(lease)),
        };
        let Some(claim) = answered(client.acknowledge_event(request).await)? else { return Ok(None) };
        if is_short {
            // An earlier claim that was never answered may have run out since, and used an attempt.
            self.ledger.lock().unwrap().unanswered(&event.id, asked - 1);
        }
        if !claim.success {
            assert!(is_short || claim.holder != self.id, "a worker is not refused for its own sake");
            return Ok(Some((Task::Poll, None)));
        }
        let winner = Winner { worker: self.id.clone(), token: claim.claim_token.clone() };
        self.ledger.lock().unwrap().claimed(&event.id, claim.attempt, &winner);
        let mut request = CompleteEventRequest {
            event_id: event.id.clone(),
            success: true,
            claim_token: claim.claim_token,
            worker_id: self.id.clone(),
            ..Default::default()
        };
        // Others may have used attempts since it was offered.
        let may_fail = claim.attempt <= BAD_ATTEMPTS;
        match fate {
            Fate::Fails if may_fail => {
                request.success = false;
                "the data plane is out of sorts".clone_into(&mut request.error_message);
            }
            Fate::Applies | Fate::Fails => self.fetch(client, event).await?,
            Fate::Dies => {
                // The lease began before its answer came.
                let due = Instant::now() + DYING + Duration::from_millis(1);
                return Ok(Some((Task::Poll, Some(Ghost { request, due }))));
            }
        }
        // The lease began when the server answered, or later than that of an earlier answer that was lost.
        let held_until = asked_at + lease;
        Ok(Some((Task::Complete { request, attempt: claim.attempt, asked: 0, held_until }, None)))
    }

    /// Reads what it is to apply: at least what was announced.
    async fn fetch(&self, client: &mut Client, event: &ConfigurationEvent) -> Result<(), Gone> {
        let query = ConfigurationQuery {
            user_id: event.user_id.clone(),
            config_type: event.config_type,
            key_id: event.key_id.clone(),
            current_version: event.version - 1,
        };
        let request = GetConfigurationRequest { queries: vec![query] };
        let Some(answer) = answered(client.get_configuration(request).await)? else { return Ok(()) };
        let versions: Vec<_> =
            answer.configurations.iter().map(|configuration| configuration.version).collect();
        let is_there = matches!(versions[..], [version] if version >= event.version);
        assert!(is_there, "version {} was announced, and {versions:?} is there", event.version);
        Ok(())
    }

    async fn complete(
        &self,
        client: &mut Client,
        request: &CompleteEventRequest,
        attempt: i32,
        asked: i32,
        held_until: Instant,
    ) -> Result<Next, Gone> {
        // A failure whose answer was lost: the event was offered again since, perhaps to somebody else.
        let may_be_others = !request.success && asked > 1;
        match told(client.complete_event(request.clone()).await) {
            Ok(done) => {
                assert!(done.success, "a completion under a live claim counts");
                self.ledger.lock().unwrap().completed(&request.event_id, attempt, request.success);
            }
            // Or it took longer than the lease until a server could be reached.
            Err(Trouble::Refused { code: Code::Aborted, reason })
                if may_be_others || Instant::now() >= held_until =>
            {
                assert_eq!(reason, "STALE_CLAIM");
                self.ledger.lock().unwrap().stale += 1;
            }
            Err(Trouble::Again) => return Ok(None),
            Err(Trouble::Gone) => return Err(Gone),
            Err(trouble) => panic!("a completion under a live claim was answered with {trouble:?}"),
        }
        Ok(Some((Task::Poll, None)))
    }

    /// Dies in the middle of whatever it does, and comes back under another name without knowing anything of it.
    pub(crate) fn die(&mut self) {
        let mut ledger = self.ledger.lock().unwrap();
        match std::mem::replace(&mut self.task, Task::Poll) {
            Task::Claim { event, asked, .. } => ledger.unanswered(&event.id, asked),
            Task::Complete { request, attempt, .. } if request.success => {
                ledger.unsure.insert((request.event_id, attempt));
            }
            Task::Complete { .. } | Task::Poll => {}
        }
        self.id.push('+');
    }

    /// Reports what dead workers held, once their leases are over.
    async fn haunt(&mut self, client: &mut Client) -> Result<(), Gone> {
        let now = Instant::now();
        let Some(index) = self.ghosts.iter().position(|ghost| ghost.due < now) else { return Ok(()) };
        match told(client.complete_event(self.ghosts[index].request.clone()).await) {
            Err(Trouble::Refused { code: Code::Aborted, reason }) => assert_eq!(reason, "STALE_CLAIM"),
            Err(Trouble::Gone) => return Err(Gone),
            Err(Trouble::Again) => return Ok(()),
            other => panic!("a late completion was answered with {other:?}"),
        }
        self.ledger.lock().unwrap().stale += 1;
        self.ghosts.swap_remove(index);
        Ok(())
    }
}

fn to_proto(length: Duration) -> prost_types::Duration {
    let nanos = length.subsec_nanos().cast_signed();
    prost_types::Duration { seconds: length.as_secs().cast_signed(), nanos }
}

/// What it does next, and what it leaves behind; none where it has to repeat what it did.
type Next = Option<(Task, Option<Ghost>)>;

fn slot(event: &ConfigurationEvent) -> (i32, &str, &str) {
    (event.config_type, &event.user_id, &event.key_id)
}
