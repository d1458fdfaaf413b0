//! Upgrades: what an instruction asks of the data plane, and what is told about how it goes.
//!
//! An instruction stays claimed while the data plane works on it, however long that takes. That is in nobody's way: a
//! cancel is an instruction of its own, and both take no room from slots. A worker that stops gives it back, and the
//! next one asks the data plane where the upgrade stands.

mod instruction;

use agentrouter_api::configurator::{
    ConfigurationEvent, EventType, ReportDataplaneUpgradeRequest, UpgradePhase,
};
use tokio::time::Instant;
use tonic::Code;

use self::instruction::Instruction;
use crate::deliver::Undone;
use crate::failure::Failure;
use crate::leases::Lease;
use crate::report::Report;
use crate::run::Run;
use crate::target::Rejected;
use crate::upgrade::{Upgrade, UpgradeState, Upgrader};

/// How long a data plane may take to begin a rollback or a cancel that it was asked for.
const BEGINNING: std::time::Duration = std::time::Duration::from_mins(10);

/// What the server was last told of an upgrade, so that it is told each thing once.
type Told = Option<(UpgradePhase, String)>;

impl Run {
    /// Does what an instruction says, to the end.
    pub(crate) async fn instruct(&self, event: &ConfigurationEvent, lease: &Lease<'_>) -> Result<(), Undone> {
        let Some(upgrader) = self.worker.target.upgrader() else {
            return Err(Rejected::permanent(
                "this worker does not upgrade data planes: upgrade this one by the means it was installed with",
            )
            .into());
        };
        let instruction = Instruction::read(event)?;
        let id = instruction.upgrade.event_id.clone();
        self.worker.store.begin_upgrade(&id);
        let done = match instruction.kind {
            EventType::UpgradeCancel => self.cancel(upgrader, &id, lease).await,
            EventType::UpgradeRollback => self.roll_back(upgrader, &id, lease).await,
            _ => self.upgrade(upgrader, instruction.upgrade, lease).await,
        };
        let is_over = match &done {
            Ok(()) => true,
            Err(Undone::Rejected(rejected)) => rejected.is_permanent(),
            Err(Undone::Denied(_) | Undone::Stopped | Undone::Lost) => false,
        };
        if is_over {
            self.worker.store.end_upgrade(&id);
        }
        done
    }

    /// Brings a release up.
    async fn upgrade(
        &self,
        upgrader: &dyn Upgrader,
        mut upgrade: Upgrade,
        lease: &Lease<'_>,
    ) -> Result<(), Undone> {
        self.worker.config.upgrades.check(&upgrade.chart, &upgrade.registry)?;
        let id = upgrade.event_id.clone();
        let mut told = None;
        loop {
            match self.standing(upgrader, &id, lease).await? {
                UpgradeState::Unknown => {
                    upgrader.start(&upgrade).await?;
                    // What it has become of it is worth telling at once.
                    if let UpgradeState::Unknown = self.standing(upgrader, &id, lease).await? {
                        self.tell(&id, UpgradePhase::Running, "the upgrade begins", &mut told).await?;
                    } else {
                        continue;
                    }
                }
                UpgradeState::NeedsCredentials(slots) => {
                    self.ask_for_credentials(&id, slots, &mut told).await?;
                    if self.hand_over_credentials(upgrader, &mut upgrade).await? {
                        continue;
                    }
                }
                UpgradeState::Running { message } => {
                    self.tell(&id, UpgradePhase::Running, &message, &mut told).await?;
                }
                ended => return self.tell_end(&id, ended).await,
            }
            self.wait(lease).await?;
        }
    }

    /// Takes a running upgrade back. What has ended in the meantime stays as it is.
    async fn cancel(&self, upgrader: &dyn Upgrader, id: &str, lease: &Lease<'_>) -> Result<(), Undone> {
        upgrader.cancel(id).await?;
        let begun = Instant::now();
        loop {
            match self.standing(upgrader, id, lease).await? {
                // It was never begun, so there is nothing to take back.
                UpgradeState::Unknown => {
                    let running_version = String::new();
                    self.tell_phase(id, &UpgradeState::Cancelled { running_version }).await?;
                    return Ok(());
                }
                UpgradeState::NeedsCredentials(_) if begun.elapsed() > BEGINNING => {
                    return Err(Rejected::transient("the data plane does not let go of the upgrade").into());
                }
                UpgradeState::Running { .. } | UpgradeState::NeedsCredentials(_) => {}
                // A cancel is carried out once nothing is under way, however that came about.
                ended => {
                    self.tell_phase(id, &ended).await?;
                    return Ok(());
                }
            }
            self.wait(lease).await?;
        }
    }

    /// Returns from a completed upgrade.
    async fn roll_back(&self, upgrader: &dyn Upgrader, id: &str, lease: &Lease<'_>) -> Result<(), Undone> {
        let state = self.standing(upgrader, id, lease).await?;
        if !matches!(state, UpgradeState::RolledBack { .. } | UpgradeState::Running { .. }) {
            upgrader.rollback(id).await?;
        }
        let begun = Instant::now();
        let mut was_running = false;
        let mut told = None;
        loop {
            match self.standing(upgrader, id, lease).await? {
                UpgradeState::Running { message } => {
                    was_running = true;
                    self.tell(id, UpgradePhase::RollingBack, &message, &mut told).await?;
                }
                ended @ (UpgradeState::RolledBack { .. } | UpgradeState::Cancelled { .. }) => {
                    let (UpgradeState::RolledBack { running_version }
                    | UpgradeState::Cancelled { running_version }) = ended
                    else {
                        return Ok(());
                    };
                    self.tell_phase(id, &UpgradeState::RolledBack { running_version }).await?;
                    return Ok(());
                }
                UpgradeState::Failed { message, .. } => {
                    return Err(Rejected::permanent(message).into());
                }
                UpgradeState::Completed { running_version } if was_running || begun.elapsed() > BEGINNING => {
                    let message = format!("the data plane still runs {running_version}");
                    return Err(Rejected::permanent(message).into());
                }
                UpgradeState::Unknown => {
                    return Err(Rejected::permanent("the data plane knows nothing of that upgrade").into());
                }
                UpgradeState::Completed { .. } | UpgradeState::NeedsCredentials(_) => {}
            }
            self.wait(lease).await?;
        }
    }

    /// Where an upgrade stands. A data plane that cannot tell just now is asked again, for a while: that is no reason
    /// to give an upgrade up that may well be under way.
    async fn standing(
        &self,
        upgrader: &dyn Upgrader,
        id: &str,
        lease: &Lease<'_>,
    ) -> Result<UpgradeState, Undone> {
        let begun = Instant::now();
        loop {
            match upgrader.state(id).await {
                Ok(state) => return Ok(state),
                Err(rejected) if rejected.is_permanent() || begun.elapsed() > BEGINNING => {
                    return Err(rejected.into());
                }
                Err(rejected) => tracing::debug!(id, "the data plane cannot tell: {rejected}"),
            }
            self.wait(lease).await?;
        }
    }

    /// Until the data plane is asked again.
    async fn wait(&self, lease: &Lease<'_>) -> Result<(), Undone> {
        if !self.rest(self.worker.jitter.spread(self.worker.config.upgrade_poll)).await {
            return Err(Undone::Stopped);
        }
        if lease.is_lost() { Err(Undone::Lost) } else { Ok(()) }
    }

    async fn ask_for_credentials(&self, id: &str, slots: Vec<String>, told: &mut Told) -> Result<(), Undone> {
        let message = format!("waits for logins: {}", slots.join(", "));
        let now = Some((UpgradePhase::NeedsCredentials, message.clone()));
        if *told == now {
            return Ok(());
        }
        let request = ReportDataplaneUpgradeRequest {
            event_id: id.to_owned(),
            phase: UpgradePhase::NeedsCredentials.into(),
            message,
            required_credentials: slots,
            ..Default::default()
        };
        if self.send(request).await? {
            *told = now;
        }
        Ok(())
    }

    /// Gives the data plane the logins that were submitted, and has the server forget them. Returns whether there
    /// were any.
    async fn hand_over_credentials(
        &self,
        upgrader: &dyn Upgrader,
        upgrade: &mut Upgrade,
    ) -> Result<bool, Undone> {
        let id = upgrade.event_id.clone();
        let submitted = match self.client().upgrade_credentials(&id).await {
            Ok(submitted) if submitted.credentials.is_empty() => return Ok(false),
            Ok(submitted) => submitted,
            Err(failure) if failure.is_denied() => return Err(Undone::Denied(failure)),
            Err(failure) => {
                tracing::debug!(id, code = failure.code_name(), "cannot fetch logins");
                return Ok(false);
            }
        };
        upgrade.credentials = submitted.credentials;
        upgrade.persist_credentials = submitted.persist_in_cluster;
        let started = upgrader.start(upgrade).await;
        // The worker has no more use for them.
        upgrade.credentials.clear();
        match started {
            Ok(()) => {}
            Err(rejected) if rejected.is_permanent() => return Err(rejected.into()),
            Err(rejected) => {
                tracing::warn!(id, "the data plane did not take the logins: {rejected}");
                return Ok(false);
            }
        }
        match self.client().confirm_upgrade_credentials(&id).await {
            Ok(()) => Ok(true),
            Err(failure) => {
                // They end with the upgrade, or after a day.
                tracing::warn!(id, code = failure.code_name(), "cannot confirm logins: {}", failure.message);
                Ok(false)
            }
        }
    }

    /// Tells how an upgrade ended, and says so to whoever completes its event.
    async fn tell_end(&self, id: &str, ended: UpgradeState) -> Result<(), Undone> {
        let is_known = self.tell_phase(id, &ended).await?;
        match ended {
            UpgradeState::Completed { .. } => Ok(()),
            UpgradeState::Failed { message, .. } => Err(Rejected::permanent(message).into()),
            UpgradeState::Cancelled { .. } if is_known => Err(Rejected::permanent("cancelled").into()),
            UpgradeState::Cancelled { .. } => {
                Err(Rejected::permanent("the upgrade was cancelled in the data plane itself").into())
            }
            UpgradeState::RolledBack { .. } => {
                Err(Rejected::permanent("the upgrade was rolled back in the data plane").into())
            }
            UpgradeState::Unknown | UpgradeState::NeedsCredentials(_) | UpgradeState::Running { .. } => {
                Ok(())
            }
        }
    }

    /// Tells what the data plane says, with the releases it runs. Returns whether the server agrees.
    async fn tell_phase(&self, id: &str, state: &UpgradeState) -> Result<bool, Undone> {
        let mut request = ReportDataplaneUpgradeRequest { event_id: id.to_owned(), ..Default::default() };
        let (phase, running) = match state {
            UpgradeState::Unknown => return Ok(true),
            UpgradeState::NeedsCredentials(slots) => {
                request.required_credentials.clone_from(slots);
                (UpgradePhase::NeedsCredentials, "")
            }
            UpgradeState::Running { message } => {
                request.message.clone_from(message);
                (UpgradePhase::Running, "")
            }
            UpgradeState::Completed { running_version } => {
                (UpgradePhase::Completed, running_version.as_str())
            }
            UpgradeState::Failed { message, running_version, failed_version } => {
                request.message.clone_from(message);
                request.failed_version.clone_from(failed_version);
                (UpgradePhase::Failed, running_version.as_str())
            }
            UpgradeState::Cancelled { running_version } => {
                (UpgradePhase::Cancelled, running_version.as_str())
            }
            UpgradeState::RolledBack { running_version } => {
                (UpgradePhase::RolledBack, running_version.as_str())
            }
        };
        request.phase = phase.into();
        running.clone_into(&mut request.running_version);
        self.send(request).await
    }

    /// Tells a phase once.
    async fn tell(
        &self,
        id: &str,
        phase: UpgradePhase,
        message: &str,
        told: &mut Told,
    ) -> Result<(), Undone> {
        let now = Some((phase, message.to_owned()));
        if *told == now {
            return Ok(());
        }
        let request = ReportDataplaneUpgradeRequest {
            event_id: id.to_owned(),
            phase: phase.into(),
            message: message.to_owned(),
            ..Default::default()
        };
        if self.send(request).await? {
            *told = now;
        }
        Ok(())
    }

    /// Sends a report. Returns whether it counts: a phase that does not follow the one that the server knows does not,
    /// as when a cancel is on its way.
    async fn send(&self, request: ReportDataplaneUpgradeRequest) -> Result<bool, Undone> {
        let until = Instant::now() + self.worker.config.lease / 2;
        match self.patiently(until, || self.client().report_upgrade(request.clone())).await {
            Ok(()) => {
                let phase = UpgradePhase::try_from(request.phase).unwrap_or_default().as_str_name();
                self.report(&Report::Upgrade { event_id: request.event_id, phase, message: request.message });
                Ok(true)
            }
            Err(failure) if failure.is_denied() => Err(Undone::Denied(failure)),
            Err(Failure { code: Code::Cancelled, .. }) if self.stop.is_cancelled() => Err(Undone::Stopped),
            Err(failure) => {
                tracing::debug!(code = failure.code_name(), "the report does not count: {}", failure.message);
                Ok(false)
            }
        }
    }

    /// Tells how the upgrades stand that an earlier run of the worker left behind. Their events may have come to an
    /// end without it.
    pub(crate) async fn follow_up_upgrades(&self) {
        let left = self.worker.store.upgrades();
        let Some(upgrader) = self.worker.target.upgrader().filter(|_| !left.is_empty()) else { return };
        if !self.until_reached().await {
            return;
        }
        for id in left {
            let state = match upgrader.state(&id).await {
                Ok(state) => state,
                Err(rejected) => {
                    tracing::warn!(id, "the data plane cannot tell how an upgrade stands: {rejected}");
                    continue;
                }
            };
            let has_ended =
                !matches!(state, UpgradeState::Running { .. } | UpgradeState::NeedsCredentials(_));
            if Box::pin(self.tell_phase(&id, &state)).await.is_ok() && has_ended {
                self.worker.store.end_upgrade(&id);
            }
        }
    }
}
