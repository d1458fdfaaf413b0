//! Reading configurations.

use agentrouter_api::common::PageRequest;
use agentrouter_api::configurator as pb;
use agentrouter_delivery::version::ConfigurationRow;
use agentrouter_delivery::{SYSTEM_USER, config_type_name};
use agentrouter_kernel::filter::{Field, FieldKind};
use agentrouter_kernel::{Fault, PageSize, Violations};
use agentrouter_rpc::list::ListSpec;
use agentrouter_rpc::{Call, Deps};
use agentrouter_storage::query;

use crate::reveal::reveal;
use crate::slots::SlotFields;

/// The most slots of one GetConfiguration.
const QUERIES_MAX: usize = 1000;

/// The configurations that are newer than what the caller holds.
pub(crate) async fn get(
    deps: &Deps,
    call: &Call,
    request: pb::GetConfigurationRequest,
) -> Result<pb::GetConfigurationResponse, Fault> {
    const NEWER: &str = "SELECT id, customer_id, user_id, config_type, key_id, version, checksum, deleted, content, position, \
         broadcast_position, created_at, updated_at, restored_version FROM liaison_configurations \
         WHERE customer_id = $1 AND user_id = $2 AND config_type = $3 AND key_id = $4 AND version > $5 \
         AND (workspace_id IS NULL OR workspace_id = COALESCE($6, workspace_id))";
    let customer = call.own_customer(&deps.db).await?;
    let caller = call.principal()?;
    let mut violations = Violations::new();
    violations.require(request.queries.len() <= QUERIES_MAX, "queries", "must have at most 1000 entries");
    let mut slots = Vec::with_capacity(request.queries.len().min(QUERIES_MAX));
    for (index, wanted) in request.queries.iter().take(QUERIES_MAX).enumerate() {
        let path = format!("queries[{index}].");
        violations.require(
            wanted.current_version >= 0,
            &format!("{path}current_version"),
            "must not be negative",
        );
        let fields = SlotFields {
            path: &path,
            user_id: &wanted.user_id,
            config_type: wanted.config_type,
            key_id: &wanted.key_id,
        };
        slots.extend(
            fields.read(customer.id, caller, &mut violations).map(|slot| (slot, wanted.current_version)),
        );
    }
    violations.finish()?;
    let workspace = caller.workspace.as_ref().map(|(id, _)| *id);
    let mut configurations = Vec::new();
    for (slot, current_version) in slots {
        let row: Option<ConfigurationRow> = query(NEWER)
            .bind(customer.id)
            .bind(&slot.user_id)
            .bind(config_type_name(slot.config_type))
            .bind(&slot.key_id)
            .bind(current_version)
            .bind(workspace)
            .optional(&deps.db)
            .await?;
        if let Some(row) = row {
            configurations.push(row.to_proto(&customer.slug)?);
        }
    }
    if workspace.is_some() {
        // Workers need the secrets themselves; nobody else gets them.
        for configuration in &mut configurations {
            reveal(deps, customer.id, configuration).await?;
        }
    }
    Ok(pb::GetConfigurationResponse { configurations })
}

const LIST: ListSpec = ListSpec {
    select: "SELECT id, customer_id, user_id, config_type, key_id, version, checksum, deleted, content, position, \
         broadcast_position, created_at, updated_at, restored_version FROM liaison_configurations \
         WHERE customer_id = $1 AND ($2 = '' OR user_id = $2) AND ($3 = '' OR config_type = $3)",
    fields: &[Field { name: "created_at", column: "created_at", kind: FieldKind::Time, sortable: true }],
    default_order: "",
    id_column: "id",
};

/// A page of configurations, without credential values.
pub(crate) async fn list(
    deps: &Deps,
    call: &Call,
    request: pb::ListConfigurationsRequest,
) -> Result<pb::ListConfigurationsResponse, Fault> {
    let customer = call.own_customer(&deps.db).await?;
    let config_type = match request.config_type {
        0 => String::new(),
        value => config_type_name(
            pb::ConfigType::try_from(value)
                .map_err(|_| Fault::invalid_field("config_type", "is not a type of configuration"))?,
        ),
    };
    let page = PageRequest {
        page_size: request.page_size,
        page_token: request.page_token,
        ..PageRequest::default()
    };
    let (rows, page) = call
        .list(&LIST, Some(page))
        .flat()
        .bind(customer.id)
        .bind(request.user_id)
        .bind(config_type)
        .fetch::<ConfigurationRow>(deps)
        .await?;
    let configurations = rows.iter().map(|row| row.to_proto(&customer.slug)).collect::<Result<_, _>>()?;
    Ok(pb::ListConfigurationsResponse { configurations, next_page_token: page.next_page_token })
}

/// The users that have live configurations.
pub(crate) async fn active_users(
    deps: &Deps,
    call: &Call,
    request: pb::ListActiveUsersRequest,
) -> Result<pb::ListActiveUsersResponse, Fault> {
    const USERS: &str = "SELECT DISTINCT user_id AS value FROM liaison_configurations \
         WHERE customer_id = $1 AND user_id <> $2 AND deleted = FALSE ORDER BY user_id LIMIT $3";
    let limit = limit("limit", request.limit)?;
    let customer = call.own_customer(&deps.db).await?;
    let user_ids = query(USERS).bind(customer.id).bind(SYSTEM_USER).bind(limit).values(&deps.db).await?;
    Ok(pb::ListActiveUsersResponse { user_ids })
}

/// The enabled providers, as they stand in the store.
pub(crate) async fn active_providers(
    deps: &Deps,
    call: &Call,
) -> Result<pb::ListActiveProvidersResponse, Fault> {
    let customer = call.own_customer(&deps.db).await?;
    let providers = agentrouter_delivery::enabled_providers(&deps.db, customer.id).await?;
    Ok(pb::ListActiveProvidersResponse { providers })
}

/// A limit that is 100 where it is not given.
pub(crate) fn limit(field: &str, requested: i32) -> Result<i64, Fault> {
    let mut violations = Violations::new();
    let size = PageSize::new(field, requested, 100, &mut violations);
    violations.finish()?;
    Ok(size.limit() - 1)
}
