//! Every column that holds values sealed under a key-encryption key. What is missing here is lost when an old key
//! goes, so a test compares the list with the schema.

use agentrouter_envelope::Aad;
use agentrouter_identity::secrets;
use agentrouter_kernel::id::{Id, Kind};
use agentrouter_rpc::credential::{
    byok_credential_aad, provider_credential_aad, upgrade_credential_aad, webhook_secret_aad,
};
use agentrouter_rpc::write::answer_aad;
use agentrouter_storage::catalog::Cell;
use uuid::Uuid;

/// A column of sealed values.
#[derive(Debug, Clone, Copy)]
pub struct Sealed {
    /// The table.
    pub table: &'static str,
    /// The column. It may be null.
    pub column: &'static str,
    /// The columns that tell what a value belongs to.
    pub binding: &'static [&'static str],
    /// What a value belongs to, by the values of these columns; none where they hold something else than they should.
    pub bound_to: fn(&[Cell]) -> Option<Aad>,
}

/// All of them.
pub const SEALED: &[Sealed] = &[
    Sealed { table: "server_secrets", column: "sealed", binding: &["name"], bound_to: server_secret },
    Sealed {
        table: "credentials",
        column: "sealed",
        binding: &["customer_id", "provider_id", "id"],
        bound_to: provider_credential,
    },
    Sealed {
        table: "byok_credentials",
        column: "sealed",
        binding: &["customer_id", "user_id", "key_address", "id"],
        bound_to: byok_credential,
    },
    Sealed {
        table: "dataplane_upgrade_credentials",
        column: "sealed",
        binding: &["id", "customer_id", "workspace_id", "event_id", "slot"],
        bound_to: upgrade_credential,
    },
    Sealed { table: "webhooks", column: "secret", binding: &["customer_id", "id"], bound_to: webhook_secret },
    Sealed {
        table: "webhooks",
        column: "previous_secret",
        binding: &["customer_id", "id"],
        bound_to: webhook_secret,
    },
    Sealed {
        table: "idempotency_records",
        column: "response",
        binding: &["caller", "method", "idempotency_key"],
        bound_to: kept_answer,
    },
];

fn server_secret(row: &[Cell]) -> Option<Aad> {
    let [Cell::Text(name)] = row else { return None };
    Some(secrets::aad(name))
}

fn provider_credential(row: &[Cell]) -> Option<Aad> {
    let [customer, provider, row] = row else { return None };
    Some(provider_credential_aad(id(customer)?, id(provider)?, id(row)?))
}

fn byok_credential(row: &[Cell]) -> Option<Aad> {
    let [customer, Cell::Text(user), Cell::Text(address), row] = row else { return None };
    Some(byok_credential_aad(id(customer)?, user, address, id(row)?))
}

fn upgrade_credential(row: &[Cell]) -> Option<Aad> {
    let [row, customer, workspace, upgrade, Cell::Text(slot)] = row else { return None };
    Some(upgrade_credential_aad(id(row)?, id(customer)?, id(workspace)?, id(upgrade)?, slot))
}

fn webhook_secret(row: &[Cell]) -> Option<Aad> {
    let [customer, webhook] = row else { return None };
    Some(webhook_secret_aad(id(customer)?, id(webhook)?))
}

fn kept_answer(row: &[Cell]) -> Option<Aad> {
    let [Cell::Text(caller), Cell::Text(method), Cell::Text(key)] = row else { return None };
    Some(answer_aad(caller, method, key))
}

fn id<K: Kind>(cell: &Cell) -> Option<Id<K>> {
    let Cell::Bytes(bytes) = cell else { return None };
    Uuid::from_slice(bytes).ok().map(Id::from_uuid)
}
