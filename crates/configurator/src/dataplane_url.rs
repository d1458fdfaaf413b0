//! SetDataplaneURL.

use agentrouter_api::configurator::{EventType, SetDataplaneUrlRequest, SetDataplaneUrlResponse};
use agentrouter_delivery::{Slot, adopt, regenerate, release};
use agentrouter_kernel::id::{Customer, Id, Workspace};
use agentrouter_kernel::{Fault, Violations};
use agentrouter_rpc::{Call, Deps, Write};
use agentrouter_storage::{StorageError, Tx, query};

use crate::events::{named_workspace, reach};

/// Records the public URL of a data plane and delivers it, or takes the data plane to run it already.
pub(crate) async fn set(
    deps: &Deps,
    call: &Call,
    request: SetDataplaneUrlRequest,
) -> Result<SetDataplaneUrlResponse, Fault> {
    let caller = call.principal()?;
    let mut violations = Violations::new();
    let names_itself = caller.workspace.is_some();
    violations.require(names_itself || !request.workspace_id.is_empty(), "workspace_id", "is required");
    check_url(&mut violations, &request.url);
    violations.finish()?;
    let reach = reach(deps, call).await?;
    let workspace = named_workspace(deps, caller, &reach, &request.workspace_id).await?;
    let workspace = workspace.ok_or_else(|| Fault::internal("a workspace was named and not found"))?;

    let mut write = Write::begin(deps, call, &request).await?;
    if let Some(answer) = write.replay()? {
        return Ok(answer);
    }
    let tx = write.tx();
    store(tx, reach.customer, workspace, &request.url).await?;
    let slot = Slot::proxy_url(reach.customer, workspace);
    // Whoever sets a URL wants that one, also where it is the one that was rolled back.
    release(tx, &slot).await?;
    if request.trigger_update {
        regenerate(tx, &slot, EventType::Updated).await?;
    } else {
        adopt(tx, &slot).await?;
    }
    write.commit(reach.customer, workspace, SetDataplaneUrlResponse {}).await
}

/// A gateway is reached at its origin: nothing may follow host and port.
fn check_url(violations: &mut Violations, url: &str) {
    violations.http_url("url", url);
    let origin = url.split_once("://").map_or("", |(_, rest)| rest);
    violations.require(!origin.contains(['/', '?', '#']), "url", "must have no path, query or fragment");
}

async fn store(
    tx: &mut Tx,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    url: &str,
) -> Result<(), StorageError> {
    const STORE: &str = "INSERT INTO system_settings (customer_id, workspace_id, name, value, updated_at) \
         VALUES ($1, $2, 'proxy_url', $3, $4) \
         ON CONFLICT (customer_id, workspace_id, name) DO UPDATE SET value = excluded.value, \
             updated_at = excluded.updated_at WHERE system_settings.value <> excluded.value";
    let now = tx.now().await?;
    query(STORE).bind(customer).bind(workspace).bind(url).bind(now).execute(tx).await?;
    Ok(())
}
