//! Upgrades of the data plane, through all they may come to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::{Configuration, EventType, UpgradePhase};
use agentrouter_liaison::{
    Applied, Rejected, Target, Upgrade, UpgradePolicy, UpgradeState, Upgrader, WorkerConfig,
};
use async_trait::async_trait;
use prost_types::value::Kind;
use tokio::sync::watch;
use tonic::Status;

use crate::plane::{PATIENCE, Plane, State};
use crate::running::{Running, config};

/// A data plane that plays its part as written.
#[derive(Debug, Default)]
struct Scripted(Mutex<Script>);

#[derive(Debug, Default)]
struct Script {
    /// What it tells next, the last one for ever.
    states: VecDeque<UpgradeState>,
    calls: Vec<String>,
    refuses: Option<Rejected>,
    /// What a call changes the script to.
    after: BTreeMap<&'static str, Vec<UpgradeState>>,
    /// What it tells of single upgrades instead.
    of: BTreeMap<String, UpgradeState>,
    /// Whether it takes until then for a start to begin.
    held_start: Option<watch::Receiver<bool>>,
    /// Whether it never tells how an upgrade stands.
    is_silent: bool,
    values: Option<serde_json::Value>,
}

impl Scripted {
    fn new(states: &[UpgradeState]) -> Arc<Self> {
        let script = Script { states: states.iter().cloned().collect(), ..Script::default() };
        Arc::new(Self(Mutex::new(script)))
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn after(self: Arc<Self>, call: &'static str, states: &[UpgradeState]) -> Arc<Self> {
        self.script().after.insert(call, states.to_vec());
        self
    }

    fn call(&self, name: &'static str, what: String) -> Result<(), Rejected> {
        let mut script = self.script();
        script.calls.push(what);
        if let Some(states) = script.after.remove(name) {
            script.states = states.into();
        }
        script.refuses.clone().map_or(Ok(()), Err)
    }

    fn calls(&self) -> Vec<String> {
        self.script().calls.clone()
    }
}

#[async_trait]
impl Target for Scripted {
    async fn apply(&self, _: &Configuration) -> Result<Applied, Rejected> {
        Err(Rejected::permanent("it upgrades only"))
    }

    fn upgrader(&self) -> Option<&dyn Upgrader> {
        Some(self)
    }
}

#[async_trait]
impl Upgrader for Scripted {
    async fn start(&self, upgrade: &Upgrade) -> Result<(), Rejected> {
        let held = self.script().held_start.clone();
        if let Some(mut held) = held {
            self.script().calls.push("starts".to_owned());
            let _ = held.wait_for(|held| !held).await;
            self.script().of.insert(upgrade.event_id.clone(), running("rolls out"));
        }
        self.script().values = Some(upgrade.values.clone());
        let logins: Vec<_> =
            upgrade.credentials.iter().map(|login| format!("{}={}", login.slot, login.password)).collect();
        let (version, persist) = (&upgrade.target_version, upgrade.persist_credentials);
        self.call("start", format!("start {version} [{}] {persist}", logins.join(",")))
    }

    async fn state(&self, event_id: &str) -> Result<UpgradeState, Rejected> {
        if self.script().is_silent {
            self.script().calls.push("state".to_owned());
            std::future::pending::<()>().await;
        }
        let mut script = self.script();
        if let Some(state) = script.of.get(event_id) {
            return Ok(state.clone());
        }
        let state = script.states.front().cloned().unwrap_or(UpgradeState::Unknown);
        if script.states.len() > 1 {
            script.states.pop_front();
        }
        Ok(state)
    }

    async fn cancel(&self, event_id: &str) -> Result<(), Rejected> {
        if let Some(state) = self.script().of.get_mut(event_id) {
            *state = cancelled();
        }
        self.call("cancel", format!("cancel {event_id}"))
    }

    async fn rollback(&self, event_id: &str) -> Result<(), Rejected> {
        self.call("rollback", format!("rollback {event_id}"))
    }
}

fn unknown() -> UpgradeState {
    UpgradeState::Unknown
}

fn running(message: &str) -> UpgradeState {
    UpgradeState::Running { message: message.to_owned() }
}

fn completed() -> UpgradeState {
    UpgradeState::Completed { running_version: "2.0.0".to_owned() }
}

fn cancelled() -> UpgradeState {
    UpgradeState::Cancelled { running_version: "1.0.0".to_owned() }
}

fn upgrading(plane: &Plane) -> WorkerConfig {
    WorkerConfig {
        upgrade_poll: Duration::from_millis(20),
        upgrades: UpgradePolicy {
            charts: vec!["oci://r.example/gateway".to_owned()],
            registries: Vec::new(),
        },
        ..config(plane)
    }
}

fn instruct(state: &mut State, event_type: EventType, upgrade: &str, chart: &str) -> String {
    let text = |text: &str| Kind::StringValue(text.to_owned()).into();
    let values =
        prost_types::Struct { fields: [("replicas".to_owned(), Kind::NumberValue(2.0).into())].into() };
    let mut fields: BTreeMap<String, prost_types::Value> = [
        ("target_version".to_owned(), text("2.0.0")),
        ("chart".to_owned(), text(chart)),
        ("values".to_owned(), Kind::StructValue(values).into()),
    ]
    .into();
    if !upgrade.is_empty() {
        fields.insert("upgrade_event_id".to_owned(), text(upgrade));
    }
    state.announce(pb::ConfigurationEvent {
        workspace_id: "edge".to_owned(),
        user_id: "system".to_owned(),
        config_type: pb::ConfigType::DataplaneUpgrade.into(),
        event_type: event_type.into(),
        metadata: Some(prost_types::Struct { fields: fields.into_iter().collect() }),
        ..Default::default()
    })
}

fn start(plane: &Plane) -> String {
    plane.change(|state| instruct(state, EventType::Upgrade, "", "oci://r.example/gateway"))
}

/// The phases that were reported, each with its message.
fn phases(state: &State) -> Vec<(UpgradePhase, String)> {
    state.upgrade.reports.iter().map(|report| (report.phase(), report.message.clone())).collect()
}

fn phase(phase: UpgradePhase, message: &str) -> (UpgradePhase, String) {
    (phase, message.to_owned())
}

#[tokio::test]
async fn an_upgrade_asks_for_logins_runs_and_completes() {
    let plane = Plane::start().await;
    let waits = UpgradeState::NeedsCredentials(vec!["chart".to_owned()]);
    let target = Scripted::new(&[unknown(), waits]);
    let event = start(&plane);
    let worker = Running::start(upgrading(&plane), Arc::clone(&target) as Arc<dyn Target>);
    let state = plane.until(|state| state.calls("credentials") >= 2).await;
    let report = state.upgrade.reports.first().expect("it asks");
    assert_eq!(
        (report.phase(), report.required_credentials.as_slice()),
        (UpgradePhase::NeedsCredentials, &["chart".to_owned()][..])
    );
    assert_eq!(state.upgrade.reports.len(), 1, "it asks once");

    let target =
        target.after("start", &[running("pulls"), running("pulls"), running("rolls out"), completed()]);
    plane.change(|state| {
        let login = pb::RegistryCredential {
            slot: "chart".to_owned(),
            password: "secret".to_owned(),
            ..Default::default()
        };
        state.upgrade.credentials = vec![login];
    });
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    assert!(state.completion(&event).is_some_and(|completion| completion.success));
    assert_eq!(state.upgrade.confirmed, 1);
    let expected = [
        phase(UpgradePhase::NeedsCredentials, "waits for logins: chart"),
        phase(UpgradePhase::Running, "pulls"),
        phase(UpgradePhase::Running, "rolls out"),
        phase(UpgradePhase::Completed, ""),
    ];
    assert_eq!(phases(&state), expected);
    assert_eq!(state.upgrade.reports.last().map(|report| report.running_version.as_str()), Some("2.0.0"));
    assert_eq!(target.calls(), ["start 2.0.0 [] false", "start 2.0.0 [chart=secret] true"]);
    assert_eq!(target.script().values, Some(serde_json::json!({"replicas": 2})));
    let reports = format!("{:?}", worker.stop().await);
    assert!(!reports.contains("secret"), "{reports}");
}

#[tokio::test]
async fn an_upgrade_that_fails_tells_both_releases() {
    let plane = Plane::start().await;
    let failed = UpgradeState::Failed {
        message: "the new release does not start".to_owned(),
        running_version: "1.0.0".to_owned(),
        failed_version: "2.0.0".to_owned(),
    };
    let target = Scripted::new(&[unknown(), running(""), failed]);
    let event = start(&plane);
    let worker = Running::start(upgrading(&plane), target);
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    let completion = state.completion(&event).expect("it completed");
    assert!(!completion.success && completion.permanent);
    assert_eq!(completion.error_message, "the new release does not start");
    let report = state.upgrade.reports.last().expect("one");
    assert_eq!(
        (report.phase(), report.running_version.as_str(), report.failed_version.as_str()),
        (UpgradePhase::Failed, "1.0.0", "2.0.0")
    );
    worker.stop().await;
}

#[tokio::test]
async fn a_cancel_reaches_an_upgrade_that_is_held() {
    let plane = Plane::start().await;
    let target = Scripted::new(&[unknown(), running("rolls out")])
        .after("cancel", &[running("goes back"), running("goes back"), cancelled()]);
    let event = start(&plane);
    let worker = Running::start(
        WorkerConfig { concurrency: 1, ..upgrading(&plane) },
        Arc::clone(&target) as Arc<dyn Target>,
    );
    plane.until(|state| !state.upgrade.reports.is_empty()).await;
    let cancel = plane.change(|state| {
        // A cancelling upgrade does not become a running one.
        state.upgrade.refuses = vec![UpgradePhase::Running];
        instruct(state, EventType::UpgradeCancel, &event, "")
    });
    let state =
        plane.until(|state| state.completion(&event).is_some() && state.completion(&cancel).is_some()).await;
    assert!(state.completion(&cancel).is_some_and(|completion| completion.success));
    assert!(state.completion(&event).is_some_and(|completion| !completion.success && completion.permanent));
    assert!(target.calls().contains(&format!("cancel {event}")));
    let last = state.upgrade.reports.last().expect("one");
    assert_eq!((last.phase(), last.running_version.as_str()), (UpgradePhase::Cancelled, "1.0.0"));
    worker.stop().await;
}

#[tokio::test]
async fn a_cancel_that_comes_too_late_leaves_it_completed() {
    let plane = Plane::start().await;
    let cancel = plane.change(|state| instruct(state, EventType::UpgradeCancel, "evt_9", ""));
    let worker = Running::start(upgrading(&plane), Scripted::new(&[completed()]));
    let state = plane.until(|state| state.completion(&cancel).is_some()).await;
    assert!(state.completion(&cancel).is_some_and(|completion| completion.success));
    assert_eq!(phases(&state), [phase(UpgradePhase::Completed, "")]);
    worker.stop().await;
}

#[tokio::test]
async fn a_completed_upgrade_is_rolled_back() {
    let plane = Plane::start().await;
    let back = UpgradeState::RolledBack { running_version: "1.0.0".to_owned() };
    let target = Scripted::new(&[completed()]).after("rollback", &[completed(), running("goes back"), back]);
    let event = plane.change(|state| instruct(state, EventType::UpgradeRollback, "evt_9", ""));
    let worker = Running::start(upgrading(&plane), Arc::clone(&target) as Arc<dyn Target>);
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    assert!(state.completion(&event).is_some_and(|completion| completion.success));
    assert_eq!(
        phases(&state),
        [phase(UpgradePhase::RollingBack, "goes back"), phase(UpgradePhase::RolledBack, "")]
    );
    assert_eq!(target.calls(), ["rollback evt_9"]);
    assert!(state.upgrade.reports.iter().all(|report| report.event_id == "evt_9"));
    worker.stop().await;
}

#[tokio::test]
async fn a_rollback_that_does_not_come_off_leaves_the_new_release() {
    let plane = Plane::start().await;
    let target = Scripted::new(&[completed()]).after("rollback", &[running("goes back"), completed()]);
    let event = plane.change(|state| instruct(state, EventType::UpgradeRollback, "evt_9", ""));
    let worker = Running::start(upgrading(&plane), target);
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    let completion = state.completion(&event).expect("it completed");
    assert!(!completion.success && completion.permanent);
    assert_eq!(completion.error_message, "the data plane still runs 2.0.0");
    worker.stop().await;
}

#[tokio::test]
async fn a_restarted_worker_goes_on_with_an_upgrade_without_starting_it_anew() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = || WorkerConfig { state_dir: Some(folder.path().to_owned()), ..upgrading(&plane) };
    let target = Scripted::new(&[unknown(), running("rolls out")]);
    let event = start(&plane);
    let worker = Running::start(config(), Arc::clone(&target) as Arc<dyn Target>);
    plane.until(|state| !state.upgrade.reports.is_empty()).await;
    worker.stop().await;
    let state = plane.state();
    assert_eq!((state.released.as_slice(), state.delivery(&event).event.attempt), (&[event.clone()][..], 0));
    let kept = std::fs::read_to_string(folder.path().join("liaison.json")).expect("it is kept");
    assert!(kept.contains(&event), "{kept}");

    target.script().states = [running("rolls out"), completed()].into();
    let worker = Running::start(config(), Arc::clone(&target) as Arc<dyn Target>);
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    assert!(state.completion(&event).is_some_and(|completion| completion.success));
    assert_eq!(target.calls(), ["start 2.0.0 [] false"]);
    worker.stop().await;
    let kept = std::fs::read_to_string(folder.path().join("liaison.json")).expect("it is kept");
    assert!(!kept.contains(&event), "{kept}");
}

#[tokio::test]
async fn only_what_the_configuration_allows_is_installed() {
    for (policy, chart, why) in [
        (UpgradePolicy::default(), "oci://r.example/gateway", "this worker allows no upgrades"),
        (upgrading(&Plane::start().await).upgrades, "oci://evil.example/gateway", "does not allow the chart"),
    ] {
        let plane = Plane::start().await;
        let target = Scripted::new(&[unknown()]);
        let event = plane.change(|state| instruct(state, EventType::Upgrade, "", chart));
        let config = WorkerConfig { upgrades: policy, ..upgrading(&plane) };
        let worker = Running::start(config, Arc::clone(&target) as Arc<dyn Target>);
        let state = plane.until(|state| state.completion(&event).is_some()).await;
        let completion = state.completion(&event).expect("it completed");
        assert!(!completion.success && completion.permanent, "{completion:?}");
        assert!(completion.error_message.contains(why), "{completion:?}");
        assert!(target.calls().is_empty());
        worker.stop().await;
    }
}

#[tokio::test]
async fn an_upgrade_that_the_data_plane_refuses_fails_for_good() {
    let plane = Plane::start().await;
    let target = Scripted::new(&[unknown()]);
    target.script().refuses = Some(Rejected::permanent("no such release"));
    let event = start(&plane);
    let worker = Running::start(upgrading(&plane), target);
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    let completion = state.completion(&event).expect("it completed");
    assert_eq!(
        (completion.success, completion.permanent, completion.error_message.as_str()),
        (false, true, "no such release")
    );
    worker.stop().await;
}

async fn called(target: &Scripted, call: &str) {
    let called = async {
        while !target.calls().iter().any(|made| made == call) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, called).await.unwrap_or_else(|_| panic!("it never called {call}"));
}

#[tokio::test]
async fn a_cancel_that_meets_the_beginning_of_its_upgrade_takes_it_back() {
    let plane = Plane::start().await;
    let target = Scripted::new(&[unknown()]);
    let (hold, held) = watch::channel(true);
    target.script().held_start = Some(held);
    let event = start(&plane);
    let worker = Running::start(upgrading(&plane), Arc::clone(&target) as Arc<dyn Target>);
    called(&target, "starts").await;
    let cancel = plane.change(|state| instruct(state, EventType::UpgradeCancel, &event, ""));
    called(&target, &format!("cancel {event}")).await;
    // The data plane knows nothing of it yet, which does not mean that it is cancelled.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(plane.state().completion(&cancel).is_none() && plane.state().upgrade.reports.is_empty());
    hold.send_replace(false);
    let state =
        plane.until(|state| state.completion(&event).is_some() && state.completion(&cancel).is_some()).await;
    assert!(state.completion(&cancel).is_some_and(|completion| completion.success));
    assert!(state.completion(&event).is_some_and(|completion| !completion.success && completion.permanent));
    assert_eq!(target.script().of.get(&event), Some(&cancelled()), "{:?}", target.calls());
    worker.stop().await;
}

#[tokio::test]
async fn an_upgrade_that_was_cancelled_before_it_came_is_not_begun() {
    let plane = Plane::start().await;
    let target = Scripted::new(&[unknown()]);
    let cancel = plane.change(|state| instruct(state, EventType::UpgradeCancel, "evt_2", ""));
    let worker = Running::start(upgrading(&plane), Arc::clone(&target) as Arc<dyn Target>);
    plane.until(|state| state.completion(&cancel).is_some()).await;
    let event = start(&plane);
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    let completion = state.completion(&event).expect("it completed");
    assert_eq!((completion.permanent, completion.error_message.as_str()), (true, "cancelled"));
    assert!(!target.calls().iter().any(|call| call.starts_with("start")), "{:?}", target.calls());
    worker.stop().await;
}

fn keeping(plane: &Plane, folder: &tempfile::TempDir) -> WorkerConfig {
    WorkerConfig { state_dir: Some(folder.path().to_owned()), ..upgrading(plane) }
}

#[tokio::test]
async fn a_rollback_that_is_left_behind_is_not_told_as_completed() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = Scripted::new(&[completed()]);
    plane.change(|state| instruct(state, EventType::UpgradeRollback, "evt_9", ""));
    let worker = Running::start(keeping(&plane, &folder), Arc::clone(&target) as Arc<dyn Target>);
    called(&target, "rollback evt_9").await;
    worker.stop().await;
    let kept = std::fs::read_to_string(folder.path().join("liaison.json")).unwrap_or_default();
    assert!(!kept.contains("evt_9"), "{kept}");
    assert!(plane.state().upgrade.reports.is_empty());
}

#[tokio::test]
async fn an_upgrade_that_is_left_behind_is_followed_until_its_end_is_known() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = Scripted::new(&[unknown(), running("rolls out")]);
    let event = start(&plane);
    let worker = Running::start(keeping(&plane, &folder), Arc::clone(&target) as Arc<dyn Target>);
    plane.until(|state| !state.upgrade.reports.is_empty()).await;
    worker.stop().await;

    // Its event came to an end meanwhile, and the first tries to tell fail.
    plane.change(|state| {
        state.events.clear();
        state.upgrade.reports.clear();
        let failed = state.calls("report");
        state.before = Arc::new(move |_, rpc, call| {
            (rpc == "report" && call <= failed + 3).then(|| Status::unavailable("going down"))
        });
    });
    let config = WorkerConfig { lease: Duration::from_secs(1), ..keeping(&plane, &folder) };
    let worker = Running::start(config, Arc::clone(&target) as Arc<dyn Target>);
    plane.until(|state| !state.upgrade.reports.is_empty()).await;
    target.script().states = [completed()].into();
    let state = plane.until(|state| state.upgrade.reports.len() == 2).await;
    assert_eq!(
        phases(&state),
        [phase(UpgradePhase::Running, "rolls out"), phase(UpgradePhase::Completed, "")]
    );
    let kept = || std::fs::read_to_string(folder.path().join("liaison.json")).expect("it is kept");
    worker.stop().await;
    assert!(!kept().contains(&event), "{}", kept());
}

#[tokio::test]
async fn a_data_plane_that_does_not_answer_holds_up_no_stop() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = Scripted::new(&[unknown(), running("rolls out")]);
    start(&plane);
    let worker = Running::start(keeping(&plane, &folder), Arc::clone(&target) as Arc<dyn Target>);
    plane.until(|state| !state.upgrade.reports.is_empty()).await;
    worker.stop().await;
    plane.change(|state| state.events.clear());
    target.script().is_silent = true;
    let worker = Running::start(keeping(&plane, &folder), Arc::clone(&target) as Arc<dyn Target>);
    called(&target, "state").await;
    worker.stop().await;
}
