//! Users that slots are made for.

use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{Customer, Id, Identity};
use agentrouter_storage::{Sql, Tx, query};

/// The user as slots name it: ids of ours read in either case, but are compared as text.
pub fn canonical_user(user_id: &str) -> String {
    Id::<Identity>::parse(user_id).map_or_else(|| user_id.to_owned(), |identity| identity.to_string())
}

/// The user as slots name it. One that is an identity of ours must exist, and is kept from being deleted until the
/// transaction ends; a user of another kind is taken as it is.
///
/// # Errors
/// `IDENTITY_NOT_FOUND`.
pub async fn hold_user(tx: &mut Tx, customer: Id<Customer>, user_id: &str) -> Result<String, Fault> {
    const HOLD: Sql = Sql::Each {
        sqlite: "SELECT revision AS value FROM identities WHERE id = $1 AND customer_id = $2",
        postgres: "SELECT revision AS value FROM identities WHERE id = $1 AND customer_id = $2 FOR KEY SHARE",
    };
    let Some(identity) = Id::<Identity>::parse(user_id) else { return Ok(user_id.to_owned()) };
    let found: Option<i64> = query(HOLD).bind(identity).bind(customer).value(tx).await?;
    found.map(|_| identity.to_string()).ok_or_else(|| Fault::not_found::<Identity>(identity))
}
