//! The phases of an upgrade as a table: which one follows which, and by whose doing.

use agentrouter_api::configurator::UpgradePhase;
use agentrouter_storage::{FromColumn, Row, StorageError, Value};

/// Where an upgrade stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Waiting for the worker.
    Pending,
    /// Parked until somebody submits credentials.
    NeedsCredentials,
    /// The new release is being rolled out.
    Running,
    /// The new release runs.
    Completed,
    /// The new release did not come up.
    Failed,
    /// On its way back on request.
    Cancelling,
    /// Cancelled; the old release runs.
    Cancelled,
    /// A completed upgrade is being undone.
    RollingBack,
    /// A completed upgrade was undone.
    RolledBack,
}

/// Who moves an upgrade from one phase to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mover {
    /// The worker, by a report or by how it ended an event.
    Worker,
    /// A person, by a cancel or a rollback.
    Person,
    /// Nobody: the workspace goes out of service.
    Retirement,
}

/// Every move there is. What is not here is refused, or changes nothing.
pub const MOVES: &[(Phase, Mover, Phase)] = &[
    (Phase::Pending, Mover::Worker, Phase::NeedsCredentials),
    (Phase::Pending, Mover::Worker, Phase::Running),
    (Phase::Pending, Mover::Worker, Phase::Completed),
    (Phase::Pending, Mover::Worker, Phase::Failed),
    // No worker took it yet.
    (Phase::Pending, Mover::Person, Phase::Cancelled),
    (Phase::Pending, Mover::Person, Phase::Cancelling),
    (Phase::Pending, Mover::Retirement, Phase::Cancelled),
    (Phase::NeedsCredentials, Mover::Worker, Phase::Running),
    (Phase::NeedsCredentials, Mover::Worker, Phase::Completed),
    (Phase::NeedsCredentials, Mover::Worker, Phase::Failed),
    (Phase::NeedsCredentials, Mover::Person, Phase::Cancelling),
    (Phase::NeedsCredentials, Mover::Retirement, Phase::Cancelled),
    (Phase::Running, Mover::Worker, Phase::NeedsCredentials),
    (Phase::Running, Mover::Worker, Phase::Completed),
    (Phase::Running, Mover::Worker, Phase::Failed),
    (Phase::Running, Mover::Person, Phase::Cancelling),
    (Phase::Running, Mover::Retirement, Phase::Cancelled),
    // It may have come too late.
    (Phase::Cancelling, Mover::Worker, Phase::Completed),
    (Phase::Cancelling, Mover::Worker, Phase::Failed),
    (Phase::Cancelling, Mover::Worker, Phase::Cancelled),
    (Phase::Cancelling, Mover::Retirement, Phase::Cancelled),
    (Phase::Completed, Mover::Person, Phase::RollingBack),
    // A rollback that failed leaves the new release running, and can be asked for again.
    (Phase::RollingBack, Mover::Worker, Phase::Completed),
    (Phase::RollingBack, Mover::Worker, Phase::Failed),
    (Phase::RollingBack, Mover::Worker, Phase::RolledBack),
    (Phase::RollingBack, Mover::Retirement, Phase::Cancelled),
];

/// All phases, with their names in rows and on the wire.
const NAMES: &[(Phase, &str, UpgradePhase)] = &[
    (Phase::Pending, "pending", UpgradePhase::Pending),
    (Phase::NeedsCredentials, "needs_credentials", UpgradePhase::NeedsCredentials),
    (Phase::Running, "running", UpgradePhase::Running),
    (Phase::Completed, "completed", UpgradePhase::Completed),
    (Phase::Failed, "failed", UpgradePhase::Failed),
    (Phase::Cancelling, "cancelling", UpgradePhase::Cancelling),
    (Phase::Cancelled, "cancelled", UpgradePhase::Cancelled),
    (Phase::RollingBack, "rolling_back", UpgradePhase::RollingBack),
    (Phase::RolledBack, "rolled_back", UpgradePhase::RolledBack),
];

impl Phase {
    /// Whether the table has this move.
    pub fn may_move(self, mover: Mover, to: Self) -> bool {
        MOVES.contains(&(self, mover, to))
    }

    /// Whether the upgrade is over, at least until somebody rolls it back. All other phases count as under way.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::RolledBack)
    }

    /// Whether the new release may still come.
    pub fn is_forward(self) -> bool {
        matches!(self, Self::Pending | Self::NeedsCredentials | Self::Running | Self::Cancelling)
    }

    /// The name in rows and messages, such as `rolling_back`.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(phase, ..)| *phase == self).map_or("", |(_, name, _)| name)
    }

    /// The phase on the wire.
    pub fn to_proto(self) -> UpgradePhase {
        NAMES.iter().find(|(phase, ..)| *phase == self).map_or(UpgradePhase::Unspecified, |(.., wire)| *wire)
    }

    /// The phase that a value on the wire stands for; none for UNSPECIFIED and values that nobody gave a meaning.
    pub fn from_proto(value: i32) -> Option<Self> {
        NAMES.iter().find(|(.., wire)| i32::from(*wire) == value).map(|(phase, ..)| *phase)
    }
}

impl FromColumn for Phase {
    fn from_column(row: &Row, column: &str) -> Result<Self, StorageError> {
        let name: String = row.get(column)?;
        let found = NAMES.iter().find(|(_, known, _)| *known == name);
        found
            .map(|(phase, ..)| *phase)
            .ok_or_else(|| StorageError::Corrupt(format!("the phase of an upgrade is {name:?}")))
    }
}

impl From<Phase> for Value {
    fn from(phase: Phase) -> Self {
        phase.name().into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn phases() -> impl Iterator<Item = Phase> {
        NAMES.iter().map(|(phase, ..)| *phase)
    }

    #[test]
    fn the_table_has_every_move_once_and_none_to_itself() {
        let moves: BTreeSet<_> = MOVES.iter().collect();
        assert_eq!(moves.len(), MOVES.len());
        assert!(MOVES.iter().all(|(from, _, to)| from != to));
    }

    #[test]
    fn what_ended_stays_ended_but_for_a_rollback() {
        for phase in phases() {
            let out: Vec<_> = MOVES.iter().filter(|(from, ..)| *from == phase).collect();
            match phase {
                Phase::Completed => assert_eq!(out, [&(phase, Mover::Person, Phase::RollingBack)]),
                _ => assert_eq!(out.is_empty(), phase.has_ended(), "{phase:?}"),
            }
            // Retirement cancels whatever is under way, and nothing else.
            assert_eq!(phase.may_move(Mover::Retirement, Phase::Cancelled), !phase.has_ended(), "{phase:?}");
        }
    }

    #[test]
    fn only_a_completed_upgrade_is_rolled_back_and_only_a_forward_one_cancelled() {
        for phase in phases() {
            assert_eq!(phase.may_move(Mover::Person, Phase::RollingBack), phase == Phase::Completed);
            let cancels = phase.is_forward() && phase != Phase::Cancelling;
            assert_eq!(phase.may_move(Mover::Person, Phase::Cancelling), cancels, "{phase:?}");
            for mover in [Mover::Person, Mover::Retirement] {
                assert!(!phase.may_move(mover, Phase::Completed));
            }
        }
    }

    #[test]
    fn every_phase_is_reached_and_has_a_name_on_the_wire() {
        let mut reached = BTreeSet::from([Phase::Pending]);
        while let Some((.., to)) =
            MOVES.iter().find(|(from, _, to)| reached.contains(from) && !reached.contains(to))
        {
            reached.insert(*to);
        }
        assert_eq!(reached.len(), NAMES.len());
        for phase in phases() {
            assert_eq!(Phase::from_proto(phase.to_proto().into()), Some(phase));
            assert_eq!(
                phase.to_proto().as_str_name(),
                format!("UPGRADE_PHASE_{}", phase.name().to_uppercase())
            );
        }
        assert_eq!((Phase::from_proto(0), Phase::from_proto(99)), (None, None));
    }
}
