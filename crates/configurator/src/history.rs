//! Versions of configurations: listing, comparing and bringing them back.

use agentrouter_api::common::PageRequest;
use agentrouter_api::configurator as pb;
use agentrouter_delivery::rollback::{roll_back, version_not_found};
use agentrouter_delivery::version::ConfigurationRow;
use agentrouter_kernel::filter::{Field, FieldKind};
use agentrouter_kernel::id::{Configuration, Customer, Id};
use agentrouter_kernel::{Fault, Violations};
use agentrouter_rpc::list::ListSpec;
use agentrouter_rpc::{Call, Deps, Write};
use agentrouter_storage::query;

use crate::diff;

/// A version in the shape of a configuration.
macro_rules! select_versions {
    ($condition:literal) => {
        concat!(
            "SELECT c.id, c.customer_id, c.user_id, c.config_type, c.key_id, v.version, v.checksum, v.deleted, v.content, ",
            "v.position, c.broadcast_position, c.created_at, v.created_at AS updated_at, v.restored_version ",
            "FROM liaison_configuration_versions v JOIN liaison_configurations c ON c.id = v.configuration_id ",
            "WHERE c.id = $1 AND c.customer_id = $2",
            $condition
        )
    };
}

const VERSIONS: ListSpec = ListSpec {
    select: select_versions!(""),
    // Versions are integers, and so are times.
    fields: &[Field { name: "version", column: "v.version", kind: FieldKind::Time, sortable: true }],
    default_order: "version desc",
    id_column: "c.id",
};

/// A page of the kept versions, newest first.
pub(crate) async fn list(
    deps: &Deps,
    call: &Call,
    request: pb::ListConfigurationVersionsRequest,
) -> Result<pb::ListConfigurationVersionsResponse, Fault> {
    let mut violations = Violations::new();
    let id = violations.id::<Configuration>("configuration_id", &request.configuration_id);
    violations.require(request.page_size >= 0, "page_size", "must not be negative");
    violations.finish()?;
    let id = id.ok_or_else(|| Fault::internal("an id was refused without a violation"))?;
    let customer = call.own_customer(&deps.db).await?;
    exists(deps, customer.id, id).await?;
    let page = PageRequest {
        page_size: request.page_size,
        page_token: request.page_token,
        ..PageRequest::default()
    };
    let listing = call.list(&VERSIONS, Some(page)).flat().bind(id).bind(customer.id);
    let (rows, page) = listing.fetch::<ConfigurationRow>(deps).await?;
    let versions = rows.iter().map(|row| row.to_proto(&customer.slug)).collect::<Result<_, _>>()?;
    Ok(pb::ListConfigurationVersionsResponse { versions, next_page_token: page.next_page_token })
}

/// What changed from one kept version to another.
pub(crate) async fn diff(
    deps: &Deps,
    call: &Call,
    request: pb::DiffConfigurationsRequest,
) -> Result<pb::DiffConfigurationsResponse, Fault> {
    let mut violations = Violations::new();
    let id = violations.id::<Configuration>("configuration_id", &request.configuration_id);
    violations.require(request.from_version > 0, "from_version", "must be 1 or more");
    violations.require(request.to_version >= 0, "to_version", "must not be negative");
    violations.finish()?;
    let id = id.ok_or_else(|| Fault::internal("an id was refused without a violation"))?;
    let customer = call.own_customer(&deps.db).await?;
    let newest = exists(deps, customer.id, id).await?;
    let to_version = if request.to_version == 0 { newest } else { request.to_version };
    let from = version(deps, customer.id, id, request.from_version).await?;
    let to = version(deps, customer.id, id, to_version).await?;
    Ok(pb::DiffConfigurationsResponse { changes: diff::changes(&from, &to)? })
}

/// Brings the content of a version back as a new one.
pub(crate) async fn rollback(
    deps: &Deps,
    call: &Call,
    request: pb::RollbackConfigurationRequest,
) -> Result<pb::RollbackConfigurationResponse, Fault> {
    let mut violations = Violations::new();
    let id = violations.id::<Configuration>("configuration_id", &request.configuration_id);
    violations.require(request.version > 0, "version", "must be 1 or more");
    violations.finish()?;
    let id = id.ok_or_else(|| Fault::internal("an id was refused without a violation"))?;
    let customer = call.own_customer(&deps.db).await?;
    let mut write = Write::begin(deps, call, &request).await?;
    if let Some(answer) = write.replay()? {
        return Ok(answer);
    }
    let row = roll_back(write.tx(), customer.id, id, request.version).await?;
    let configuration = Some(row.to_proto(&customer.slug)?);
    write.commit(customer.id, id, pb::RollbackConfigurationResponse { configuration }).await
}

/// The newest version of a configuration of the customer.
async fn exists(deps: &Deps, customer: Id<Customer>, id: Id<Configuration>) -> Result<i64, Fault> {
    const NEWEST: &str =
        "SELECT version AS value FROM liaison_configurations WHERE id = $1 AND customer_id = $2";
    let newest: Option<i64> = query(NEWEST).bind(id).bind(customer).value(&deps.db).await?;
    newest.ok_or_else(|| Fault::not_found::<Configuration>(id))
}

async fn version(
    deps: &Deps,
    customer: Id<Customer>,
    id: Id<Configuration>,
    version: i64,
) -> Result<ConfigurationRow, Fault> {
    const VERSION: &str = select_versions!(" AND v.version = $3");
    let found = query(VERSION).bind(id).bind(customer).bind(version).optional(&deps.db).await?;
    found.ok_or_else(|| version_not_found(version))
}
