//! What holds after every step, whatever it was.

use std::collections::BTreeSet;

use agentrouter_delivery::ATTEMPTS_MAX;
use agentrouter_delivery::state::{self, State, TRANSITIONS};
use agentrouter_kernel::id::{Configuration, Id, Workspace};

use crate::rows::{Place, Rows};

/// What the rows alone do not tell.
#[derive(Debug, Default)]
pub(crate) struct Context {
    /// Workspaces in service.
    pub(crate) live: BTreeSet<Id<Workspace>>,
    /// The place whose data plane said in this step that it went back.
    pub(crate) went_back: Option<Place>,
    /// Slots whose newest version was for one workspace only.
    pub(crate) only: BTreeSet<(Id<Configuration>, Id<Workspace>)>,
}

/// Fails where a step broke something.
pub(crate) fn check(before: &Rows, after: &Rows, context: &Context) {
    lives(before, after);
    places(after);
    versions(after);
    for (place, ran) in &before.ran {
        let now = after.applied(*place);
        let may_go_back = context.went_back == Some(*place);
        assert!(
            now >= ran.applied_version || may_go_back,
            "{place:?} went from {} to {now}",
            ran.applied_version
        );
    }
    nothing_is_lost(after, context);
}

/// Events only go where the table lets them, and stay.
fn lives(before: &Rows, after: &Rows) {
    for (id, event) in &before.events {
        let now = after.events.get(id).unwrap_or_else(|| panic!("{event:?} is gone"));
        let (from, to) = (event.state(), now.state());
        // A step may do two things: what is due becomes pending, and is claimed or overtaken then.
        let is_known = state::is_allowed(from, to)
            || TRANSITIONS.iter().any(|row| row.from == from && state::is_allowed(row.to, to));
        assert!(is_known, "{event:?} became {now:?}");
    }
    for event in after.events.values() {
        assert!(event.attempt <= ATTEMPTS_MAX, "{event:?}");
        if let Some(next) = event.superseded_by {
            // Its row may still be to be laid out, or was never needed.
            assert!(after.events.get(&next).is_none_or(|next| next.version >= event.version), "{event:?}");
        }
    }
}

/// At most one of each kind per slot and workspace.
fn places(rows: &Rows) {
    let places: BTreeSet<_> = rows.events.values().map(crate::rows::EventRow::place).collect();
    for place in places {
        for state in [State::Pending, State::Acknowledged] {
            let count = rows.at(place, state).count();
            assert!(count <= 1, "{count} events of {place:?} are {state:?}");
        }
    }
}

/// Versions grow by one, in the order of their positions, and the newest is the slot's.
fn versions(rows: &Rows) {
    for (slot, versions) in &rows.versions {
        let numbers: Vec<_> = versions.iter().map(|(version, _)| *version).collect();
        assert_eq!(numbers, (1..=rows.slots[slot].version).collect::<Vec<_>>(), "versions of {slot}");
        assert!(versions.is_sorted_by(|(_, one), (_, next)| one < next), "{versions:?}");
    }
}

/// Every live workspace has the newest version of every slot, or will get it, or refused it, or was left out on purpose.
fn nothing_is_lost(rows: &Rows, context: &Context) {
    for workspace in &context.live {
        let cursor = rows.cursors[workspace];
        for slot in rows.slots.values() {
            let place = (*workspace, slot.id);
            let ran = rows.ran.get(&place);
            let applied = ran.map_or(0, |ran| ran.applied_version);
            let is_withheld = ran.is_some_and(|ran| ran.withheld_version == slot.version);
            let is_open = rows
                .events
                .values()
                .any(|event| event.place() == place && event.is_open && event.version == slot.version);
            let is_outstanding =
                agentrouter_delivery::is_outstanding(slot.broadcast_position, slot.deleted, cursor);
            let needs_no_deletion = slot.deleted && applied == 0;
            let is_left_out = context.only.iter().any(|(only, whose)| *only == slot.id && whose != workspace);
            assert!(
                applied == slot.version
                    || is_open
                    || is_withheld
                    || is_outstanding
                    || needs_no_deletion
                    || is_left_out,
                "{place:?} runs version {applied} of {slot:?} and nothing is on its way"
            );
        }
    }
}
