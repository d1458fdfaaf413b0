//! A customer, its data planes, and everybody who does something to its events. What they are told is compared with
//! what the model expects of the rows before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{ByokBackend, ByokPayload, ConfigType, EventType};
use agentrouter_delivery::claim::{self, Claimed, Reach};
use agentrouter_delivery::complete::{self, Completion, Outcome};
use agentrouter_delivery::drift::{self, Observed, Scope};
use agentrouter_delivery::state::{State, Trigger, next};
use agentrouter_delivery::{
    ATTEMPTS_MAX, Audience, Slot, Triggered, batch, delete_slots, poll, redrive, retire_workspace, rollback,
    settle_due, trigger, version,
};
use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{Configuration, Customer, Event, Id, Provider, Workspace};
use agentrouter_storage::{Db, query, scope};
use agentrouter_testkit::TestDb;
use uuid::Uuid;

use crate::answers::{Expected, expected, expected_answer, held, refused, told};
use crate::check::{Context, check};
use crate::ops::{Op, Proof, Report};
use crate::rows::{Place, Rows};

/// How long claims hold. Much longer than a case takes.
const LEASE: Duration = Duration::from_mins(10);
/// Nothing falls due this soon after a step began, so that every step is over before.
const MARGIN: Duration = Duration::from_secs(20);
/// Longer than any lease and any delay.
const LONG: Duration = Duration::from_mins(20);

const USER: &str = "id_of_a_user";
/// The last one does not say who it is.
const WORKERS: [&str; 3] = ["one", "two", ""];

/// A claim, as its worker was told.
#[derive(Debug, Clone)]
struct Made {
    event: Id<Event>,
    workspace: Id<Workspace>,
    worker: &'static str,
    token: Uuid,
}

pub(crate) struct World<'a> {
    test: &'a TestDb,
    customer: Id<Customer>,
    /// All workspaces there ever were, and their slugs.
    workspaces: Vec<(Id<Workspace>, String)>,
    context: Context,
    /// Events that somebody heard of.
    heard: Vec<(Id<Workspace>, Id<Event>)>,
    made: Vec<Made>,
    /// The token of the last claim of each event.
    tokens: BTreeMap<Id<Event>, Uuid>,
    /// What the data planes really run.
    running: BTreeMap<Place, i64>,
    rows: Rows,
}

impl<'a> World<'a> {
    pub(crate) async fn new(test: &'a TestDb) -> Self {
        let name = Uuid::from_u128(u128::from(test.db.now().await.unwrap().as_micros().unsigned_abs()));
        let customer = test.customer(&format!("c{}", name.simple())).await;
        let mut world = Self {
            test,
            customer,
            workspaces: Vec::new(),
            context: Context::default(),
            heard: Vec::new(),
            made: Vec::new(),
            tokens: BTreeMap::new(),
            running: BTreeMap::new(),
            rows: Rows::default(),
        };
        world.create().await;
        world.create().await;
        world.rows = Rows::read(world.db(), customer).await;
        world
    }

    fn db(&self) -> &'a Db {
        &self.test.db
    }

    pub(crate) async fn step(&mut self, op: &Op) {
        let now = self.quiet_now().await;
        self.context.went_back = None;
        match *op {
            Op::Trigger { content } => {
                self.change(content).await;
                let triggered = self.trigger(&self.generated(), &Audience::Everyone).await;
                self.context.only.retain(|(slot, _)| *slot != triggered.configuration.id);
                if triggered.updated {
                    let live: Vec<_> = self.live().collect();
                    assert_eq!(triggered.events.len(), live.len(), "an event for each workspace");
                    self.heard.extend(live.into_iter().zip(triggered.events));
                }
            }
            Op::TriggerOnly { content, workspace } => {
                let Some(workspace) = self.pick(workspace) else { return };
                self.change(content).await;
                let mut tx = self.db().begin().await.unwrap();
                let only = scope::workspace(&mut tx, self.customer, &workspace.to_string()).await.unwrap();
                drop(tx);
                let triggered = self.trigger(&self.generated(), &Audience::Only(only)).await;
                if triggered.updated {
                    self.context.only.retain(|(slot, _)| *slot != triggered.configuration.id);
                    self.context.only.insert((triggered.configuration.id, workspace));
                }
            }
            Op::Put { content } => self.put(content).await,
            Op::TriggerGiven => {
                if self.given_row().is_some() {
                    self.trigger(&self.given(), &Audience::Everyone).await;
                }
            }
            Op::Delete => {
                let mut tx = self.db().begin().await.unwrap();
                delete_slots(&mut tx, self.customer, USER, Some(ConfigType::Byok)).await.unwrap();
                tx.commit_unaudited("test").await.unwrap();
            }
            Op::RollBack { version } => self.roll_back(version).await,
            Op::Poll { workspace } => {
                let Some(workspace) = self.pick(workspace) else { return };
                self.poll(workspace).await;
            }
            Op::Claim { event, worker } => {
                let Some((workspace, event)) = choose(&self.heard, event) else { return };
                self.claim(workspace, &[event], WORKERS[worker], false, now).await;
            }
            Op::ClaimAll { workspace, worker } => {
                let Some(workspace) = self.pick(workspace) else { return };
                let heard =
                    self.heard.iter().filter(|(whose, _)| *whose == workspace).map(|(_, event)| *event);
                let events: BTreeSet<_> = heard.collect();
                let newest: Vec<_> = events.into_iter().rev().take(batch::BATCH_MAX).collect();
                self.claim(workspace, &newest, WORKERS[worker], true, now).await;
            }
            Op::Complete { claim, report, proof } => {
                let Some(made) = choose(&self.made, claim) else { return };
                self.complete(&made, report, proof, now).await;
            }
            Op::Release { claim } => {
                let Some(made) = choose(&self.made, claim) else { return };
                self.release(&made, now).await;
            }
            Op::Retry { event } => {
                let Some((_, event)) = choose(&self.heard, event) else { return };
                self.retry(event).await;
            }
            Op::Reconcile { workspace, reports } => {
                let Some(workspace) = self.pick(workspace) else { return };
                self.heal(workspace, Scope::All, reports).await;
            }
            Op::FullSync { workspace } => {
                let Some(workspace) = self.pick(workspace) else { return };
                self.heal(workspace, Scope::Users, false).await;
            }
            Op::Wipe { workspace } => {
                let Some(workspace) = self.pick(workspace) else { return };
                self.running.retain(|(whose, _), _| *whose != workspace);
            }
            Op::Wait { seconds } => self.db().advance_clock(Duration::from_secs(seconds)),
            Op::Settle => {
                settle_due(self.db(), 1_000).await.unwrap();
            }
            Op::Create => self.create().await,
            Op::Retire { workspace } => {
                let Some(workspace) = self.pick(workspace) else { return };
                self.retire(workspace).await;
            }
        }
        self.look().await;
    }

    /// Lets everything come to an end, and expects every workspace to run the newest of everything.
    pub(crate) async fn drain(&mut self) {
        for _ in 0..4 {
            self.db().advance_clock(LONG);
            for workspace in self.live().collect::<Vec<_>>() {
                let stuck: Vec<_> = self
                    .rows
                    .events
                    .values()
                    .filter(|event| event.workspace_id == workspace && event.state() == State::Stuck)
                    .map(|event| event.id)
                    .collect();
                for event in stuck {
                    self.retry(event).await;
                    self.look().await;
                }
                self.heal(workspace, Scope::All, true).await;
                self.look().await;
                for event in self.poll(workspace).await {
                    let now = self.quiet_now().await;
                    self.look().await;
                    self.claim(workspace, &[event], WORKERS[0], false, now).await;
                    self.look().await;
                    let made = self.made.last().unwrap().clone();
                    assert_eq!(made.event, event, "what a poll shows can be claimed");
                    self.context.went_back = None;
                    self.complete(&made, Report::Applied, Proof::Token, now).await;
                    self.look().await;
                }
            }
        }
        let places = self
            .context
            .live
            .iter()
            .flat_map(|workspace| self.rows.slots.values().map(move |slot| (*workspace, slot)));
        for (workspace, slot) in places {
            let place = (workspace, slot.id);
            let wanted = |version| version == slot.version || (slot.deleted && version == 0);
            let (applied, runs) =
                (self.rows.applied(place), self.running.get(&place).copied().unwrap_or_default());
            assert!(
                wanted(applied) && wanted(runs),
                "{place:?} runs {runs}, recorded as {applied}, of {slot:?}"
            );
        }
        let open: Vec<_> = self.rows.events.values().filter(|event| event.is_open).collect();
        assert!(open.is_empty(), "{open:#?}");
    }

    /// The time, when nothing falls due for a while.
    async fn quiet_now(&self) -> Timestamp {
        loop {
            let now = self.db().now().await.unwrap();
            let soon = |due: Timestamp| due > now && due <= now.plus(MARGIN);
            if !self.rows.events.values().filter_map(|event| event.due_at).any(soon) {
                return now;
            }
            self.db().advance_clock(MARGIN);
        }
    }

    /// Compares the rows with those before the step.
    async fn look(&mut self) {
        let rows = Rows::read(self.db(), self.customer).await;
        check(&self.rows, &rows, &self.context);
        for (event, token) in &self.tokens {
            assert_eq!(
                rows.events[event].claim_token,
                Some(*token),
                "nobody holds what he was not told to hold"
            );
        }
        for event in rows.events.values().filter(|event| !self.rows.events.contains_key(&event.id)) {
            self.heard.push((event.workspace_id, event.id));
        }
        self.rows = rows;
    }

    fn live(&self) -> impl Iterator<Item = Id<Workspace>> {
        self.workspaces.iter().map(|(id, _)| *id).filter(|id| self.context.live.contains(id))
    }

    fn pick(&self, index: usize) -> Option<Id<Workspace>> {
        choose(&self.live().collect::<Vec<_>>(), index)
    }

    fn generated(&self) -> Slot {
        Slot::global(self.customer, ConfigType::Providers)
    }

    fn given(&self) -> Slot {
        Slot::per_key(self.customer, USER, ConfigType::Byok, "key")
    }

    fn given_row(&self) -> Option<Id<Configuration>> {
        self.rows.slots.values().find(|slot| slot.config_type == "byok").map(|slot| slot.id)
    }

    fn reach(&self, workspace: Id<Workspace>) -> Reach {
        Reach { customer: self.customer, workspace: Some(workspace), credential: format!("tok_{workspace}") }
    }

    async fn create(&mut self) {
        let slug = format!("ws-{}", self.workspaces.len());
        let workspace = self.test.workspace(self.customer, &slug).await;
        self.workspaces.push((workspace, slug));
        self.context.live.insert(workspace);
    }

    async fn retire(&mut self, workspace: Id<Workspace>) {
        const DELETE: &str = "UPDATE workspaces SET deleted_at = :now WHERE id = $1";
        let mut tx = self.db().begin().await.unwrap();
        query(DELETE).bind(workspace).execute(&mut tx).await.unwrap();
        retire_workspace(&mut tx, self.customer, workspace).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        self.context.live.remove(&workspace);
        let rows = Rows::read(self.db(), self.customer).await;
        assert!(!rows.events.values().any(|event| event.workspace_id == workspace && event.is_open));
    }

    /// Changes what the generated slot is made from.
    async fn change(&self, content: u8) {
        const UPSERT: &str = "INSERT INTO providers (id, customer_id, slug, display_name, schema_name, base_url, models, \
                 priority, weight, enabled, labels, revision, created_at, updated_at) \
             VALUES ($1, $2, 'openai', '', 'openai', 'https://api.example', '[]', 0, $3, TRUE, '{}', 1, 0, 0) \
             ON CONFLICT (customer_id, slug) DO UPDATE SET weight = excluded.weight";
        let mut tx = self.db().begin().await.unwrap();
        let id = Id::<Provider>::new(tx.now().await.unwrap());
        let upsert = query(UPSERT).bind(id).bind(self.customer).bind(i64::from(content));
        upsert.execute(&mut tx).await.unwrap();
        tx.commit_unaudited("test data").await.unwrap();
    }

    async fn trigger(&self, slot: &Slot, audience: &Audience) -> Triggered {
        let mut tx = self.db().begin().await.unwrap();
        let triggered = trigger(&mut tx, slot, EventType::Updated, audience).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        triggered
    }

    async fn put(&self, content: u8) {
        let backend = ByokBackend { name: format!("backend-{content}"), ..ByokBackend::default() };
        let payload = Payload::Byok(ByokPayload { backends: vec![backend] });
        let mut tx = self.db().begin().await.unwrap();
        version::put(&mut tx, &self.given(), payload, EventType::Updated).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
    }

    async fn roll_back(&self, version: i64) {
        let Some(slot) = self.given_row() else { return };
        let mut tx = self.db().begin().await.unwrap();
        match rollback::roll_back(&mut tx, self.customer, slot, version).await {
            Ok(_) => tx.commit_unaudited("test").await.unwrap(),
            Err(fault) => {
                assert!(matches!(fault.reason(), "VERSION_NOT_FOUND" | "CONFIGURATION_DELETED"), "{fault:?}");
            }
        }
    }

    /// What waits for a workspace, oldest first.
    async fn poll(&self, workspace: Id<Workspace>) -> Vec<Id<Event>> {
        let pending = poll::pending_of_workspace(self.db(), self.customer, workspace, 100).await.unwrap();
        let shown: BTreeSet<_> = pending.iter().map(|event| event.id).collect();
        let rows = Rows::read(self.db(), self.customer).await;
        let waiting = rows.events.values().filter(|event| {
            event.workspace_id == workspace
                && event.state() == State::Pending
                && rows.at(event.place(), State::Acknowledged).next().is_none()
        });
        assert_eq!(shown, waiting.map(|event| event.id).collect(), "a poll shows what can be claimed");
        pending.into_iter().map(|event| event.id).collect()
    }

    async fn claim(
        &mut self,
        workspace: Id<Workspace>,
        events: &[Id<Event>],
        worker: &'static str,
        at_once: bool,
        now: Timestamp,
    ) {
        let reach = self.reach(workspace);
        let mut answers = Vec::new();
        if at_once {
            answers = batch::acknowledge(self.db(), &reach, events, worker, LEASE).await.unwrap();
        } else {
            for event in events {
                answers.push(claim::acknowledge(self.db(), &reach, *event, worker, LEASE).await);
            }
        }
        let after = Rows::read(self.db(), self.customer).await;
        for (event, answer) in events.iter().zip(answers) {
            match answer {
                Ok(Claimed::Held(claim)) => {
                    held(&self.rows, &after, *event, worker, &claim, now);
                    self.tokens.insert(*event, claim.token);
                    self.made.push(Made { event: *event, workspace, worker, token: claim.token });
                }
                Ok(Claimed::Refused { holder }) => refused(&after, *event, worker, &holder, now),
                Err(fault) => {
                    assert_eq!(fault.reason(), "EVENT_NOT_FOUND");
                    let is_retired = !self.context.live.contains(&workspace);
                    assert!(is_retired && !after.events.contains_key(event), "{event} was announced");
                }
            }
        }
    }

    async fn complete(&mut self, made: &Made, report: Report, proof: Proof, now: Timestamp) {
        let before = self.rows.events[&made.event].clone();
        let place = before.place();
        let ran = self.running.get(&place).copied().unwrap_or_default();
        let failed = |permanent, running| Outcome::Failed { message: "no".to_owned(), permanent, running };
        let (name, outcome) = match report {
            Report::Applied => ("applied", Outcome::Applied { version: None, checksum: String::new() }),
            Report::Failed => ("failed", failed(false, None)),
            Report::Rejected => ("failed", failed(true, None)),
            Report::WentBack => ("failed", failed(true, Some(ran))),
        };
        let (token, worker) = match proof {
            Proof::Token => (Some(made.token), ""),
            Proof::Worker => (None, made.worker),
            Proof::Bare => (None, ""),
        };
        let expected = expected(&before, token, worker, name, now);
        if report == Report::Applied {
            // It runs, whether or not the report counts. A data plane does not go back to something older by itself.
            self.running.insert(place, ran.max(before.version));
        }
        if report == Report::WentBack && expected == Expected::Ends {
            self.context.went_back = Some(place);
        }
        let completion = Completion {
            event: made.event,
            outcome,
            token,
            worker: worker.to_owned(),
            resources: Vec::new(),
        };
        let answer = complete::complete(self.db(), &self.reach(made.workspace), &completion).await;
        assert_eq!(told(answer), expected_answer(expected), "{expected:?} {before:?}");
        let after = Rows::read(self.db(), self.customer).await;
        if expected != Expected::Ends {
            assert_eq!(self.rows, after, "{expected:?} changes no row");
            return;
        }
        let row = &after.events[&made.event];
        let has_newer = self.rows.at(place, State::Pending).next().is_some();
        let is_last = matches!(report, Report::Rejected | Report::WentBack) || before.attempt >= ATTEMPTS_MAX;
        let what = match report {
            Report::Applied => Trigger::Apply,
            _ if has_newer => Trigger::FailWithNewer,
            _ if is_last => Trigger::FailFinally,
            _ => Trigger::Fail,
        };
        assert_eq!(Some(row.state()), next(State::Acknowledged, what), "{row:?}");
        let applied = match report {
            Report::Applied => self.rows.applied(place).max(before.version),
            Report::WentBack => ran,
            Report::Failed | Report::Rejected => self.rows.applied(place),
        };
        assert_eq!(after.applied(place), applied);
    }

    async fn release(&mut self, made: &Made, now: Timestamp) {
        let before = self.rows.events[&made.event].clone();
        let is_current = before.is_held(now) && before.claim_token == Some(made.token);
        let reach = self.reach(made.workspace);
        let answer = redrive::release(self.db(), &reach, made.event, made.token, made.worker).await;
        let after = Rows::read(self.db(), self.customer).await;
        if !is_current {
            assert_eq!(answer.unwrap_err().reason(), "STALE_CLAIM");
            assert_eq!(self.rows, after, "a stale release changes no row");
            return;
        }
        answer.unwrap();
        let has_newer = self.rows.at(before.place(), State::Pending).next().is_some();
        let what = if has_newer { Trigger::ReleaseWithNewer } else { Trigger::Release };
        let row = &after.events[&made.event];
        assert_eq!(Some(row.state()), next(State::Acknowledged, what));
        assert_eq!(row.attempt, before.attempt - 1, "no attempt is used");
    }

    async fn retry(&self, event: Id<Event>) {
        let before = self.rows.events.get(&event);
        let has_failed = before.is_some_and(|row| {
            matches!(row.state(), State::Failed | State::Stuck)
                && self.rows.at(row.place(), State::Pending).next().is_none()
        });
        let mut tx = self.db().begin().await.unwrap();
        let answer = redrive::retry(&mut tx, self.customer, event).await;
        if has_failed {
            answer.unwrap();
            tx.commit_unaudited("test").await.unwrap();
            let after = Rows::read(self.db(), self.customer).await;
            let row = &after.events[&event];
            assert_eq!((row.state(), row.attempt), (State::Pending, 0));
        } else {
            let reason = answer.unwrap_err().reason();
            assert!(matches!(reason, "EVENT_NOT_FAILED" | "EVENT_NOT_FOUND"), "{reason}");
        }
    }

    /// Heals a workspace, and once more, which does nothing.
    async fn heal(&self, workspace: Id<Workspace>, scope: Scope, reports: bool) {
        let observed = |(place, version): (&Place, &i64)| {
            let (user_id, config_type, key_id) = match self.rows.slots[&place.1].config_type.as_str() {
                "byok" => (USER, ConfigType::Byok, "key"),
                _ => (agentrouter_delivery::SYSTEM_USER, ConfigType::Providers, ""),
            };
            let (user_id, key_id) = (user_id.to_owned(), key_id.to_owned());
            Observed { user_id, config_type, key_id, version: *version, checksum: String::new() }
        };
        let own = self.running.iter().filter(|(place, _)| place.0 == workspace);
        let slots = if reports { own.map(observed).collect() } else { Vec::new() };
        let report = drift::Report { slots, is_complete: reports };
        drift::heal(self.db(), self.customer, workspace, scope, &report).await.unwrap();
        let again = drift::heal(self.db(), self.customer, workspace, scope, &report).await.unwrap();
        assert_eq!(again.total(), 0, "healing is a fixed point");
    }
}

fn choose<T: Clone>(all: &[T], index: usize) -> Option<T> {
    all.get(index.checked_rem(all.len())?).cloned()
}
