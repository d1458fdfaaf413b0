//! Messages from stored entries.

use agentrouter_api::audit as pb;
use agentrouter_rpc::convert::timestamp;

use crate::store::Entry;

/// Outcomes by their names in filters, with what is stored for them.
pub(crate) const OUTCOMES: &[(&str, &str)] =
    &[("AUDIT_OUTCOME_SUCCEEDED", "succeeded"), ("AUDIT_OUTCOME_DENIED", "denied")];

pub(crate) fn entry(entry: Entry, customer_slug: &str) -> pb::AuditEntry {
    let outcome = OUTCOMES
        .iter()
        .find(|(_, stored)| *stored == entry.outcome)
        .and_then(|(name, _)| pb::AuditOutcome::from_str_name(name))
        .unwrap_or_default();
    pb::AuditEntry {
        id: entry.id.to_string(),
        customer_id: customer_slug.to_owned(),
        created_at: Some(timestamp(entry.created_at)),
        actor_kind: entry.actor_kind,
        actor_id: entry.actor_id,
        identity_id: entry.identity_id.map(|id| id.to_string()).unwrap_or_default(),
        action: entry.action,
        target: entry.target,
        outcome: outcome.into(),
        reason: entry.reason,
        request_id: entry.request_id,
        peer: entry.peer,
        count: entry.count,
    }
}
