//! Mutations: one transaction that holds the change, its audit entry and its idempotency record.

use std::sync::Arc;

use agentrouter_envelope::{Aad, Keyring};
use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{Customer, Id};
use agentrouter_kernel::page::PageKey;
use agentrouter_storage::idempotency::{self, IdempotencyKey};
use agentrouter_storage::{AuditEntry, Db, Tx};
use aws_lc_rs::digest;
use prost::Message;

use crate::call::Call;

/// What every service is made from.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The database.
    pub db: Db,
    /// The keys that stored secrets are sealed under.
    pub keyring: Arc<Keyring>,
    /// The key that authenticates page tokens.
    pub page_key: Arc<PageKey>,
}

/// A mutation under way.
///
/// Begin one, answer with [`Write::replay`] where the call is a repeat, change rows through [`Write::tx`], and
/// end with [`Write::commit`]. Dropping it changes nothing.
#[derive(Debug)]
pub struct Write {
    tx: Tx,
    call: Call,
    keyring: Arc<Keyring>,
    key: Option<IdempotencyKey>,
    replay: Option<Vec<u8>>,
}

const IDEMPOTENCY_KEY_MAX: usize = 255;

impl Write {
    /// Begins the mutation that a request asks for.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for an unusable idempotency key, ABORTED `IDEMPOTENCY_KEY_REUSED` where it came with
    /// another request before.
    pub async fn begin<M: Message>(deps: &Deps, call: &Call, request: &M) -> Result<Self, Fault> {
        let principal = call.principal()?;
        let key = match &call.idempotency_key {
            Some(key) if key.is_empty() || key.len() > IDEMPOTENCY_KEY_MAX => {
                return Err(Fault::invalid_field("idempotency-key", "must have 1 to 255 characters"));
            }
            Some(key) => Some(IdempotencyKey {
                caller: format!("{}:{}", principal.credential.as_str(), principal.credential_id),
                method: call.method.clone(),
                key: key.clone(),
                request_hash: hash(call, request),
            }),
            None => None,
        };
        let mut tx = deps.db.begin().await?;
        let mut replay = None;
        if let Some(key) = &key {
            // Two calls with the same key take turns, so that the second one finds the first one's answer.
            tx.lock(&format!("idempotency:{}:{}:{}", key.caller, key.method, key.key)).await?;
            let now = tx.now().await?;
            replay = idempotency::find(&mut tx, key, now).await?;
        }
        Ok(Self { tx, call: call.clone(), keyring: Arc::clone(&deps.keyring), key, replay })
    }

    /// The answer of the earlier call that this one repeats.
    pub fn replay<M: Message + Default>(&self) -> Result<Option<M>, Fault> {
        let (Some(sealed), Some(key)) = (&self.replay, &self.key) else { return Ok(None) };
        let plain = self.keyring.open(&answer_aad(&key.caller, &key.method, &key.key), sealed)?;
        M::decode(plain.expose()).map(Some).map_err(Fault::internal)
    }

    /// The transaction.
    pub fn tx(&mut self) -> &mut Tx {
        &mut self.tx
    }

    /// Commits the change with its audit entry and returns the answer. `target` is the row id of what was
    /// changed; answers are kept sealed, because some of them hold a secret.
    pub async fn commit<M: Message>(
        mut self,
        customer: Id<Customer>,
        target: impl ToString,
        answer: M,
    ) -> Result<M, Fault> {
        if let Some(key) = &self.key {
            let sealed = self
                .keyring
                .seal(&answer_aad(&key.caller, &key.method, &key.key), &answer.encode_to_vec())?;
            idempotency::keep(&mut self.tx, key, customer, sealed).await?;
        }
        let entry = AuditEntry {
            customer,
            action: self.call.action.clone(),
            target: target.to_string(),
            origin: self.call.origin.clone(),
        };
        let principal = self.call.principal()?;
        self.tx.commit(principal, entry).await?;
        Ok(answer)
    }
}

fn hash<M: Message>(call: &Call, request: &M) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    // The customer header selects rows as much as a field does.
    context.update(call.customer_header.as_deref().unwrap_or_default().as_bytes());
    context.update(&[0]);
    context.update(&request.encode_to_vec());
    context.finish().as_ref().to_vec()
}

/// What the kept answer of a write is bound to.
pub fn answer_aad(caller: &str, method: &str, key: &str) -> Aad {
    Aad::new("idempotency").with(caller).with(method).with(key)
}
