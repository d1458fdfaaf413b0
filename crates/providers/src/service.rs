//! What happens to providers and MCP servers, each inside the caller's transaction.

use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_delivery::{Slot, regenerate};
use agentrouter_envelope::Keyring;
use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{self, Customer, Id, NameOrId};
use agentrouter_storage::{Source, Tx};

use crate::credentials::{self, Outcome};
use crate::model::{Change, KeyChange, McpServer, NewProvider, Provider};
use crate::store;

/// A provider of a customer.
///
/// # Errors
/// `PROVIDER_NOT_FOUND`.
pub(crate) async fn find(
    source: impl Source,
    customer: Id<Customer>,
    name: &NameOrId<id::Provider>,
) -> Result<Provider, Fault> {
    store::find(source, customer, name).await?.ok_or_else(|| match name {
        NameOrId::Slug(slug) => Fault::not_found::<id::Provider>(slug),
        NameOrId::Id(id) => Fault::not_found::<id::Provider>(id),
    })
}

/// Creates a provider and delivers it.
///
/// # Errors
/// `PROVIDER_ALREADY_EXISTS`.
pub(crate) async fn create(
    tx: &mut Tx,
    keyring: &Keyring,
    customer: Id<Customer>,
    new: NewProvider,
) -> Result<Provider, Fault> {
    take_turns(tx, customer).await?;
    let now = tx.now().await?;
    let id = Id::new(now);
    if !store::insert(tx, customer, id, &new, now).await? {
        return Err(Fault::already_exists::<id::Provider>(new.slug));
    }
    let key = new.api_key.map_or(KeyChange::Keep, KeyChange::Set);
    let has_api_key = credentials::change(tx, keyring, customer, id, &key).await? == Outcome::Stored;
    deliver_providers(tx, customer, EventType::Created).await?;
    Ok(Provider {
        id,
        slug: new.slug,
        settings: new.settings,
        enabled: new.enabled,
        has_api_key,
        revision: 1,
        created_at: now,
        updated_at: now,
    })
}

/// Changes a provider and delivers the change. An update that changes nothing leaves the etag as it is.
///
/// # Errors
/// `PROVIDER_NOT_FOUND`, `ETAG_MISMATCH`.
pub(crate) async fn update(
    tx: &mut Tx,
    keyring: &Keyring,
    customer: Id<Customer>,
    name: &NameOrId<id::Provider>,
    expected_revision: Option<i64>,
    mut change: Change,
) -> Result<Provider, Fault> {
    take_turns(tx, customer).await?;
    let old = find_expected(tx, customer, name, expected_revision).await?;
    let key = std::mem::replace(&mut change.api_key, KeyChange::Keep);
    let outcome = credentials::change(tx, keyring, customer, old.id, &key).await?;
    let mut new = Provider { settings: old.settings.changed(change), ..old.clone() };
    match outcome {
        Outcome::Unchanged if new == old => return Ok(old),
        Outcome::Unchanged => {}
        Outcome::Stored => new.has_api_key = true,
        Outcome::Removed => new.has_api_key = false,
    }
    write(tx, customer, new).await
}

/// Puts a provider into service or takes it out, and delivers that. It may be so already.
///
/// # Errors
/// `PROVIDER_NOT_FOUND`.
pub(crate) async fn set_enabled(
    tx: &mut Tx,
    customer: Id<Customer>,
    name: &NameOrId<id::Provider>,
    enabled: bool,
) -> Result<Provider, Fault> {
    take_turns(tx, customer).await?;
    let old = find(&mut *tx, customer, name).await?;
    if old.enabled == enabled {
        return Ok(old);
    }
    write(tx, customer, Provider { enabled, ..old }).await
}

/// Deletes a provider with its credential, and delivers that. Returns its row id.
///
/// # Errors
/// `PROVIDER_NOT_FOUND`, `ETAG_MISMATCH`.
pub(crate) async fn delete(
    tx: &mut Tx,
    customer: Id<Customer>,
    name: &NameOrId<id::Provider>,
    expected_revision: Option<i64>,
) -> Result<Id<id::Provider>, Fault> {
    take_turns(tx, customer).await?;
    let old = find_expected(tx, customer, name, expected_revision).await?;
    if !store::delete(tx, customer, &old).await? {
        return Err(Fault::etag_mismatch());
    }
    deliver_providers(tx, customer, EventType::Deleted).await?;
    Ok(old.id)
}

/// An MCP server of a customer.
///
/// # Errors
/// `MCP_SERVER_NOT_FOUND`.
pub(crate) async fn find_mcp_server(
    source: impl Source,
    customer: Id<Customer>,
    server: &str,
) -> Result<McpServer, Fault> {
    store::find_mcp_server(source, customer, server)
        .await?
        .ok_or_else(|| Fault::not_found::<id::McpServer>(server))
}

/// Takes an MCP server out of service and delivers that. It may be out already.
///
/// # Errors
/// `MCP_SERVER_NOT_FOUND`.
pub(crate) async fn disable_mcp_server(
    tx: &mut Tx,
    customer: Id<Customer>,
    server: &str,
) -> Result<McpServer, Fault> {
    if store::disable_mcp_server(tx, customer, server).await? {
        regenerate(tx, &Slot::global(customer, ConfigType::McpCatalog), EventType::Updated).await?;
    }
    find_mcp_server(tx, customer, server).await
}

/// Changes of one customer's providers end up in one slot, so they take turns from the start. What is read after
/// this stays as it is until the transaction ends.
async fn take_turns(tx: &mut Tx, customer: Id<Customer>) -> Result<(), Fault> {
    Ok(tx.lock(&format!("providers:{customer}")).await?)
}

async fn find_expected(
    tx: &mut Tx,
    customer: Id<Customer>,
    name: &NameOrId<id::Provider>,
    expected_revision: Option<i64>,
) -> Result<Provider, Fault> {
    let found = find(tx, customer, name).await?;
    if expected_revision.is_some_and(|expected| expected != found.revision) {
        return Err(Fault::etag_mismatch());
    }
    Ok(found)
}

async fn write(tx: &mut Tx, customer: Id<Customer>, changed: Provider) -> Result<Provider, Fault> {
    let updated_at = tx.now().await?;
    let next = Provider { revision: changed.revision + 1, updated_at, ..changed };
    if !store::update(tx, customer, &next).await? {
        return Err(Fault::etag_mismatch());
    }
    deliver_providers(tx, customer, EventType::Updated).await?;
    Ok(next)
}

async fn deliver_providers(tx: &mut Tx, customer: Id<Customer>, event_type: EventType) -> Result<(), Fault> {
    regenerate(tx, &Slot::global(customer, ConfigType::Providers), event_type).await
}
