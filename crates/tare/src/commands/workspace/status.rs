//! Everything about one workspace, on some lines.

use agentrouter_api::configurator::{DataplaneUpgrade, DoctorRuntime, EventStatus, UpgradePhase};
use agentrouter_api::workspaces as pb;
use agentrouter_kernel::Timestamp;
use agentrouter_liaison::Slot;

use crate::slot::short;
use crate::table::Table;
use crate::text::{Line, Span, Tone};
use crate::times::ago;

pub(super) fn lines(status: &pb::WorkspaceStatus, now: Timestamp) -> Vec<Line> {
    let workspace = status.workspace.clone().unwrap_or_default();
    let mut title = Line::new(Span::new(&workspace.workspace_id, Tone::Heading));
    if !workspace.display_name.is_empty() {
        title.push(format!(" ({})", workspace.display_name));
    }
    title.push(format!(" of {}", workspace.customer_id));
    let seen = ago(workspace.last_seen_at.as_ref(), now);
    let mut lines = vec![
        title,
        field("online").and(online(status.online)).and(format!(", last poll {seen}")),
        field("converged").and(converged(status)),
        field("events")
            .and(format!("{} pending, {} in flight, ", status.pending_events, status.in_flight_events))
            .and(Span::new(
                format!("{} stuck", status.stuck_events),
                if status.stuck_events > 0 { Tone::Bad } else { Tone::Normal },
            )),
        field("doctor").and(doctor(status.doctor_runtime.as_ref(), now)),
        field("upgrade").and(upgrade(status.upgrade.as_ref(), now)),
    ];
    let mut table = Table::new(["SLOT", "DESIRED", "APPLIED", "SINCE", "STATE", "EVENT", "REASON"]);
    for slot in &status.slots {
        let (state, tone) = state(slot);
        let is_applied = slot.applied_version == slot.desired_version;
        table.row([
            slot_of(slot).to_string().into(),
            slot.desired_version.to_string().into(),
            Span::new(slot.applied_version.to_string(), if is_applied { Tone::Normal } else { Tone::Busy }),
            ago(slot.applied_at.as_ref(), now).into(),
            Span::new(state, tone),
            Span::new(&slot.event_id, Tone::Faint),
            reason(slot).into(),
        ]);
    }
    lines.push(Line::default());
    if table.is_empty() {
        lines.push(Line::new("  nothing is configured"));
    } else {
        lines.extend(table.lines(2));
    }
    lines
}

fn field(name: &str) -> Line {
    Line::new(Span::new(format!("  {name:<11}"), Tone::Faint))
}

fn online(is: bool) -> Span {
    if is { Span::new("yes", Tone::Good) } else { Span::new("no", Tone::Bad) }
}

pub(super) fn converged(status: &pb::WorkspaceStatus) -> Span {
    if status.converged {
        return Span::new("yes", Tone::Good);
    }
    let behind = status.slots.iter().filter(|slot| slot.applied_version != slot.desired_version).count();
    let text = match behind {
        // What was deleted is not among the slots any more, and may still run.
        0 => "no: something deleted still runs".to_owned(),
        behind => format!("no: {behind} of {} slots behind", status.slots.len()),
    };
    Span::new(text, Tone::Busy)
}

pub(super) fn slot_of(slot: &pb::SlotStatus) -> Slot {
    Slot { config_type: slot.config_type, user_id: slot.user_id.clone(), key_id: slot.key_id.clone() }
}

/// Where a slot stands, in a word.
pub(super) fn state(slot: &pb::SlotStatus) -> (String, Tone) {
    let tone = match slot.event_status() {
        _ if slot.stuck => return ("stuck".to_owned(), Tone::Bad),
        EventStatus::Unspecified if slot.applied_version == slot.desired_version => {
            return ("applied".to_owned(), Tone::Good);
        }
        EventStatus::Unspecified => return ("nothing on its way".to_owned(), Tone::Busy),
        EventStatus::Applied => Tone::Good,
        EventStatus::Failed => Tone::Bad,
        EventStatus::Pending | EventStatus::Acknowledged | EventStatus::Superseded => Tone::Busy,
    };
    (short(slot.event_status().as_str_name(), "EVENT_STATUS_"), tone)
}

/// Why a slot stands where it does.
pub(super) fn reason(slot: &pb::SlotStatus) -> String {
    let went_back =
        (slot.failed_version > 0).then(|| format!("went back from version {}", slot.failed_version));
    let message = (!slot.error_message.is_empty()).then(|| slot.error_message.clone());
    [went_back, message].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

fn doctor(doctor: Option<&DoctorRuntime>, now: Timestamp) -> Span {
    let Some(doctor) = doctor else { return Span::new("nothing reported", Tone::Faint) };
    let seen = ago(doctor.observed_at.as_ref(), now);
    if !doctor.cron_job_present {
        return Span::new(format!("no job, seen {seen}"), Tone::Busy);
    }
    let mut text =
        format!("{}, last success {}", doctor.schedule, ago(doctor.last_successful_time.as_ref(), now));
    let mut tone = Tone::Normal;
    if doctor.suspended {
        text.push_str(", suspended");
        tone = Tone::Busy;
    }
    for part in [&doctor.pod_phase, &doctor.reason, &doctor.message] {
        if !part.is_empty() {
            text.push_str(", ");
            text.push_str(part);
        }
    }
    if !doctor.reason.is_empty() {
        tone = Tone::Bad;
    }
    Span::new(format!("{text}; seen {seen}"), tone)
}

pub(super) fn phase(phase: UpgradePhase) -> String {
    short(phase.as_str_name(), "UPGRADE_PHASE_").replace('_', " ")
}

pub(super) fn phase_tone(phase: UpgradePhase) -> Tone {
    match phase {
        UpgradePhase::Unspecified | UpgradePhase::Cancelled | UpgradePhase::RolledBack => Tone::Normal,
        UpgradePhase::Completed => Tone::Good,
        UpgradePhase::Failed | UpgradePhase::NeedsCredentials => Tone::Bad,
        UpgradePhase::Pending
        | UpgradePhase::Running
        | UpgradePhase::Cancelling
        | UpgradePhase::RollingBack => Tone::Busy,
    }
}

pub(super) fn upgrade(upgrade: Option<&DataplaneUpgrade>, now: Timestamp) -> Span {
    let Some(upgrade) = upgrade else { return Span::new("none", Tone::Faint) };
    let mut parts = vec![phase(upgrade.phase())];
    if !upgrade.running_version.is_empty() {
        parts.push(format!("runs {}", upgrade.running_version));
    }
    if !upgrade.failed_version.is_empty() {
        parts.push(format!("went back from {}", upgrade.failed_version));
    }
    if !upgrade.required_credentials.is_empty() {
        parts.push(format!("waits for {}", upgrade.required_credentials.join(", ")));
    }
    let message = if upgrade.message.is_empty() { String::new() } else { format!(": {}", upgrade.message) };
    let changed = ago(upgrade.updated_at.as_ref(), now);
    let text = format!("{}{message}; {changed}, {}", parts.join(", "), upgrade.event_id);
    Span::new(text, phase_tone(upgrade.phase()))
}

#[cfg(test)]
pub(super) mod tests {
    use agentrouter_api::configurator::ConfigType;

    use super::*;

    pub(in super::super) const NOW: Timestamp = Timestamp::from_secs(1_769_846_404);

    #[expect(clippy::unnecessary_wraps, reason = "as messages have it")]
    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    /// A workspace in some trouble.
    pub(in super::super) fn status() -> pb::WorkspaceStatus {
        let slot = |config_type: ConfigType, user: &str, desired, applied| pb::SlotStatus {
            user_id: user.to_owned(),
            config_type: config_type.into(),
            desired_version: desired,
            applied_version: applied,
            applied_at: if applied > 0 { at(1_769_846_000) } else { None },
            event_id: "evt_1".to_owned(),
            event_status: EventStatus::Applied.into(),
            ..Default::default()
        };
        let stuck = pb::SlotStatus {
            event_status: EventStatus::Failed.into(),
            stuck: true,
            error_message: "no such\nmodel \u{1b}[31m".to_owned(),
            failed_version: 4,
            ..slot(ConfigType::Providers, "system", 4, 3)
        };
        let pending = pb::SlotStatus {
            event_status: EventStatus::Pending.into(),
            ..slot(ConfigType::UserKeys, "a/b", 1, 0)
        };
        pb::WorkspaceStatus {
            workspace: Some(pb::Workspace {
                customer_id: "acme".to_owned(),
                workspace_id: "edge-eu".to_owned(),
                display_name: "Edge Europe".to_owned(),
                last_seen_at: at(1_769_846_400),
                ..Default::default()
            }),
            online: true,
            converged: false,
            slots: vec![stuck, slot(ConfigType::McpCatalog, "system", 2, 2), pending],
            pending_events: 1,
            stuck_events: 1,
            doctor_runtime: Some(DoctorRuntime {
                observed_at: at(1_769_846_400),
                cron_job_present: true,
                schedule: "*/5 * * * *".to_owned(),
                pod_phase: "Pending".to_owned(),
                reason: "ImagePullBackOff".to_owned(),
                ..Default::default()
            }),
            upgrade: Some(DataplaneUpgrade {
                event_id: "evt_2".to_owned(),
                phase: UpgradePhase::Running.into(),
                running_version: "1.1.0".to_owned(),
                updated_at: at(1_769_846_344),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn text(status: &pb::WorkspaceStatus) -> Vec<String> {
        lines(status, NOW).iter().map(Line::to_string).collect()
    }

    #[test]
    fn a_workspace_in_trouble() {
        assert_eq!(
            text(&status()),
            [
                "edge-eu (Edge Europe) of acme",
                "  online     yes, last poll 4 s ago",
                "  converged  no: 2 of 3 slots behind",
                "  events     1 pending, 0 in flight, 1 stuck",
                "  doctor     */5 * * * *, last success never, Pending, ImagePullBackOff; seen 4 s ago",
                "  upgrade    running, runs 1.1.0; 60 s ago, evt_2",
                "",
                "  SLOT                DESIRED  APPLIED  SINCE      STATE    EVENT  REASON",
                "  providers/system    4        3        6 min ago  stuck    evt_1  went back from version 4: no such model  [31m",
                "  mcp_catalog/system  2        2        6 min ago  applied  evt_1",
                "  user_keys/a%2Fb     1        0        never      pending  evt_1",
            ]
        );
    }

    #[test]
    fn a_workspace_without_anything() {
        let status = pb::WorkspaceStatus { converged: true, ..Default::default() };
        let text = text(&status);
        assert_eq!(text[1], "  online     no, last poll never");
        assert_eq!(text[4..6], ["  doctor     nothing reported", "  upgrade    none"]);
        assert_eq!(text.last().map(String::as_str), Some("  nothing is configured"));
    }
}
