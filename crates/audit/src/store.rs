//! The statements over audit entries.

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::filter::{Field, FieldKind};
use agentrouter_kernel::id::{self, Id};
use agentrouter_rpc::ListSpec;

use crate::convert::OUTCOMES;

agentrouter_storage::row! {
    /// An audit entry.
    #[derive(Debug)]
    pub(crate) struct Entry {
        /// Row id.
        pub(crate) id: Id<id::Audit>,
        /// When it happened.
        pub(crate) created_at: Timestamp,
        /// Kind of credential.
        pub(crate) actor_kind: String,
        /// Row id of the key, or JWT id of the token.
        pub(crate) actor_id: String,
        /// Identity behind the credential.
        pub(crate) identity_id: Option<Id<id::Identity>>,
        /// What was done.
        pub(crate) action: String,
        /// Row id of what it was done to.
        pub(crate) target: String,
        /// How it ended.
        pub(crate) outcome: String,
        /// Reason of a refusal.
        pub(crate) reason: String,
        /// Id of the request.
        pub(crate) request_id: String,
        /// Network address of the caller.
        pub(crate) peer: String,
        /// How many times it happened.
        pub(crate) count: i64,
    }
}

/// The entries of a customer, newest first. `$1`: the customer.
pub(crate) const ENTRIES: ListSpec = ListSpec {
    select: "SELECT id, created_at, actor_kind, actor_id, identity_id, action, target, outcome, reason, \
             request_id, peer, count FROM audit_entries WHERE customer_id = $1",
    fields: &[
        Field { name: "action", column: "action", kind: FieldKind::Text, sortable: false },
        Field { name: "actor_kind", column: "actor_kind", kind: FieldKind::Text, sortable: false },
        Field { name: "actor_id", column: "actor_id", kind: FieldKind::Text, sortable: false },
        Field { name: "target", column: "target", kind: FieldKind::Text, sortable: false },
        Field { name: "outcome", column: "outcome", kind: FieldKind::Enum(OUTCOMES), sortable: false },
        Field { name: "request_id", column: "request_id", kind: FieldKind::Text, sortable: false },
        Field { name: "created_at", column: "created_at", kind: FieldKind::Time, sortable: true },
    ],
    default_order: "created_at desc",
    id_column: "id",
};
