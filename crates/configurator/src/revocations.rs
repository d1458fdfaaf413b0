//! RevokeUserToken.

use agentrouter_api::configurator::{RevokeUserTokenRequest, RevokeUserTokenResponse};
use agentrouter_delivery::revocation::{self, Revocation};
use agentrouter_kernel::id::{Customer, Id, Token};
use agentrouter_kernel::{Fault, Principal, Role, Timestamp, Violations};
use agentrouter_rpc::convert::{from_timestamp, timestamp};
use agentrouter_rpc::{Call, Deps, Write};
use agentrouter_storage::Tx;

const JTI_MAX: usize = 255;
const USER_ID_MAX: usize = 255;
const REASON_MAX: usize = 1024;

/// Revokes a token of the gateway, or one of ours, here and in every data plane.
pub(crate) async fn revoke(
    deps: &Deps,
    call: &Call,
    request: RevokeUserTokenRequest,
) -> Result<RevokeUserTokenResponse, Fault> {
    let caller = call.principal()?;
    let mut violations = Violations::new();
    violations.require(!request.jti.is_empty(), "jti", "is required");
    violations.text("jti", &request.jti, JTI_MAX);
    violations.text("user_id", &request.user_id, USER_ID_MAX);
    violations.text("reason", &request.reason, REASON_MAX);
    let given = request.expires_at.map(|time| from_timestamp("expires_at", time, &mut violations));
    violations.finish()?;
    let issued = Id::<Token>::parse(&request.jti);
    if issued.is_some() && caller.workspace.is_some() {
        return Err(Fault::denied(
            "GATEWAY_TOKEN_REQUIRED",
            "a workspace token revokes tokens of the gateway only, not those of the management plane",
        ));
    }
    let customer = call.own_customer(&deps.db).await?;
    let mut write = Write::begin(deps, call, &request).await?;
    if let Some(answer) = write.replay()? {
        return Ok(answer);
    }
    let expires_at = match issued {
        Some(id) => Some(expiry_of_issued(write.tx(), caller, customer.id, id).await?),
        None => given,
    };
    let revoked_by = match request.user_id.as_str() {
        "" => caller.identity.map_or_else(|| caller.credential_id.clone(), |identity| identity.to_string()),
        user_id => user_id.to_owned(),
    };
    let revocation =
        Revocation { jti: &request.jti, revoked_by: &revoked_by, reason: &request.reason, expires_at };
    let revoked_at = revocation::revoke(write.tx(), customer.id, revocation).await?;
    let answer = RevokeUserTokenResponse { success: true, revoked_at: Some(timestamp(revoked_at)) };
    write.commit(customer.id, &request.jti, answer).await
}

/// When a token of ours expires. Sessions of operators do not exist for those below, as everywhere.
async fn expiry_of_issued(
    tx: &mut Tx,
    caller: &Principal,
    customer: Id<Customer>,
    id: Id<Token>,
) -> Result<Timestamp, Fault> {
    let found = revocation::find_issued(tx, customer, id).await?;
    let found = found
        .filter(|token| caller.is_operator() || Role::parse(&token.role) != Some(Role::Operator))
        .ok_or_else(|| Fault::not_found::<Token>(id))?;
    Ok(found.expires_at)
}
