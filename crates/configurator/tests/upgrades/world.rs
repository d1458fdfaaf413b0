//! A customer with two workspaces, and what an operator and a worker do about upgrades.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_api::configurator::{ConfigType, EventType, UpgradePhase};
use agentrouter_configurator::{Configurator, Presence};
use agentrouter_kernel::Principal;
use agentrouter_kernel::id::{Customer, Id, Workspace};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, admin, call, request, workspace};
use prost_types::Struct;
use prost_types::value::Kind;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};
use tonic_types::StatusExt;

pub(crate) const TARGET: &str = "2.0.0";

pub(crate) struct World {
    pub(crate) test: TestDb,
    pub(crate) service: Arc<Configurator>,
    pub(crate) customer: Id<Customer>,
    pub(crate) edge: Id<Workspace>,
    pub(crate) admin: Principal,
    pub(crate) worker: Principal,
    pub(crate) sibling: Principal,
}

impl World {
    pub(crate) async fn new(test: TestDb) -> Self {
        let customer = test.customer("acme").await;
        let edge = test.workspace(customer, "edge").await;
        let beside = test.workspace(customer, "beside").await;
        let presence = Arc::new(Presence::default());
        let service = Configurator::new(test.deps(), presence, CancellationToken::new());
        Self {
            service: Arc::new(service),
            customer,
            edge,
            admin: admin(customer, "acme"),
            worker: workspace(customer, "acme", edge, "edge"),
            sibling: workspace(customer, "acme", beside, "beside"),
            test,
        }
    }

    /// Lets time pass, and whatever it brings about happen.
    pub(crate) async fn advance(&self, seconds: u64) {
        self.test.db.advance_clock(Duration::from_secs(seconds));
        agentrouter_delivery::settle_due(&self.test.db, 100).await.unwrap();
    }

    pub(crate) async fn trigger(&self, trigger: pb::TriggerUpdateRequest) -> Result<String, Status> {
        let answer = self.service.trigger_update(request(call(&self.admin), trigger)).await?.into_inner();
        assert_eq!((answer.configuration, answer.configuration_updated), (None, false));
        assert_eq!(answer.event_ids.len(), 1);
        Ok(answer.event_ids.into_iter().next().unwrap())
    }

    /// Starts an upgrade of a workspace.
    pub(crate) async fn start_in(&self, workspace: &str) -> Result<String, Status> {
        self.trigger(upgrade_of(workspace)).await
    }

    /// Starts an upgrade of the workspace `edge`.
    pub(crate) async fn start(&self) -> String {
        self.start_in("edge").await.unwrap()
    }

    /// Starts an upgrade and claims its event. Returns its id and the token of the claim.
    pub(crate) async fn start_claimed(&self) -> (String, String) {
        let upgrade = self.start().await;
        let token = self.claim(&upgrade).await;
        (upgrade, token)
    }

    /// Starts an upgrade that a worker is running. Returns its id and the token of the claim.
    pub(crate) async fn start_running(&self) -> (String, String) {
        let (upgrade, token) = self.start_claimed().await;
        self.report(&upgrade, UpgradePhase::Running).await.unwrap();
        (upgrade, token)
    }

    /// Starts an upgrade that completes.
    pub(crate) async fn start_completed(&self) -> String {
        let (upgrade, token) = self.start_running().await;
        self.complete(&upgrade, &token, Ended::Applied).await.unwrap();
        upgrade
    }

    /// Starts an upgrade that is parked for these credentials.
    pub(crate) async fn start_parked(&self, slots: &[&str]) -> String {
        let (upgrade, _) = self.start_claimed().await;
        self.park(&upgrade, slots).await.unwrap();
        upgrade
    }

    pub(crate) async fn get(&self, event: &str) -> pb::DataplaneUpgrade {
        let get = pb::GetDataplaneUpgradeRequest { event_id: event.into() };
        self.service.get_dataplane_upgrade(request(call(&self.admin), get)).await.unwrap().into_inner()
    }

    pub(crate) async fn phase(&self, event: &str) -> UpgradePhase {
        self.get(event).await.phase()
    }

    pub(crate) async fn tell(
        &self,
        report: pb::ReportDataplaneUpgradeRequest,
    ) -> Result<pb::DataplaneUpgrade, Status> {
        let request = request(call(&self.worker), report);
        self.service.report_dataplane_upgrade(request).await.map(Response::into_inner)
    }

    pub(crate) async fn report(
        &self,
        event: &str,
        phase: UpgradePhase,
    ) -> Result<pb::DataplaneUpgrade, Status> {
        if phase == UpgradePhase::NeedsCredentials {
            return self.park(event, &["chart"]).await;
        }
        self.tell(report_of(event, phase)).await
    }

    pub(crate) async fn park(&self, event: &str, slots: &[&str]) -> Result<pb::DataplaneUpgrade, Status> {
        let required_credentials = slots.iter().map(ToString::to_string).collect();
        let report = report_of(event, UpgradePhase::NeedsCredentials);
        self.tell(pb::ReportDataplaneUpgradeRequest { required_credentials, ..report }).await
    }

    pub(crate) async fn cancel(&self, upgrade: &str) -> Result<bool, Status> {
        let cancel = pb::CancelDataplaneUpgradeRequest { upgrade_event_id: upgrade.into() };
        let answer = self.service.cancel_dataplane_upgrade(request(call(&self.admin), cancel)).await;
        answer.map(|answer| answer.into_inner().success)
    }

    /// Asks for a rollback. Returns its event.
    pub(crate) async fn roll_back(&self, upgrade: &str) -> Result<String, Status> {
        let rollback = pb::RollbackDataplaneUpgradeRequest { upgrade_event_id: upgrade.into() };
        let answer = self.service.rollback_dataplane_upgrade(request(call(&self.admin), rollback)).await;
        let answer = answer?.into_inner();
        assert!(answer.success);
        Ok(answer.rollback_event_id)
    }

    pub(crate) async fn pending(&self) -> Vec<pb::ConfigurationEvent> {
        let poll = pb::ListPendingEventsRequest::default();
        let answer = self.service.list_pending_events(request(call(&self.worker), poll)).await;
        answer.unwrap().into_inner().events
    }

    /// The only event that waits for the worker; none where nothing does.
    pub(crate) async fn next(&self) -> Option<pb::ConfigurationEvent> {
        let mut events = self.pending().await;
        assert!(events.len() <= 1, "{events:#?}");
        events.pop()
    }

    /// The cancel or rollback that waits for the worker, claimed. Returns its id and the token of the claim.
    pub(crate) async fn claim_next(&self, event_type: EventType) -> (String, String) {
        let event = self.next().await.unwrap();
        assert_eq!(event.event_type(), event_type);
        let token = self.claim(&event.id).await;
        (event.id, token)
    }

    pub(crate) async fn try_claim(&self, event: &str) -> pb::AcknowledgeEventResponse {
        let claim =
            pb::AcknowledgeEventRequest { event_id: event.into(), worker_id: "liaison".into(), lease: None };
        let answer = self.service.acknowledge_event(request(call(&self.worker), claim)).await;
        answer.unwrap().into_inner()
    }

    /// Claims an event that must be free.
    pub(crate) async fn claim(&self, event: &str) -> String {
        let answer = self.try_claim(event).await;
        assert!(answer.success, "{answer:?}");
        answer.claim_token
    }

    pub(crate) async fn complete(&self, event: &str, token: &str, ended: Ended) -> Result<bool, Status> {
        let (message, permanent) = match ended {
            Ended::Applied => ("", false),
            Ended::Failed => ("it did not come up", false),
            Ended::Rejected => ("it cannot come up", true),
        };
        let completion = pb::CompleteEventRequest {
            event_id: event.into(),
            success: ended == Ended::Applied,
            error_message: message.into(),
            claim_token: token.into(),
            permanent,
            ..Default::default()
        };
        let answer = self.service.complete_event(request(call(&self.worker), completion)).await;
        answer.map(|answer| answer.into_inner().success)
    }

    /// Brings a new upgrade of the workspace `edge` into a phase.
    pub(crate) async fn upgrade_in(&self, phase: UpgradePhase) -> String {
        let upgrade = match phase {
            UpgradePhase::Pending => self.start().await,
            UpgradePhase::NeedsCredentials => self.start_parked(&["chart"]).await,
            UpgradePhase::Running => self.start_running().await.0,
            UpgradePhase::Completed => self.start_completed().await,
            UpgradePhase::Failed => {
                let (upgrade, token) = self.start_claimed().await;
                self.complete(&upgrade, &token, Ended::Rejected).await.unwrap();
                upgrade
            }
            UpgradePhase::Cancelling => {
                let (upgrade, _) = self.start_running().await;
                self.cancel(&upgrade).await.unwrap();
                upgrade
            }
            UpgradePhase::Cancelled => {
                let upgrade = self.start().await;
                self.cancel(&upgrade).await.unwrap();
                upgrade
            }
            UpgradePhase::RollingBack => {
                let upgrade = self.start_completed().await;
                self.roll_back(&upgrade).await.unwrap();
                upgrade
            }
            UpgradePhase::RolledBack => {
                let upgrade = self.start_completed().await;
                self.roll_back(&upgrade).await.unwrap();
                let (event, token) = self.claim_next(EventType::UpgradeRollback).await;
                self.complete(&event, &token, Ended::Applied).await.unwrap();
                upgrade
            }
            UpgradePhase::Unspecified => unreachable!(),
        };
        assert_eq!(self.phase(&upgrade).await, phase);
        upgrade
    }

    /// Ends whatever is under way, so that the next upgrade may start.
    pub(crate) async fn clear(&self) {
        let mut tx = self.test.db.begin().await.unwrap();
        agentrouter_delivery::retire_workspace(&mut tx, self.customer, self.edge).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT CAST(COUNT(*) AS BIGINT) AS value FROM {table}");
        query(sql).value(&self.test.db).await.unwrap().unwrap()
    }
}

/// How a worker ends an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Applied,
    Failed,
    Rejected,
}

pub(crate) const PHASES: [UpgradePhase; 9] = [
    UpgradePhase::Pending,
    UpgradePhase::NeedsCredentials,
    UpgradePhase::Running,
    UpgradePhase::Completed,
    UpgradePhase::Failed,
    UpgradePhase::Cancelling,
    UpgradePhase::Cancelled,
    UpgradePhase::RollingBack,
    UpgradePhase::RolledBack,
];

pub(crate) fn text(text: &str) -> prost_types::Value {
    Kind::StringValue(text.to_owned()).into()
}

pub(crate) fn metadata(fields: &[(&str, &str)]) -> Struct {
    Struct { fields: fields.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect() }
}

pub(crate) fn upgrade_of(workspace: &str) -> pb::TriggerUpdateRequest {
    pb::TriggerUpdateRequest {
        config_type: ConfigType::DataplaneUpgrade.into(),
        workspace_id: workspace.into(),
        metadata: Some(metadata(&[("target_version", TARGET), ("chart", "oci://charts.example/gateway")])),
        ..Default::default()
    }
}

pub(crate) fn report_of(event: &str, phase: UpgradePhase) -> pb::ReportDataplaneUpgradeRequest {
    pb::ReportDataplaneUpgradeRequest { event_id: event.into(), phase: phase.into(), ..Default::default() }
}

#[track_caller]
pub(crate) fn reason<T: Debug>(result: Result<T, Status>) -> (tonic::Code, String) {
    let status = result.unwrap_err();
    (status.code(), status.get_details_error_info().unwrap().reason)
}

#[track_caller]
pub(crate) fn fields<T: Debug>(result: Result<T, Status>) -> Vec<String> {
    let status = result.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    let details = status.get_details_bad_request().unwrap();
    details.field_violations.into_iter().map(|violation| violation.field).collect()
}
