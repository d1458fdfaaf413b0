//! `tare workspace list`.

use agentrouter_api::common::PageRequest;
use agentrouter_api::configurator::UpgradePhase;
use agentrouter_api::workspaces as pb;
use agentrouter_kernel::{Clock, SystemClock, Timestamp};
use futures::stream::{self, StreamExt};
use serde::Serialize;
use tonic::Code;

use crate::Output;
use crate::client::Client;
use crate::exit::Failure;
use crate::screen::Screen;
use crate::table::Table;
use crate::text::{Line, Span, Tone};
use crate::times::{ago, time};

/// Workspaces of a page.
const PAGE: i32 = 500;
/// Calls under way at once: a fleet is asked one by one, and the server has others to serve.
const AT_ONCE: usize = 16;

/// A workspace of the list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    workspace_id: String,
    display_name: String,
    online: bool,
    last_seen_at: Option<String>,
    converged: bool,
    slots: usize,
    slots_behind: usize,
    pending_events: i32,
    in_flight_events: i32,
    stuck_events: i32,
    /// The release that runs, where an upgrade has told.
    dataplane_version: String,
    upgrade_phase: Option<&'static str>,
    #[serde(skip)]
    seen: Option<prost_types::Timestamp>,
}

pub(super) async fn run(
    client: &Client,
    filter: &str,
    output: Output,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListWorkspacesRequest {
            customer_id: client.customer.clone(),
            page: Some(PageRequest {
                page_size: PAGE,
                page_token,
                filter: filter.to_owned(),
                order_by: "workspace_id".to_owned(),
            }),
            show_deleted: false,
        };
        let answer = client.workspaces().list_workspaces(request).await;
        let page = answer.map_err(|status| client.failure(&status))?.into_inner();
        let mut statuses =
            stream::iter(page.workspaces.into_iter().map(|workspace| status(client, workspace)))
                .buffered(AT_ONCE);
        while let Some(status) = statuses.next().await {
            // What was archived meanwhile is not there.
            let Some(row) = status?.map(Row::from) else { continue };
            match output {
                Output::Json => screen.json(&row)?,
                Output::Human => rows.push(row),
            }
        }
        page_token = page.page.unwrap_or_default().next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    match output {
        Output::Json => Ok(()),
        Output::Human => screen.print(&lines(&rows, SystemClock.now())),
    }
}

async fn status(client: &Client, workspace: pb::Workspace) -> Result<Option<pb::WorkspaceStatus>, Failure> {
    let request = pb::GetWorkspaceStatusRequest {
        customer_id: client.customer.clone(),
        workspace_id: workspace.workspace_id,
    };
    match client.workspaces().get_workspace_status(request).await {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(client.failure(&status)),
    }
}

impl From<pb::WorkspaceStatus> for Row {
    fn from(status: pb::WorkspaceStatus) -> Self {
        let workspace = status.workspace.unwrap_or_default();
        let behind = status.slots.iter().filter(|slot| slot.applied_version != slot.desired_version);
        let upgrade = status.upgrade.unwrap_or_default();
        let phase = upgrade.phase();
        Self {
            workspace_id: workspace.workspace_id,
            display_name: workspace.display_name,
            online: status.online,
            last_seen_at: workspace.last_seen_at.as_ref().map(|seen| time(seen).to_string()),
            converged: status.converged,
            slots: status.slots.len(),
            slots_behind: behind.count(),
            pending_events: status.pending_events,
            in_flight_events: status.in_flight_events,
            stuck_events: status.stuck_events,
            dataplane_version: upgrade.running_version,
            upgrade_phase: (phase != UpgradePhase::Unspecified).then(|| phase.as_str_name()),
            seen: workspace.last_seen_at,
        }
    }
}

impl Row {
    fn upgrade(&self) -> Span {
        let phase = self.upgrade_phase.and_then(UpgradePhase::from_str_name).unwrap_or_default();
        let version = if self.dataplane_version.is_empty() { "-" } else { &self.dataplane_version };
        match phase {
            UpgradePhase::Unspecified | UpgradePhase::Completed => version.into(),
            phase => Span::new(
                format!("{version} ({})", super::status::phase(phase)),
                super::status::phase_tone(phase),
            ),
        }
    }
}

pub(super) fn lines(rows: &[Row], now: Timestamp) -> Vec<Line> {
    if rows.is_empty() {
        return vec![Line::new("no workspaces")];
    }
    let mut table =
        Table::new(["WORKSPACE", "ONLINE", "LAST SEEN", "CONVERGED", "BEHIND", "STUCK", "DATA PLANE"]);
    for row in rows {
        let yes = |is: bool, no: Tone| if is { Span::new("yes", Tone::Good) } else { Span::new("no", no) };
        let count =
            |count: usize, tone| if count == 0 { "-".into() } else { Span::new(count.to_string(), tone) };
        table.row([
            row.workspace_id.as_str().into(),
            yes(row.online, Tone::Bad),
            ago(row.seen.as_ref(), now).into(),
            yes(row.converged, Tone::Busy),
            count(row.slots_behind, Tone::Busy),
            count(usize::try_from(row.stuck_events).unwrap_or_default(), Tone::Bad),
            row.upgrade(),
        ]);
    }
    table.lines(0)
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::{NOW, status};
    use super::*;

    #[test]
    fn a_fleet_at_a_glance() {
        let mut quiet = pb::WorkspaceStatus { converged: true, ..Default::default() };
        quiet.workspace = Some(pb::Workspace { workspace_id: "lab".to_owned(), ..Default::default() });
        let text: Vec<_> = lines(&[status().into(), quiet.into()], NOW).iter().map(Line::to_string).collect();
        assert_eq!(
            text,
            [
                "WORKSPACE  ONLINE  LAST SEEN  CONVERGED  BEHIND  STUCK  DATA PLANE",
                "edge-eu    yes     4 s ago    no         2       1      1.1.0 (running)",
                "lab        no      never      yes        -       -      -",
            ]
        );
        assert_eq!(lines(&[], NOW)[0].to_string(), "no workspaces");
    }

    #[test]
    fn rows_for_programs() {
        let row = serde_json::to_value(Row::from(status())).expect("JSON");
        assert_eq!(row["last_seen_at"], "2026-01-31T08:00:00.000000Z");
        assert_eq!(row["upgrade_phase"], "UPGRADE_PHASE_RUNNING");
        assert_eq!((&row["slots"], &row["slots_behind"]), (&3.into(), &2.into()));
    }
}
