//! Events and rollouts as people read them.

use agentrouter_api::configurator as pb;
use agentrouter_delivery::browse::{self, Wanted};
use agentrouter_delivery::event::EventRow;
use agentrouter_delivery::rollback::version_not_found;
use agentrouter_delivery::rollout::{self, Lagging};
use agentrouter_delivery::version::{self, ConfigurationRow};
use agentrouter_delivery::{config_type_name, status_name};
use agentrouter_kernel::id::{Configuration, Event};
use agentrouter_kernel::page::{CursorValue, PageCursor};
use agentrouter_kernel::{Fault, PageSize, Violations};
use agentrouter_rpc::call::ListInput;
use agentrouter_rpc::{Call, Deps};
use uuid::Uuid;

use crate::events::{named_workspace, reach};
use crate::slots::SlotFields;

const PAGE_DEFAULT: i32 = 50;

/// A page of events, the newest first.
pub(crate) async fn list_events(
    deps: &Deps,
    call: &Call,
    request: pb::ListEventsRequest,
) -> Result<pb::ListEventsResponse, Fault> {
    let mut violations = Violations::new();
    let size = PageSize::new("page_size", request.page_size, PAGE_DEFAULT, &mut violations);
    let status = pb::EventStatus::try_from(request.status).ok();
    violations.require(status.is_some(), "status", "is not a state of events");
    let config_type = pb::ConfigType::try_from(request.config_type).ok();
    violations.require(config_type.is_some(), "config_type", "is not a type of configuration");
    violations.text("user_id", &request.user_id, 255);
    violations.finish()?;
    let reach = reach(deps, call).await?;
    let workspace = named_workspace(deps, call.principal()?, &reach, &request.workspace_id).await?;
    let wanted = Wanted {
        customer: reach.customer,
        workspace,
        status: status
            .filter(|status| *status != pb::EventStatus::Unspecified)
            .map(status_name)
            .unwrap_or_default(),
        config_type: config_type
            .filter(|config_type| *config_type != pb::ConfigType::Unspecified)
            .map(config_type_name)
            .unwrap_or_default(),
        user_id: request.user_id,
        stuck: request.stuck,
    };
    let selected_by = format!(
        "{:?}\u{1f}{}\u{1f}{}\u{1f}{}\u{1f}{}",
        wanted.workspace, wanted.status, wanted.config_type, wanted.user_id, wanted.stuck
    );
    let input = ListInput {
        token: &request.page_token,
        parent: &reach.customer.to_string(),
        filter: &selected_by,
        order_by: "position desc",
    };
    let after = match call.open_page(&deps.page_key, &input)?.as_deref() {
        Some([CursorValue::Integer(position), CursorValue::Uuid(id)]) => {
            Some((*position, Uuid::from_u128(*id)))
        }
        _ => None,
    };
    let mut rows = browse::list(&deps.db, &wanted, after, size.limit()).await?;
    let next = page_end(&mut rows, size, |row: &EventRow| {
        vec![CursorValue::Integer(row.position), CursorValue::Uuid(row.id.uuid().as_u128())]
    });
    Ok(pb::ListEventsResponse {
        events: rows.iter().map(EventRow::to_proto).collect::<Result<_, _>>()?,
        next_page_token: call.seal_page(&deps.page_key, &input, next.as_ref())?,
    })
}

/// Cuts the row that only tells that a page follows, and returns where the page ends then.
fn page_end<T>(rows: &mut Vec<T>, size: PageSize, cursor: impl Fn(&T) -> PageCursor) -> Option<PageCursor> {
    let follows = rows.len() > size.get();
    rows.truncate(size.get());
    rows.last().filter(|_| follows).map(cursor)
}

/// An event.
pub(crate) async fn get_event(
    deps: &Deps,
    call: &Call,
    request: pb::GetEventRequest,
) -> Result<pb::ConfigurationEvent, Fault> {
    let mut violations = Violations::new();
    let event = violations.id::<Event>("event_id", &request.event_id);
    violations.finish()?;
    let event = event.ok_or_else(|| Fault::internal("an id was refused without a violation"))?;
    let customer = call.own_customer(&deps.db).await?;
    let row = browse::find(&deps.db, customer.id, event).await?;
    let row = row.ok_or_else(|| Fault::not_found::<Event>(&request.event_id))?;
    Ok(row.to_proto()?)
}

/// How far a version of a slot has spread.
pub(crate) async fn get_rollout(
    deps: &Deps,
    call: &Call,
    request: pb::GetRolloutRequest,
) -> Result<pb::GetRolloutResponse, Fault> {
    let customer = call.own_customer(&deps.db).await?;
    let mut violations = Violations::new();
    let size = PageSize::new("page_size", request.page_size, PAGE_DEFAULT, &mut violations);
    violations.require(request.version >= 0, "version", "must not be negative");
    let fields = SlotFields {
        path: "",
        user_id: &request.user_id,
        config_type: request.config_type,
        key_id: &request.key_id,
    };
    let slot = fields.read(customer.id, call.principal()?, &mut violations);
    violations.finish()?;
    let slot = slot.ok_or_else(|| Fault::internal("a slot was refused without a violation"))?;
    let name = format!("{}/{}/{}", slot.user_id, config_type_name(slot.config_type), slot.key_id);
    let row = version::find(&deps.db, &slot).await?;
    let row = row.ok_or_else(|| Fault::not_found::<Configuration>(name))?;
    let version = if request.version == 0 { row.version } else { request.version };
    if version > row.version {
        return Err(version_not_found(version));
    }
    let input = ListInput {
        token: &request.page_token,
        parent: &customer.id.to_string(),
        // A page of one version does not go on with the next one.
        filter: &format!("{}\u{1f}{version}", row.id),
        order_by: "workspace_id",
    };
    let after = match call.open_page(&deps.page_key, &input)?.as_deref() {
        Some([CursorValue::Text(slug)]) => slug.clone(),
        _ => String::new(),
    };
    let spread = rollout::spread(&deps.db, customer.id, &row, version).await?;
    let mut lagging = rollout::lagging(&deps.db, customer.id, &row, version, &after, size.limit()).await?;
    let next =
        page_end(&mut lagging, size, |lagging: &Lagging| vec![CursorValue::Text(lagging.slug.clone())]);
    Ok(pb::GetRolloutResponse {
        version,
        wanted: count(spread.wanted),
        in_flight: count(spread.in_flight),
        pending: count(spread.pending),
        applied: count(spread.applied),
        failed: count(spread.failed),
        stuck: count(spread.stuck),
        lagging: lagging.iter().map(|lagging| encode(lagging, &row)).collect(),
        next_page_token: call.seal_page(&deps.page_key, &input, next.as_ref())?,
    })
}

fn encode(lagging: &Lagging, slot: &ConfigurationRow) -> pb::WorkspaceRollout {
    let status = match lagging.stands.as_str() {
        "in_flight" => pb::EventStatus::Acknowledged,
        "pending" => pb::EventStatus::Pending,
        "failed" | "stuck" => pb::EventStatus::Failed,
        _ => pb::EventStatus::Unspecified,
    };
    pb::WorkspaceRollout {
        workspace_id: lagging.slug.clone(),
        applied_version: lagging.applied_version,
        status: status.into(),
        stuck: lagging.stands == "stuck",
        error_message: lagging.error_message.clone().unwrap_or_default(),
        event_id: lagging.event(slot).map(|id| id.to_string()).unwrap_or_default(),
        failed_version: lagging.failed_version,
    }
}

fn count(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
