//! Rollbacks: the content of an older version comes back as a new one.
//!
//! A rollback stands until the source of the slot changes. What the source gives at that moment is remembered by its
//! checksum: regenerating the slot keeps what was brought back as long as the source gives the same, whether that is
//! asked for by a trigger, a sweep or a change of something else. Given content has no source, and is simply replaced
//! by whoever gives it next.

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_kernel::id::{self, Configuration, Customer, Id};
use agentrouter_kernel::{Fault, FaultKind};
use agentrouter_storage::{StorageError, Tx, query, row};
use prost::Message;

use crate::generate::{self, Origin};
use crate::names::config_type_from_name;
use crate::slot::Slot;
use crate::version::{
    Audience, CONFIGURATION_COLUMNS, ConfigurationRow, Content, deliver_private, lock_sequence, narrowed,
    store,
};

row! {
    struct KeptVersion {
        deleted: bool,
        content: Vec<u8>,
    }
}

/// Brings the content of a version back, and delivers it. Credentials are those of today: their old values are not
/// kept. Where the content is what the slot holds already, nothing changes.
///
/// # Errors
/// `CONFIGURATION_NOT_FOUND`, `VERSION_NOT_FOUND`; FAILED_PRECONDITION `ROLLBACK_NOT_ALLOWED` for lists of who is let
/// in, `CONFIGURATION_DELETED` for and to a tombstone, `CREDENTIAL_GONE` where the content needs a credential that is
/// gone.
pub async fn roll_back(
    tx: &mut Tx,
    customer: Id<Customer>,
    configuration: Id<Configuration>,
    version: i64,
) -> Result<ConfigurationRow, Fault> {
    const VERSION: &str = "SELECT deleted, content FROM liaison_configuration_versions \
         WHERE configuration_id = $1 AND customer_id = $2 AND version = $3";
    lock_sequence(tx, customer).await?;
    let newest = by_id(tx, customer, configuration).await?;
    let slot = slot_of(&newest)?;
    if matches!(slot.config_type, ConfigType::RevokedTokens | ConfigType::UserKeys) {
        return Err(Fault::precondition(
            "ROLLBACK_NOT_ALLOWED",
            "lists of keys and revoked tokens are not rolled back: it would let in again who was shut out",
        ));
    }
    let kept: Option<KeptVersion> =
        query(VERSION).bind(configuration).bind(customer).bind(version).optional(&mut *tx).await?;
    let kept = kept.ok_or_else(|| version_not_found(version))?;
    if newest.deleted || kept.deleted {
        return Err(Fault::precondition(
            "CONFIGURATION_DELETED",
            "a deleted configuration is not rolled back, nor is one rolled back to its deletion",
        ));
    }
    let mut payload = pb::Configuration::decode(kept.content.as_slice()).map_err(Fault::internal)?.payload;
    if let Some(payload) = &mut payload {
        refresh_credentials(tx, customer, payload).await?;
    }
    let mut content = Content::of(payload);
    content.restored_version = version;
    if let Origin::Content(payload) = generate::source(tx, &slot).await? {
        let source = Content::of(Some(payload));
        if source.checksum != content.checksum {
            content.source_checksum = source.checksum;
        }
    }
    let audience = narrowed(tx, &slot, &Audience::Everyone).await?;
    let (row, updated) = store(tx, &slot, content, EventType::RolledBack, &audience).await?;
    if updated {
        deliver_private(tx, &row, &audience, EventType::RolledBack).await?;
    }
    Ok(row)
}

/// A configuration of a customer by its row id.
///
/// # Errors
/// `CONFIGURATION_NOT_FOUND`.
pub async fn by_id(
    tx: &mut Tx,
    customer: Id<Customer>,
    configuration: Id<Configuration>,
) -> Result<ConfigurationRow, Fault> {
    let sql = format!(
        "SELECT {CONFIGURATION_COLUMNS} FROM liaison_configurations WHERE id = $1 AND customer_id = $2"
    );
    let found = query(sql).bind(configuration).bind(customer).optional(tx).await?;
    found.ok_or_else(|| Fault::not_found::<Configuration>(configuration))
}

/// NOT_FOUND for a version that never was or is not kept any more.
pub fn version_not_found(version: i64) -> Fault {
    Fault::new(
        FaultKind::NotFound,
        "VERSION_NOT_FOUND",
        format!("version {version} does not exist, or is not kept any more"),
    )
}

fn slot_of(row: &ConfigurationRow) -> Result<Slot, StorageError> {
    let config_type = config_type_from_name(&row.config_type)
        .ok_or_else(|| StorageError::Corrupt(format!("config type {}", row.config_type)))?;
    Ok(Slot::per_key(row.customer_id, &row.user_id, config_type, &row.key_id))
}

/// Gives every credential in a payload the version that is stored now.
async fn refresh_credentials(
    tx: &mut Tx,
    customer: Id<Customer>,
    payload: &mut Payload,
) -> Result<(), Fault> {
    const OF_PROVIDERS: &str = "SELECT version AS value FROM credentials WHERE customer_id = $1 AND id = $2";
    const OF_USERS: &str = "SELECT version AS value FROM byok_credentials WHERE customer_id = $1 AND id = $2";
    let (statement, credentials): (_, Vec<&mut pb::Credential>) = match payload {
        Payload::Providers(payload) => {
            (OF_PROVIDERS, payload.providers.iter_mut().filter_map(|one| one.credential.as_mut()).collect())
        }
        Payload::Byok(payload) => {
            (OF_USERS, payload.backends.iter_mut().filter_map(|one| one.credential.as_mut()).collect())
        }
        _ => return Ok(()),
    };
    for credential in credentials {
        let id = Id::<id::Credential>::parse(&credential.id)
            .ok_or_else(|| StorageError::Corrupt("a credential without an id".to_owned()))?;
        let version: Option<i64> = query(statement).bind(customer).bind(id).value(&mut *tx).await?;
        credential.version = version.ok_or_else(|| {
            Fault::precondition(
                "CREDENTIAL_GONE",
                format!("this version needs the credential {id}, which is gone"),
            )
        })?;
    }
    Ok(())
}
