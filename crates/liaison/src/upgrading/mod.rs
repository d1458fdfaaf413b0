//! Upgrades: what an instruction asks of the data plane, and what is told about how it goes.
//!
//! An instruction stays claimed while the data plane works on it, however long that takes. That is in nobody's way: a
//! cancel is an instruction of its own, and both take no room from slots. A worker that stops gives it back, and the
//! next one asks the data plane where the upgrade stands.

mod follow_up;
mod instruction;
mod underway;

use agentrouter_api::configurator::{
    ConfigurationEvent, EventType, ReportDataplaneUpgradeRequest, UpgradePhase,
};
use tokio::time::Instant;
use tonic::Code;
use zeroize::Zeroize;

use self::instruction::Instruction;
pub(crate) use self::underway::Underway;
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

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Counts,
    /// The phase does not follow the one that the server knows, as when a cancel is on its way.
    Refused,
    /// The server may not know of it.
    NotDelivered,
}

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
        match instruction.kind {
            EventType::UpgradeCancel => return self.cancel(upgrader, &id, lease).await,
            EventType::UpgradeRollback => {
                // That it was completed is known, and telling so again would end the rollback.
                self.worker.store.end_upgrade(&id);
                return self.roll_back(upgrader, &id, lease).await;
            }
            _ => {}
        }
        // Cancels and rollbacks are offered again until they are done, but an upgrade may end without its event.
        self.worker.store.begin_upgrade(&id);
        let done = self.upgrade(upgrader, instruction.upgrade, lease).await;
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
        let _active = self.upgrades.begin(&id);
        let mut told = None;
        let mut was_started = false;
        let mut is_taken_back = false;
        loop {
            if self.upgrades.is_cancelled(&id) && !is_taken_back {
                is_taken_back = self.take_back(upgrader, &id).await;
            }
            match self.standing(upgrader, &id, lease).await? {
                UpgradeState::Unknown if self.upgrades.is_cancelled(&id) => {
                    if !was_started {
                        return self.tell_cancelled(&id, lease).await;
                    }
                    // It is yet to be seen, so it may not have been there to be taken back.
                    was_started = !is_taken_back;
                    is_taken_back = false;
                }
                UpgradeState::Unknown => {
                    upgrader.start(&upgrade).await?;
                    was_started = true;
                    // The data plane may not have known it when it was cancelled.
                    is_taken_back = false;
                    if self.upgrades.is_cancelled(&id) {
                        continue;
                    }
                    // What it has become of it is worth telling at once.
                    if let UpgradeState::Unknown = self.standing(upgrader, &id, lease).await? {
                        self.tell(&id, UpgradePhase::Running, "the upgrade begins", &mut told).await?;
                    } else {
                        continue;
                    }
                }
                UpgradeState::NeedsCredentials(slots) => {
                    self.ask_for_credentials(&id, slots, &mut told).await?;
                    if !self.upgrades.is_cancelled(&id)
                        && self.hand_over_credentials(upgrader, &mut upgrade).await?
                    {
                        continue;
                    }
                }
                UpgradeState::Running { message } => {
                    self.tell(&id, UpgradePhase::Running, &message, &mut told).await?;
                }
                ended => return self.tell_end(&id, ended, lease).await,
            }
            self.wait(lease).await?;
        }
    }

    /// Has a cancelled upgrade taken back. Returns whether the data plane does so.
    async fn take_back(&self, upgrader: &dyn Upgrader, id: &str) -> bool {
        match upgrader.cancel(id).await {
            Ok(()) => true,
            Err(rejected) => {
                tracing::warn!(id, "the data plane does not take the upgrade back: {rejected}");
                if rejected.is_permanent() {
                    self.upgrades.uncancel(id);
                }
                false
            }
        }
    }

    /// Ends an upgrade that was cancelled before the data plane knew of it.
    async fn tell_cancelled(&self, id: &str, lease: &Lease<'_>) -> Result<(), Undone> {
        let running_version = String::new();
        self.tell_until_known(id, &UpgradeState::Cancelled { running_version }, lease).await?;
        Err(Rejected::permanent("cancelled").into())
    }

    /// Takes a running upgrade back. What has ended in the meantime stays as it is.
    async fn cancel(&self, upgrader: &dyn Upgrader, id: &str, lease: &Lease<'_>) -> Result<(), Undone> {
        self.upgrades.cancel(id);
        if let Err(rejected) = upgrader.cancel(id).await {
            if rejected.is_permanent() {
                self.upgrades.uncancel(id);
            }
            return Err(rejected.into());
        }
        let begun = Instant::now();
        loop {
            match self.standing(upgrader, id, lease).await? {
                // It is just being begun here, and whoever does it takes it back.
                UpgradeState::Unknown if self.upgrades.is_active(id) => {}
                // It was never begun, so there is nothing to take back.
                UpgradeState::Unknown => {
                    let running_version = String::new();
                    let state = UpgradeState::Cancelled { running_version };
                    self.tell_until_known(id, &state, lease).await?;
                    return Ok(());
                }
                UpgradeState::NeedsCredentials(_) if begun.elapsed() > BEGINNING => {
                    return Err(Rejected::transient("the data plane does not let go of the upgrade").into());
                }
                UpgradeState::Running { .. } | UpgradeState::NeedsCredentials(_) => {}
                // A cancel is carried out once nothing is under way, however that came about.
                ended => {
                    self.tell_until_known(id, &ended, lease).await?;
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
                    let state = UpgradeState::RolledBack { running_version };
                    self.tell_until_known(id, &state, lease).await?;
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
            let state = tokio::select! {
                () = self.stop.cancelled() => return Err(Undone::Stopped),
                state = upgrader.state(id) => state,
            };
            match state {
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
        if self.send(request).await? == Sent::Counts {
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
        for login in &mut upgrade.credentials {
            login.password.zeroize();
        }
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
    async fn tell_end(&self, id: &str, ended: UpgradeState, lease: &Lease<'_>) -> Result<(), Undone> {
        let is_known = self.tell_until_known(id, &ended, lease).await?;
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

    /// Tells what the data plane says until it got through. Returns whether the server agrees.
    async fn tell_until_known(
        &self,
        id: &str,
        state: &UpgradeState,
        lease: &Lease<'_>,
    ) -> Result<bool, Undone> {
        loop {
            match self.tell_phase(id, state).await? {
                Sent::Counts => return Ok(true),
                Sent::Refused => return Ok(false),
                Sent::NotDelivered => self.wait(lease).await?,
            }
        }
    }

    /// Tells what the data plane says, with the releases it runs.
    async fn tell_phase(&self, id: &str, state: &UpgradeState) -> Result<Sent, Undone> {
        let mut request = ReportDataplaneUpgradeRequest { event_id: id.to_owned(), ..Default::default() };
        let (phase, running) = match state {
            UpgradeState::Unknown => return Ok(Sent::Counts),
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
        if self.send(request).await? == Sent::Counts {
            *told = now;
        }
        Ok(())
    }

    /// Sends a report.
    async fn send(&self, request: ReportDataplaneUpgradeRequest) -> Result<Sent, Undone> {
        let until = Instant::now() + self.worker.config.lease / 2;
        match self.patiently(until, || self.client().report_upgrade(request.clone())).await {
            Ok(()) => {
                let phase = UpgradePhase::try_from(request.phase).unwrap_or_default().as_str_name();
                self.report(&Report::Upgrade { event_id: request.event_id, phase, message: request.message });
                Ok(Sent::Counts)
            }
            Err(failure) if failure.is_denied() => Err(Undone::Denied(failure)),
            Err(Failure { code: Code::Cancelled, .. }) if self.stop.is_cancelled() => Err(Undone::Stopped),
            Err(failure) => {
                tracing::debug!(code = failure.code_name(), "the report does not count: {}", failure.message);
                // What is refused for good is refused again.
                Ok(if failure.is_transient() { Sent::NotDelivered } else { Sent::Refused })
            }
        }
    }
}
