//! A rollout on some lines: a bar over the fleet, and who is behind.

use agentrouter_api::configurator::{EventStatus, GetRolloutResponse, WorkspaceRollout};
use agentrouter_liaison::Slot;

use crate::slot::short;
use crate::table::Table;
use crate::text::{Line, Span, Tone};

/// Cells of the bar.
const CELLS: usize = 40;

/// How far a version has come.
#[derive(Debug, PartialEq)]
pub(super) struct Progress {
    slot: Slot,
    /// With those that somebody has to see to first.
    pub(super) rollout: GetRolloutResponse,
    /// The most workspaces to name.
    named: usize,
}

impl Progress {
    pub(super) fn new(slot: Slot, mut rollout: GetRolloutResponse, named: usize) -> Self {
        rollout
            .lagging
            .sort_by_key(|workspace| (!workspace.stuck, workspace.status() != EventStatus::Failed));
        Self { slot, rollout, named }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.rollout.applied >= self.rollout.wanted
    }

    /// Workspaces in each state, with the state's mark in the bar.
    fn parts(&self) -> [(i32, &'static str, char, Tone); 6] {
        let rollout = &self.rollout;
        let on_its_way =
            rollout.applied + rollout.in_flight + rollout.pending + rollout.failed + rollout.stuck;
        [
            (rollout.applied, "applied", '#', Tone::Good),
            (rollout.in_flight, "in flight", '>', Tone::Busy),
            (rollout.pending, "pending", '.', Tone::Normal),
            (rollout.failed, "failed and tried again", 'x', Tone::Bad),
            (rollout.stuck, "stuck", '!', Tone::Bad),
            // Left out of the trigger, or refused: a reconcile brings the first.
            ((rollout.wanted - on_its_way).max(0), "with nothing on its way", '?', Tone::Faint),
        ]
    }

    fn title(&self) -> String {
        format!("{} version {}", self.slot, self.rollout.version)
    }

    fn counts(&self) -> Line {
        let mut line = Line::default();
        for (index, (count, name, _, tone)) in self.parts().into_iter().enumerate() {
            if index > 0 && count == 0 {
                continue;
            }
            let text = match index {
                0 => format!("{count} of {} {name}", self.rollout.wanted),
                _ => format!("{count} {name}"),
            };
            if index > 0 {
                line.push(", ");
            }
            line.push(Span::new(text, if count > 0 { tone } else { Tone::Normal }));
        }
        line
    }

    fn bar(&self) -> Line {
        let parts = self.parts();
        let cells = cells(parts.map(|(count, ..)| count));
        let mut line = Line::new("[");
        for (cells, (_, _, mark, tone)) in cells.into_iter().zip(parts) {
            line.push(Span::new(String::from(mark).repeat(cells), tone));
        }
        let (applied, wanted) = (i64::from(self.rollout.applied), i64::from(self.rollout.wanted));
        // Rounded down: 100 % is all of them.
        let percent = (applied * 100).checked_div(wanted).unwrap_or(100);
        line.and(format!("] {percent} %"))
    }

    /// The whole picture.
    pub(super) fn lines(&self) -> Vec<Line> {
        let mut lines = vec![Line::new(Span::new(self.title(), Tone::Heading)), self.bar(), self.counts()];
        let mut table = Table::new(["WORKSPACE", "RUNS", "STATE", "EVENT", "REASON"]);
        for workspace in self.rollout.lagging.iter().take(self.named) {
            let (state, tone) = state(workspace);
            table.row([
                workspace.workspace_id.as_str().into(),
                workspace.applied_version.to_string().into(),
                Span::new(state, tone),
                Span::new(&workspace.event_id, Tone::Faint),
                reason(workspace).into(),
            ]);
        }
        if !table.is_empty() {
            lines.push(Line::default());
            lines.extend(table.lines(0));
        }
        let behind = usize::try_from(self.rollout.wanted - self.rollout.applied).unwrap_or_default();
        let left = behind.saturating_sub(self.named);
        if left > 0 {
            lines.push(Line::new(Span::new(format!("... and {left} more (--all)"), Tone::Faint)));
        }
        lines
    }

    /// What changed, a line each.
    pub(super) fn changes(&self, last: Option<&Self>) -> Vec<Line> {
        let mut lines = Vec::new();
        let counts = |progress: &Self| (progress.rollout.version, progress.parts().map(|(count, ..)| count));
        if last.is_none_or(|last| counts(last) != counts(self)) {
            let mut line = Line::new(format!("{}: ", self.title()));
            line.append(self.counts());
            lines.push(line);
        }
        for workspace in self.rollout.lagging.iter().filter(|workspace| workspace.stuck) {
            let before = last.filter(|last| last.rollout.version == self.rollout.version);
            let was_stuck = before.is_some_and(|last| {
                let mut stuck = last.rollout.lagging.iter().filter(|workspace| workspace.stuck);
                stuck.any(|before| before.workspace_id == workspace.workspace_id)
            });
            if !was_stuck {
                let text = format!("{}: stuck: {} ", workspace.workspace_id, reason(workspace));
                lines.push(
                    Line::new(Span::new(text, Tone::Bad)).and(Span::new(&workspace.event_id, Tone::Faint)),
                );
            }
        }
        lines
    }
}

fn state(workspace: &WorkspaceRollout) -> (String, Tone) {
    match workspace.status() {
        _ if workspace.stuck => ("stuck".to_owned(), Tone::Bad),
        EventStatus::Unspecified => ("nothing on its way".to_owned(), Tone::Faint),
        EventStatus::Acknowledged => ("in flight".to_owned(), Tone::Busy),
        status @ EventStatus::Failed => (short(status.as_str_name(), "EVENT_STATUS_"), Tone::Bad),
        status => (short(status.as_str_name(), "EVENT_STATUS_"), Tone::Normal),
    }
}

fn reason(workspace: &WorkspaceRollout) -> String {
    let went_back = (workspace.failed_version > 0)
        .then(|| format!("went back from version {}", workspace.failed_version));
    let message = (!workspace.error_message.is_empty()).then(|| workspace.error_message.clone());
    [went_back, message].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

/// Cells of the bar for each count. A state that somebody is in has a cell, and the rest goes to the largest.
fn cells<const N: usize>(counts: [i32; N]) -> [usize; N] {
    let counts = counts.map(|count| usize::try_from(count).unwrap_or_default());
    let total: usize = counts.iter().sum();
    if total == 0 {
        return [0; N];
    }
    let mut cells = counts.map(|count| if count == 0 { 0 } else { (count * CELLS / total).max(1) });
    let used: usize = cells.iter().sum();
    if let Some(largest) = cells.iter_mut().max() {
        *largest = (*largest + CELLS).saturating_sub(used);
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(named: usize) -> Progress {
        let workspace = |name: &str, status: EventStatus, stuck, error: &str| WorkspaceRollout {
            workspace_id: name.to_owned(),
            applied_version: 3,
            status: status.into(),
            stuck,
            error_message: error.to_owned(),
            event_id: format!("evt_{name}"),
            failed_version: 0,
        };
        let rollout = GetRolloutResponse {
            version: 4,
            wanted: 200,
            applied: 194,
            in_flight: 1,
            pending: 2,
            failed: 1,
            stuck: 1,
            lagging: vec![
                workspace("a", EventStatus::Pending, false, ""),
                workspace("b", EventStatus::Failed, false, "connection refused"),
                workspace("c", EventStatus::Acknowledged, false, ""),
                workspace("d", EventStatus::Unspecified, false, ""),
                workspace("e", EventStatus::Failed, true, "no such\u{1b}[2J model"),
                workspace("f", EventStatus::Pending, false, ""),
            ],
            next_page_token: String::new(),
        };
        let slot = Slot { config_type: 1, user_id: "system".to_owned(), key_id: String::new() };
        Progress::new(slot, rollout, named)
    }

    fn text(lines: &[Line]) -> Vec<String> {
        lines.iter().map(Line::to_string).collect()
    }

    #[test]
    fn the_whole_picture() {
        assert_eq!(
            text(&progress(20).lines()),
            [
                "providers/system version 4",
                "[###################################>.x!?] 97 %",
                "194 of 200 applied, 1 in flight, 2 pending, 1 failed and tried again, 1 stuck, \
                 1 with nothing on its way",
                "",
                "WORKSPACE  RUNS  STATE               EVENT  REASON",
                "e          3     stuck               evt_e  no such [2J model",
                "b          3     failed              evt_b  connection refused",
                "a          3     pending             evt_a",
                "c          3     in flight           evt_c",
                "d          3     nothing on its way  evt_d",
                "f          3     pending             evt_f",
            ]
        );
        let some = text(&progress(2).lines());
        assert_eq!(some.last().map(String::as_str), Some("... and 4 more (--all)"));
        assert_eq!(some.len(), 8);
    }

    #[test]
    fn changes_are_told_once() {
        let first = progress(20);
        let told = text(&first.changes(None));
        assert_eq!(told.len(), 2);
        assert!(
            told[0].starts_with("providers/system version 4: 194 of 200 applied, 1 in flight"),
            "{told:?}"
        );
        assert_eq!(told[1], "e: stuck: no such [2J model evt_e");
        assert!(progress(20).changes(Some(&first)).is_empty());
        let mut later = progress(20);
        (later.rollout.applied, later.rollout.pending) = (195, 1);
        assert_eq!(text(&later.changes(Some(&first))).len(), 1);
    }

    #[test]
    fn bars_are_always_full_and_show_everybody() {
        for counts in [[1, 0, 0], [1, 1, 1], [10_000, 1, 1], [0, 0, 3], [39, 40, 41], [i32::MAX, 1, 5]] {
            let cells = cells(counts);
            assert_eq!(cells.iter().sum::<usize>(), CELLS, "{counts:?}");
            for (count, cells) in counts.into_iter().zip(cells) {
                assert_eq!(count > 0, cells > 0, "{counts:?}");
            }
        }
        assert_eq!(cells([0, 0, 0]), [0, 0, 0]);
    }

    #[test]
    fn nobody_to_wait_for_is_complete() {
        let slot = Slot { config_type: 1, user_id: "system".to_owned(), key_id: String::new() };
        let empty = Progress::new(slot, GetRolloutResponse { version: 1, ..Default::default() }, 20);
        assert!(empty.is_complete());
        assert_eq!(text(&empty.lines()), ["providers/system version 1", "[] 100 %", "0 of 0 applied"]);
        assert!(!progress(20).is_complete());
    }
}
