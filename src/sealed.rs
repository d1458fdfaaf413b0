//! Every column that holds values sealed under a key-encryption key. What is missing here is lost when an old key
//! goes, so a test compares the list with the schema.

use agentrouter_envelope::Aad;
use agentrouter_identity::secrets;
use agentrouter_kernel::id::Id;
use agentrouter_rpc::credential::provider_credential_aad;
use agentrouter_rpc::write::answer_aad;
use agentrouter_storage::catalog::Cell;
use uuid::Uuid;

/// A column of sealed values.
#[derive(Debug, Clone, Copy)]
pub struct Sealed {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// What values of the first format, whose data key is bound to the row, belong to: the columns that tell, and how
    /// they do. Columns that came later have no such values.
    pub first_format: Option<FirstFormat>,
}

/// The binding of values in the first format.
#[derive(Debug, Clone, Copy)]
pub struct FirstFormat {
    /// The columns that tell what a value belongs to.
    pub columns: &'static [&'static str],
    /// What it belongs to, by the values of these columns.
    pub bound_to: fn(&[Cell]) -> Option<Aad>,
}

/// All of them.
pub const SEALED: &[Sealed] = &[
    Sealed {
        table: "server_secrets",
        column: "sealed",
        first_format: Some(FirstFormat { columns: &["name"], bound_to: server_secret }),
    },
    Sealed {
        table: "credentials",
        column: "sealed",
        first_format: Some(FirstFormat {
            columns: &["customer_id", "provider_id", "id"],
            bound_to: provider_credential,
        }),
    },
    Sealed {
        table: "idempotency_records",
        column: "response",
        first_format: Some(FirstFormat {
            columns: &["caller", "method", "idempotency_key"],
            bound_to: kept_answer,
        }),
    },
];

fn server_secret(row: &[Cell]) -> Option<Aad> {
    let [Cell::Text(name)] = row else { return None };
    Some(secrets::aad(name))
}

fn provider_credential(row: &[Cell]) -> Option<Aad> {
    let [Cell::Bytes(customer), Cell::Bytes(provider), Cell::Bytes(credential)] = row else { return None };
    let uuid = |bytes: &[u8]| Uuid::from_slice(bytes).ok();
    Some(provider_credential_aad(
        Id::from_uuid(uuid(customer)?),
        Id::from_uuid(uuid(provider)?),
        Id::from_uuid(uuid(credential)?),
    ))
}

fn kept_answer(row: &[Cell]) -> Option<Aad> {
    let [Cell::Text(caller), Cell::Text(method), Cell::Text(key)] = row else { return None };
    Some(answer_aad(caller, method, key))
}
