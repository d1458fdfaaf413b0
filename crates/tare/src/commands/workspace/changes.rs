//! What changed between two statuses of a workspace, a line each.

use agentrouter_api::configurator::UpgradePhase;
use agentrouter_api::workspaces as pb;
use agentrouter_kernel::Timestamp;

use super::status::{converged, reason, slot_of, state, upgrade};
use crate::text::{Line, Span, Tone};
use crate::times::clock;

/// The changes since the last status; everything where there is none.
pub(super) fn lines(
    last: Option<&pb::WorkspaceStatus>,
    status: &pb::WorkspaceStatus,
    now: Timestamp,
) -> Vec<Line> {
    let workspace = status.workspace.as_ref().map_or("", |workspace| workspace.workspace_id.as_str());
    let line = || Line::new(Span::new(clock(now), Tone::Faint)).and(" ").and(workspace).and(" ");
    let mut lines = Vec::new();
    if last.is_none_or(|last| last.online != status.online) {
        let (text, tone) = if status.online { ("online", Tone::Good) } else { ("offline", Tone::Bad) };
        lines.push(line().and(Span::new(text, tone)));
    }
    for slot in &status.slots {
        let before = last.and_then(|last| last.slots.iter().find(|before| slot_of(before) == slot_of(slot)));
        if before == Some(slot) {
            continue;
        }
        let (state, tone) = state(slot);
        let mut line = line()
            .and(format!("{} ", slot_of(slot)))
            .and(Span::new(state, tone))
            .and(format!(": desired {}, applied {}", slot.desired_version, slot.applied_version));
        let reason = reason(slot);
        if !reason.is_empty() {
            line.push(format!(": {reason}"));
        }
        if !slot.event_id.is_empty() {
            line.push(Span::new(format!(" {}", slot.event_id), Tone::Faint));
        }
        lines.push(line);
    }
    for before in last.iter().flat_map(|last| &last.slots) {
        if !status.slots.iter().any(|slot| slot_of(slot) == slot_of(before)) {
            lines.push(line().and(format!("{} deleted", slot_of(before))));
        }
    }
    let phase = |status: &pb::WorkspaceStatus| {
        let upgrade = status.upgrade.as_ref();
        upgrade.map(|upgrade| (upgrade.event_id.clone(), upgrade.phase(), upgrade.message.clone()))
    };
    let of_upgrade = phase(status).filter(|(_, phase, _)| *phase != UpgradePhase::Unspecified);
    if of_upgrade.is_some() && last.is_none_or(|last| phase(last) != of_upgrade) {
        lines.push(line().and("upgrade ").and(upgrade(status.upgrade.as_ref(), now)));
    }
    if last.is_none_or(|last| last.converged != status.converged) {
        lines.push(line().and("converged ").and(converged(status)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use agentrouter_api::configurator::EventStatus;

    use super::super::status::tests::{NOW, status};
    use super::*;

    fn text(last: Option<&pb::WorkspaceStatus>, status: &pb::WorkspaceStatus) -> Vec<String> {
        lines(last, status, NOW).iter().map(Line::to_string).collect()
    }

    #[test]
    fn the_first_status_is_all_news() {
        let text = text(None, &status());
        assert_eq!(text.len(), 6, "{text:#?}");
        assert_eq!(text[0], "2026-01-31T08:00:04.000Z edge-eu online");
        assert_eq!(
            text[1],
            "2026-01-31T08:00:04.000Z edge-eu providers/system stuck: desired 4, applied 3: \
             went back from version 4: no such model  [31m evt_1"
        );
        assert_eq!(text[5], "2026-01-31T08:00:04.000Z edge-eu converged no: 2 of 3 slots behind");
    }

    #[test]
    fn later_ones_tell_what_changed() {
        let before = status();
        let mut after = before.clone();
        assert!(text(Some(&before), &after).is_empty());
        after.online = false;
        after.slots.remove(1);
        if let Some(slot) = after.slots.last_mut() {
            (slot.applied_version, slot.event_status) = (1, EventStatus::Applied.into());
        }
        if let Some(upgrade) = &mut after.upgrade {
            upgrade.phase = UpgradePhase::Completed.into();
        }
        let text = text(Some(&before), &after);
        let expected = [
            "offline",
            "user_keys/a%2Fb applied: desired 1, applied 1 evt_1",
            "mcp_catalog/system deleted",
            "upgrade completed, runs 1.1.0; 60 s ago, evt_2",
        ];
        assert_eq!(text, expected.map(|line| format!("2026-01-31T08:00:04.000Z edge-eu {line}")));
    }
}
