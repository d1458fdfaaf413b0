//! Tenant scope: resolves the customer and the workspace that a request names to rows its caller may know of.
//! This is the one place that does so; every other statement takes the resolved row id.

use agentrouter_kernel::id::{self, Id, NameOrId};
use agentrouter_kernel::{Fault, Principal};

use crate::query::query;
use crate::{Source, StorageError};

crate::row! {
    /// A customer that the caller may know of, and that is not archived.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct CustomerScope {
        /// Row id.
        pub id: Id<id::Customer>,
        /// Slug.
        pub slug: String,
    }
}

crate::row! {
    /// A workspace of such a customer, not archived.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct WorkspaceScope {
        /// Row id.
        pub id: Id<id::Workspace>,
        /// Slug.
        pub slug: String,
        /// The number that its event ids carry.
        pub number: i64,
    }
}

/// Finds a live customer, whoever asks.
pub async fn find_customer(
    source: impl Source,
    name: &NameOrId<id::Customer>,
) -> Result<Option<CustomerScope>, StorageError> {
    match name {
        NameOrId::Slug(slug) => {
            query("SELECT id, slug FROM customers WHERE slug = $1 AND deleted_at IS NULL")
                .bind(slug)
                .optional(source)
                .await
        }
        NameOrId::Id(id) => {
            query("SELECT id, slug FROM customers WHERE id = $1 AND deleted_at IS NULL")
                .bind(*id)
                .optional(source)
                .await
        }
    }
}

/// The customer that a request names in its path.
///
/// # Errors
/// `CUSTOMER_NOT_FOUND`, the same whether it does not exist or belongs to somebody else.
pub async fn customer(
    source: impl Source,
    principal: &Principal,
    name: &str,
) -> Result<CustomerScope, Fault> {
    let parsed = NameOrId::parse(name);
    let own = CustomerScope { id: principal.customer, slug: principal.customer_slug.clone() };
    let found = if principal.is_operator() {
        find_customer(source, &parsed).await?
    } else {
        // The credential's customer is live, or the credential would not have been accepted.
        let is_own = match &parsed {
            NameOrId::Slug(slug) => *slug == own.slug,
            NameOrId::Id(id) => *id == own.id,
        };
        is_own.then_some(own)
    };
    found.ok_or_else(|| Fault::not_found::<id::Customer>(name))
}

/// A live workspace of a customer.
///
/// # Errors
/// `WORKSPACE_NOT_FOUND`.
pub async fn workspace(
    source: impl Source,
    customer: Id<id::Customer>,
    name: &str,
) -> Result<WorkspaceScope, Fault> {
    const BY_SLUG: &str =
        "SELECT id, slug, number FROM workspaces WHERE customer_id = $1 AND slug = $2 AND deleted_at IS NULL";
    const BY_ID: &str =
        "SELECT id, slug, number FROM workspaces WHERE customer_id = $1 AND id = $2 AND deleted_at IS NULL";
    let found = match NameOrId::<id::Workspace>::parse(name) {
        NameOrId::Slug(slug) => query(BY_SLUG).bind(customer).bind(slug).optional(source).await?,
        NameOrId::Id(id) => query(BY_ID).bind(customer).bind(id).optional(source).await?,
    };
    found.ok_or_else(|| Fault::not_found::<id::Workspace>(name))
}
