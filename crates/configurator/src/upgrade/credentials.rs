//! Registry logins on their way to a data plane: sealed when they come, opened for the worker they are for, and deleted
//! as soon as it has them.

use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_delivery::upgrade::{self, Phase, UpgradeRow};
use agentrouter_kernel::id::{Credential, Id};
use agentrouter_kernel::{Fault, Timestamp, Violations};
use agentrouter_rpc::credential::upgrade_credential_aad;
use agentrouter_rpc::{Call, Deps, Write};
use agentrouter_storage::{AuditEntry, StorageError, Tx, query, row};

use super::convert::{self, Login};
use super::service::{find, mismatch};

/// How long logins wait for the worker.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// Stores the logins that an upgrade is parked for, in the place of earlier ones.
///
/// # Errors
/// `UPGRADE_NOT_FOUND`; `UPGRADE_PHASE_MISMATCH` where it waits for none; INVALID_ARGUMENT where the slots are not the
/// required ones.
pub(crate) async fn submit(
    deps: &Deps,
    call: &Call,
    request: pb::SubmitDataplaneUpgradeCredentialsRequest,
) -> Result<pb::SubmitDataplaneUpgradeCredentialsResponse, Fault> {
    let mut violations = Violations::new();
    let id = violations.id("upgrade_event_id", &request.upgrade_event_id);
    let logins = convert::logins(&request.credentials, &mut violations);
    violations.finish()?;
    let id = id.ok_or_else(|| Fault::internal("an id was refused without a violation"))?;
    let customer = call.own_customer(&deps.db).await?;
    let mut write = Write::begin(deps, call, &request).await?;
    if let Some(answer) = write.replay()? {
        return Ok(answer);
    }
    let tx = write.tx();
    let found = find(&mut *tx, customer.id, None, id).await?;
    let upgrade = upgrade::hold(tx, &found).await?.upgrade;
    if upgrade.phase != Phase::NeedsCredentials {
        return Err(mismatch(&upgrade, "does not wait for credentials"));
    }
    check_slots(&upgrade, &logins)?;
    upgrade::forget_credentials(tx, upgrade.event_id).await?;
    let row = Id::<Credential>::new(tx.now().await?);
    for login in &logins {
        let aad = upgrade_credential_aad(
            row,
            upgrade.customer_id,
            upgrade.workspace_id,
            upgrade.event_id,
            &login.slot,
        );
        let sealed = deps.keyring.seal(&aad, login.secret.expose())?;
        insert(tx, row, &upgrade, &login.slot, sealed, request.persist_in_cluster).await?;
    }
    // A worker that holds a poll open asks for them at once.
    tx.announce(upgrade.customer_id);
    let answer =
        pb::SubmitDataplaneUpgradeCredentialsResponse { credentials_id: row.to_string(), success: true };
    write.commit(customer.id, row, answer).await
}

/// Checks that there is a login for each slot that the upgrade waits for, and for no other.
fn check_slots(upgrade: &UpgradeRow, logins: &[Login]) -> Result<(), Fault> {
    let required = upgrade.required_slots()?;
    let mut violations = Violations::new();
    for (index, login) in logins.iter().enumerate() {
        violations.require(
            required.contains(&login.slot),
            &format!("credentials[{index}].slot"),
            "is not a slot that the upgrade waits for",
        );
    }
    for slot in required.iter().filter(|slot| !logins.iter().any(|login| login.slot == **slot)) {
        violations.add("credentials", format!("has no entry for the slot {slot:?}"));
    }
    violations.finish()
}

async fn insert(
    tx: &mut Tx,
    row: Id<Credential>,
    upgrade: &UpgradeRow,
    slot: &str,
    sealed: Vec<u8>,
    persist_in_cluster: bool,
) -> Result<(), StorageError> {
    const INSERT: &str = "INSERT INTO dataplane_upgrade_credentials \
         (id, slot, customer_id, workspace_id, event_id, sealed, persist_in_cluster, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let now: Timestamp = tx.now().await?;
    query(INSERT)
        .bind(row)
        .bind(slot)
        .bind(upgrade.customer_id)
        .bind(upgrade.workspace_id)
        .bind(upgrade.event_id)
        .bind(sealed)
        .bind(persist_in_cluster)
        .bind(now)
        .bind(now.plus(KEPT_FOR))
        .execute(tx)
        .await?;
    Ok(())
}

row! {
    struct SealedLogin {
        id: Id<Credential>,
        slot: String,
        sealed: Vec<u8>,
        persist_in_cluster: bool,
    }
}

/// The logins of an upgrade for its worker; none where nobody submitted any, or it has them already. Disclosing them
/// leaves an audit entry, and nothing that would outlive them: the answer is not kept for repeats of the call.
///
/// # Errors
/// `WORKSPACE_CLAIM_REQUIRED`, `UPGRADE_NOT_FOUND`.
pub(crate) async fn fetch(
    deps: &Deps,
    call: &Call,
    request: pb::FetchDataplaneUpgradeCredentialsRequest,
) -> Result<pb::FetchDataplaneUpgradeCredentialsResponse, Fault> {
    const SEALED: &str = "SELECT id, slot, sealed, persist_in_cluster FROM dataplane_upgrade_credentials \
         WHERE event_id = $1 AND customer_id = $2 AND workspace_id = $3 AND expires_at > :now ORDER BY slot";
    let id = convert::upgrade_id("event_id", &request.event_id)?;
    let customer = call.own_customer(&deps.db).await?.id;
    let (workspace, _) = call.principal()?.workspace_claim()?;
    let upgrade = find(&deps.db, customer, Some(workspace), id).await?;
    let rows: Vec<SealedLogin> =
        query(SEALED).bind(upgrade.event_id).bind(customer).bind(workspace).all(&deps.db).await?;
    let mut answer = pb::FetchDataplaneUpgradeCredentialsResponse::default();
    for row in &rows {
        let aad = upgrade_credential_aad(row.id, customer, workspace, upgrade.event_id, &row.slot);
        answer.credentials.push(convert::login(&deps.keyring.open(&aad, &row.sealed)?)?);
        answer.persist_in_cluster = row.persist_in_cluster;
    }
    if !rows.is_empty() {
        let entry = AuditEntry {
            customer,
            action: call.action.clone(),
            target: upgrade.event_id.to_string(),
            origin: call.origin.clone(),
        };
        deps.db.begin().await?.commit(call.principal()?, entry).await?;
    }
    Ok(answer)
}

/// Deletes the logins of an upgrade: its worker has them. Doing so again changes nothing.
///
/// # Errors
/// `WORKSPACE_CLAIM_REQUIRED`, `UPGRADE_NOT_FOUND`.
pub(crate) async fn ack(
    deps: &Deps,
    call: &Call,
    request: pb::AckDataplaneUpgradeCredentialsRequest,
) -> Result<pb::AckDataplaneUpgradeCredentialsResponse, Fault> {
    let id = convert::upgrade_id("event_id", &request.event_id)?;
    let customer = call.own_customer(&deps.db).await?.id;
    let (workspace, _) = call.principal()?.workspace_claim()?;
    let mut write = Write::begin(deps, call, &request).await?;
    if let Some(answer) = write.replay()? {
        return Ok(answer);
    }
    let found = find(&mut *write.tx(), customer, Some(workspace), id).await?;
    upgrade::forget_credentials(write.tx(), found.event_id).await?;
    write.commit(customer, found.event_id, pb::AckDataplaneUpgradeCredentialsResponse {}).await
}

/// Deletes up to `limit` logins that nobody fetched in time; returns how many.
pub async fn sweep(tx: &mut Tx, limit: i64) -> Result<u64, StorageError> {
    const SWEEP: &str = "DELETE FROM dataplane_upgrade_credentials WHERE (id, slot) IN (\
         SELECT id, slot FROM dataplane_upgrade_credentials WHERE expires_at <= :now LIMIT $1)";
    query(SWEEP).bind(limit).execute(tx).await
}
