//! Tokens that one service issues for another. The identity service signs them; whoever hands them out knows only
//! the trait.

use agentrouter_envelope::Secret;
use agentrouter_kernel::id::{Customer, Id, Workspace};
use agentrouter_kernel::{Fault, Timestamp};
use agentrouter_storage::Tx;
use async_trait::async_trait;

/// A token that was just issued. This is the only time its text is known.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: Secret,
    /// Its JWT id, for revocation.
    pub jti: String,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// Issues the tokens that data planes call with.
#[async_trait]
pub trait WorkspaceTokens: Send + Sync + 'static {
    /// Issues a token for a workspace in the transaction that asks for it: the token works once that is committed.
    /// The caller has checked that the workspace is live and belongs to the customer.
    ///
    /// # Errors
    /// INTERNAL only, besides those of any statement.
    async fn issue(
        &self,
        tx: &mut Tx,
        customer: Id<Customer>,
        workspace: Id<Workspace>,
    ) -> Result<IssuedToken, Fault>;
}
