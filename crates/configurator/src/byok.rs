//! SaveBYOKBackends and DeleteBYOKBackends: the backends behind a user's own provider keys, one slot per key.
//!
//! The backends are the slot's content. A key that is kept here is stored sealed beside it; the content names it by id
//! and version.

use std::collections::{HashMap, HashSet};

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_delivery::{SYSTEM_USER, Slot, canonical_user, delete_slots, hold_user, put};
use agentrouter_envelope::{Aad, Keyring};
use agentrouter_kernel::id::{Credential, Customer, Id};
use agentrouter_kernel::{Fault, Violations};
use agentrouter_rpc::credential::byok_credential_aad;
use agentrouter_rpc::{Call, Deps, Write};
use agentrouter_storage::{StorageError, Tx, query, row};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroize;

use crate::reveal::Sealed;

const NAME_MAX: usize = 255;
const BACKENDS_MAX: usize = 100;
const MODELS_MAX: usize = 1000;
/// Service account keys are whole documents.
const VALUE_MAX: usize = 16_384;
const SCHEMAS: [&str; 6] = ["openai", "anthropic", "azure_openai", "aws_bedrock", "gcp_vertex_ai", "cohere"];

/// A request with users' keys in it. They are wiped with it, whichever way the call ends.
struct Wiped(pb::SaveByokBackendsRequest);

impl Drop for Wiped {
    fn drop(&mut self) {
        for credential in self.0.backends.iter_mut().filter_map(|backend| backend.credential.as_mut()) {
            credential.value.zeroize();
        }
    }
}

/// Replaces the backends behind one key of a user, and delivers them.
pub(crate) async fn save(
    deps: &Deps,
    call: &Call,
    request: pb::SaveByokBackendsRequest,
) -> Result<pb::SaveByokBackendsResponse, Fault> {
    let request = Wiped(request);
    let message = &request.0;
    check(message)?;
    let customer = call.own_customer(&deps.db).await?;
    let mut write = Write::begin(deps, call, message).await?;
    if let Some(answer) = write.replay()? {
        return Ok(answer);
    }
    let tx = write.tx();
    let user_id = hold_user(tx, customer.id, &message.user_id).await?;
    take_turns(tx, customer.id, &user_id).await?;
    let owner = Owner { customer: customer.id, user_id: &user_id, key_address: &message.key_address };
    let backends = store_credentials(tx, &deps.keyring, owner, &message.backends).await?;
    let slot = Slot::per_key(customer.id, &user_id, ConfigType::Byok, &message.key_address);
    let payload = Payload::Byok(pb::ByokPayload { backends });
    let (configuration, updated) = put(tx, &slot, payload, EventType::Updated).await?;
    let target = configuration.id;
    let configuration = Some(configuration.to_proto(&customer.slug)?);
    write.commit(customer.id, target, pb::SaveByokBackendsResponse { configuration, updated }).await
}

/// Deletes the backends behind all keys of a user, and delivers that.
pub(crate) async fn delete(
    deps: &Deps,
    call: &Call,
    request: pb::DeleteByokBackendsRequest,
) -> Result<pb::DeleteByokBackendsResponse, Fault> {
    const DELETE: &str = "DELETE FROM byok_credentials WHERE customer_id = $1 AND user_id = $2";
    let mut violations = Violations::new();
    check_user(&mut violations, &request.user_id);
    violations.finish()?;
    let customer = call.own_customer(&deps.db).await?;
    let mut write = Write::begin(deps, call, &request).await?;
    if let Some(answer) = write.replay()? {
        return Ok(answer);
    }
    let user_id = canonical_user(&request.user_id);
    let tx = write.tx();
    take_turns(tx, customer.id, &user_id).await?;
    query(DELETE).bind(customer.id).bind(&user_id).execute(&mut *tx).await?;
    let deleted = delete_slots(tx, customer.id, &user_id, Some(ConfigType::Byok)).await? > 0;
    write.commit(customer.id, user_id, pb::DeleteByokBackendsResponse { deleted }).await
}

fn check_user(violations: &mut Violations, user_id: &str) {
    violations.require(!user_id.is_empty(), "user_id", "is required");
    violations.require(user_id != SYSTEM_USER, "user_id", "must be a user");
    violations.text("user_id", user_id, NAME_MAX);
}

fn check(request: &pb::SaveByokBackendsRequest) -> Result<(), Fault> {
    let mut violations = Violations::new();
    check_user(&mut violations, &request.user_id);
    violations.require(!request.key_address.is_empty(), "key_address", "is required");
    violations.text("key_address", &request.key_address, NAME_MAX);
    violations.require(request.backends.len() <= BACKENDS_MAX, "backends", "must have at most 100 entries");
    let mut names = HashSet::new();
    for (index, backend) in request.backends.iter().take(BACKENDS_MAX).enumerate() {
        let field = |name: &str| format!("backends[{index}].{name}");
        violations.require(!backend.name.is_empty(), &field("name"), "is required");
        violations.text(&field("name"), &backend.name, NAME_MAX);
        if !backend.name.is_empty() {
            violations.require(names.insert(&backend.name), &field("name"), "is used twice");
        }
        violations.require(
            SCHEMAS.contains(&backend.schema.as_str()),
            &field("schema"),
            "must be openai, anthropic, azure_openai, aws_bedrock, gcp_vertex_ai or cohere",
        );
        violations.http_url(&field("base_url"), &backend.base_url);
        check_models(&mut violations, &field("models"), &backend.models);
        violations.text(&field("authentication"), &backend.authentication, NAME_MAX);
        violations.text(&field("secret_ref"), &backend.secret_ref, NAME_MAX);
        if let Some(credential) = &backend.credential {
            // What is wrong with a key is said without quoting it.
            let is_blank = !credential.value.is_empty() && credential.value.trim().is_empty();
            violations.require(!is_blank, &field("credential.value"), "must not be blank");
            violations.text(&field("credential.value"), &credential.value, VALUE_MAX);
        }
    }
    violations.finish()
}

fn check_models(violations: &mut Violations, field: &str, models: &[String]) {
    violations.require(models.len() <= MODELS_MAX, field, "must have at most 1000 entries");
    let mut seen = HashSet::new();
    for (index, model) in models.iter().take(MODELS_MAX).enumerate() {
        let field = format!("{field}[{index}]");
        violations.require(!model.is_empty(), &field, "must not be empty");
        violations.require(seen.insert(model), &field, "is listed twice");
        violations.text(&field, model, NAME_MAX);
    }
}

/// Saves and deletions of one user follow each other.
async fn take_turns(tx: &mut Tx, customer: Id<Customer>, user_id: &str) -> Result<(), StorageError> {
    tx.lock(&format!("byok:{customer}:{user_id}")).await
}

/// Whose keys they are.
#[derive(Clone, Copy)]
struct Owner<'a> {
    customer: Id<Customer>,
    user_id: &'a str,
    key_address: &'a str,
}

impl Owner<'_> {
    fn aad(self, id: Id<Credential>) -> Aad {
        byok_credential_aad(self.customer, self.user_id, self.key_address, id)
    }
}

row! {
    struct CredentialRow {
        id: Id<Credential>,
        backend: String,
        version: i64,
        sealed: Vec<u8>,
    }
}

const STORED: &str = "SELECT id, backend, version, sealed FROM byok_credentials \
     WHERE customer_id = $1 AND user_id = $2 AND key_address = $3";

/// Stores the keys of backends and removes those of backends that have none any more. Returns the backends as the
/// content has them, with the ids and versions of keys in the place of values.
async fn store_credentials(
    tx: &mut Tx,
    keyring: &Keyring,
    owner: Owner<'_>,
    backends: &[pb::ByokBackend],
) -> Result<Vec<pb::ByokBackend>, Fault> {
    const DELETE: &str = "DELETE FROM byok_credentials WHERE id = $1 AND customer_id = $2";
    let stored = query(STORED).bind(owner.customer).bind(owner.user_id).bind(owner.key_address);
    let stored: Vec<CredentialRow> = stored.all(&mut *tx).await?;
    let mut stored: HashMap<String, CredentialRow> =
        stored.into_iter().map(|row| (row.backend.clone(), row)).collect();
    let mut violations = Violations::new();
    let mut content = Vec::with_capacity(backends.len());
    for (index, backend) in backends.iter().enumerate() {
        let credential = match &backend.credential {
            None => None,
            Some(credential) => {
                let old = stored.remove(&backend.name);
                if credential.value.is_empty() && old.is_none() {
                    let field = format!("backends[{index}].credential.value");
                    violations.add(field, "is required: no key is stored for this backend");
                    continue;
                }
                Some(store_credential(tx, keyring, owner, &backend.name, old, &credential.value).await?)
            }
        };
        content.push(pb::ByokBackend {
            name: backend.name.clone(),
            schema: backend.schema.clone(),
            base_url: backend.base_url.clone(),
            models: backend.models.clone(),
            authentication: backend.authentication.clone(),
            secret_ref: backend.secret_ref.clone(),
            credential,
        });
    }
    violations.finish()?;
    for removed in stored.values() {
        query(DELETE).bind(removed.id).bind(owner.customer).execute(&mut *tx).await?;
    }
    Ok(content)
}

/// Stores one key. No value, or the same one again, keeps the stored version: data planes would be told for nothing.
async fn store_credential(
    tx: &mut Tx,
    keyring: &Keyring,
    owner: Owner<'_>,
    backend: &str,
    old: Option<CredentialRow>,
    value: &str,
) -> Result<pb::Credential, Fault> {
    const INSERT: &str = "INSERT INTO byok_credentials (id, customer_id, user_id, key_address, backend, version, sealed, \
         created_at, updated_at) VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $7)";
    const ROTATE: &str = "UPDATE byok_credentials SET version = $3, sealed = $4, updated_at = $5 \
         WHERE id = $1 AND customer_id = $2";
    let named =
        |id: Id<Credential>, version| pb::Credential { id: id.to_string(), version, value: String::new() };
    let now = tx.now().await?;
    let Some(old) = old else {
        let id = Id::new(now);
        let sealed = keyring.seal(&owner.aad(id), value.as_bytes())?;
        query(INSERT)
            .bind(id)
            .bind(owner.customer)
            .bind(owner.user_id)
            .bind(owner.key_address)
            .bind(backend)
            .bind(sealed)
            .bind(now)
            .execute(tx)
            .await?;
        return Ok(named(id, 1));
    };
    // A value that cannot be opened is no use to anyone, and replacing it is the way out.
    let is_same = keyring
        .open(&owner.aad(old.id), &old.sealed)
        .is_ok_and(|plain| verify_slices_are_equal(plain.expose(), value.as_bytes()).is_ok());
    if value.is_empty() || is_same {
        return Ok(named(old.id, old.version));
    }
    let sealed = keyring.seal(&owner.aad(old.id), value.as_bytes())?;
    let version = old.version + 1;
    query(ROTATE).bind(old.id).bind(owner.customer).bind(version).bind(sealed).bind(now).execute(tx).await?;
    Ok(named(old.id, version))
}

/// The sealed keys behind one key of a user, by their row ids.
pub(crate) async fn sealed(
    deps: &Deps,
    customer: Id<Customer>,
    user_id: &str,
    key_address: &str,
) -> Result<HashMap<String, Sealed>, Fault> {
    let owner = Owner { customer, user_id, key_address };
    let rows: Vec<CredentialRow> =
        query(STORED).bind(customer).bind(user_id).bind(key_address).all(&deps.db).await?;
    let sealed = |row: CredentialRow| {
        let aad = owner.aad(row.id);
        (row.id.to_string(), Sealed { version: row.version, bytes: row.sealed, aad })
    };
    Ok(rows.into_iter().map(sealed).collect())
}
