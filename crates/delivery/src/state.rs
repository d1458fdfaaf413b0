//! The life of an event as a table: which state follows which, and what brings it about.
//!
//! The statements of this crate change rows under conditions of their own, because several workers race; the tests
//! compare every change of a row with this table.

use agentrouter_api::configurator::EventStatus;

use crate::event::EventRow;

/// Where an event stands. Finer than its status on the wire: `failed` has three meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// It waits for a worker.
    Pending,
    /// A worker holds it under a lease.
    Acknowledged,
    /// The data plane runs it. Final.
    Applied,
    /// An attempt failed and another one follows after a delay.
    Failed,
    /// No attempt follows, and the slot waits for new content or a retry by a person.
    Stuck,
    /// The last attempt failed, and a newer version took the event's place. Final.
    Overtaken,
    /// A newer version took its place before it was applied, or its workspace is gone. Final.
    Superseded,
}

/// What happens to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trigger {
    /// A worker claims it.
    Claim,
    /// Its holder claims it again, or names it in a poll.
    Renew,
    /// Its holder reports it as applied.
    Apply,
    /// Its holder reports a failure; attempts are left and nothing newer waits.
    Fail,
    /// Its holder reports a failure that is final, or was the last attempt; nothing newer waits.
    FailFinally,
    /// Its holder reports a failure, and a newer version waits.
    FailWithNewer,
    /// Its holder gives it back, without using an attempt.
    Release,
    /// Its holder gives it back, and a newer version waits.
    ReleaseWithNewer,
    /// Its lease ran out; attempts are left and nothing newer waits.
    Expire,
    /// Its lease ran out on the last attempt; nothing newer waits.
    ExpireFinally,
    /// Its lease ran out, and a newer version waits.
    ExpireWithNewer,
    /// The delay after a failure is over.
    Due,
    /// The delay after a failure is over, and a newer version has come past.
    DueWithNewer,
    /// A newer event for its slot is laid out.
    Newer,
    /// A person retries it.
    Retry,
    /// Its workspace or customer goes out of service.
    Retire,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// What happens.
    pub trigger: Trigger,
    /// The state after.
    pub to: State,
}

const fn row(from: State, trigger: Trigger, to: State) -> Transition {
    Transition { from, trigger, to }
}

/// Every transition there is. What is not here changes no row.
pub const TRANSITIONS: &[Transition] = &[
    row(State::Pending, Trigger::Claim, State::Acknowledged),
    row(State::Pending, Trigger::Newer, State::Superseded),
    row(State::Pending, Trigger::Retire, State::Superseded),
    row(State::Acknowledged, Trigger::Renew, State::Acknowledged),
    row(State::Acknowledged, Trigger::Apply, State::Applied),
    row(State::Acknowledged, Trigger::Fail, State::Failed),
    row(State::Acknowledged, Trigger::FailFinally, State::Stuck),
    row(State::Acknowledged, Trigger::FailWithNewer, State::Overtaken),
    row(State::Acknowledged, Trigger::Release, State::Pending),
    row(State::Acknowledged, Trigger::ReleaseWithNewer, State::Superseded),
    row(State::Acknowledged, Trigger::Expire, State::Pending),
    row(State::Acknowledged, Trigger::ExpireFinally, State::Stuck),
    row(State::Acknowledged, Trigger::ExpireWithNewer, State::Superseded),
    row(State::Acknowledged, Trigger::Retire, State::Superseded),
    row(State::Failed, Trigger::Due, State::Pending),
    row(State::Failed, Trigger::DueWithNewer, State::Overtaken),
    row(State::Failed, Trigger::Newer, State::Overtaken),
    row(State::Failed, Trigger::Retry, State::Pending),
    row(State::Failed, Trigger::Retire, State::Overtaken),
    row(State::Stuck, Trigger::Newer, State::Overtaken),
    row(State::Stuck, Trigger::Retry, State::Pending),
    row(State::Stuck, Trigger::Retire, State::Overtaken),
];

/// The state after `trigger`; none where the table has no such row.
pub fn next(from: State, trigger: Trigger) -> Option<State> {
    TRANSITIONS.iter().find(|row| row.from == from && row.trigger == trigger).map(|row| row.to)
}

/// Whether anything leads from one state to the other. A state leads to itself: a row may change without a transition,
/// as where it gets a history.
pub fn is_allowed(from: State, to: State) -> bool {
    from == to || TRANSITIONS.iter().any(|row| row.from == from && row.to == to)
}

impl State {
    /// Whether nothing leads out of it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Applied | Self::Overtaken | Self::Superseded)
    }

    /// Whether the event may still be delivered, or holds its slot: what the column `is_open` says.
    pub fn is_open(self) -> bool {
        !self.is_final()
    }

    /// The status on the wire.
    pub fn status(self) -> EventStatus {
        match self {
            Self::Pending => EventStatus::Pending,
            Self::Acknowledged => EventStatus::Acknowledged,
            Self::Applied => EventStatus::Applied,
            Self::Failed | Self::Stuck | Self::Overtaken => EventStatus::Failed,
            Self::Superseded => EventStatus::Superseded,
        }
    }

    /// The state that a row is in; none where its columns contradict each other.
    pub fn of(event: &EventRow) -> Option<Self> {
        let state = match (event.status(), event.stuck, event.is_open) {
            (EventStatus::Pending, false, _) => Self::Pending,
            (EventStatus::Acknowledged, false, _) => Self::Acknowledged,
            (EventStatus::Applied, false, _) => Self::Applied,
            (EventStatus::Failed, true, true) => Self::Stuck,
            (EventStatus::Failed, false, true) => Self::Failed,
            (EventStatus::Failed, false, false) => Self::Overtaken,
            (EventStatus::Superseded, false, _) => Self::Superseded,
            _ => return None,
        };
        (state.is_open() == event.is_open).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_trigger_has_one_outcome() {
        let keys: BTreeSet<_> = TRANSITIONS.iter().map(|row| (row.from, row.trigger)).collect();
        assert_eq!(keys.len(), TRANSITIONS.len());
    }

    #[test]
    fn final_states_lead_nowhere_and_all_others_lead_to_one() {
        let states: BTreeSet<_> = TRANSITIONS.iter().flat_map(|row| [row.from, row.to]).collect();
        assert_eq!(states.len(), 7);
        for state in states {
            assert_eq!(TRANSITIONS.iter().any(|row| row.from == state), state.is_open(), "{state:?}");
            let mut reached = BTreeSet::from([state]);
            while let Some(new) =
                TRANSITIONS.iter().find(|row| reached.contains(&row.from) && !reached.contains(&row.to))
            {
                reached.insert(new.to);
            }
            assert!(reached.iter().any(|state| state.is_final()), "{state:?} never ends");
        }
    }

    #[test]
    fn what_the_table_lacks_does_not_happen() {
        assert_eq!(next(State::Pending, Trigger::Claim), Some(State::Acknowledged));
        assert_eq!(next(State::Applied, Trigger::Expire), None);
        assert_eq!(next(State::Superseded, Trigger::Claim), None);
        assert!(
            is_allowed(State::Acknowledged, State::Pending) && !is_allowed(State::Applied, State::Pending)
        );
    }
}
