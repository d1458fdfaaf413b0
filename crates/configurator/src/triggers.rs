//! TriggerUpdate.

use agentrouter_api::configurator::{ConfigType, EventType, TriggerUpdateRequest, TriggerUpdateResponse};
use agentrouter_delivery::{Audience, trigger};
use agentrouter_kernel::{Fault, Violations};
use agentrouter_rpc::{Call, Deps, Write};
use agentrouter_storage::scope;

use crate::slots::SlotFields;
use crate::upgrade;

/// Regenerates a slot and delivers it.
pub(crate) async fn trigger_update(
    deps: &Deps,
    call: &Call,
    request: TriggerUpdateRequest,
) -> Result<TriggerUpdateResponse, Fault> {
    if request.config_type() == ConfigType::DataplaneUpgrade {
        return upgrade::start(deps, call, request).await;
    }
    let customer = call.own_customer(&deps.db).await?;
    let caller = call.principal()?;
    if request.user_id.is_empty() && caller.identity.is_none() {
        return Err(Fault::new(
            agentrouter_kernel::FaultKind::InvalidArgument,
            "USER_ID_REQUIRED",
            "user_id is required: the caller has no identity; use \"system\" for configurations of the whole customer",
        )
        .with_violation("user_id", "is required"));
    }
    let mut violations = Violations::new();
    let fields = SlotFields {
        path: "",
        user_id: &request.user_id,
        config_type: request.config_type,
        key_id: &request.key_id,
    };
    let slot = fields.read(customer.id, caller, &mut violations);
    let event_type = event_type(&request, &mut violations);
    violations.finish()?;
    let slot = slot.ok_or_else(|| Fault::internal("a slot was refused without a violation"))?;

    let mut write = Write::begin(deps, call, &request).await?;
    if let Some(answer) = write.replay()? {
        return Ok(answer);
    }
    let audience = if request.workspace_id.is_empty() {
        Audience::Everyone
    } else {
        Audience::Only(scope::workspace(&mut *write.tx(), customer.id, &request.workspace_id).await?)
    };
    let triggered = trigger(write.tx(), &slot, event_type, &audience).await?;
    let target = triggered.configuration.id;
    let answer = TriggerUpdateResponse {
        configuration: Some(triggered.configuration.to_proto(&customer.slug)?),
        configuration_updated: triggered.updated,
        event_ids: triggered.events.iter().map(ToString::to_string).collect(),
    };
    write.commit(customer.id, target, answer).await
}

/// Only types that say how something changed may be given; the others belong to the server.
fn event_type(request: &TriggerUpdateRequest, violations: &mut Violations) -> EventType {
    match EventType::try_from(request.event_type) {
        Ok(EventType::Unspecified) => EventType::Updated,
        Ok(given @ (EventType::Created | EventType::Updated | EventType::Deleted)) => given,
        _ => {
            violations.add("event_type", "must be created, updated or deleted");
            EventType::Updated
        }
    }
}
