//! The context of a call: who calls, from where, and for which customer.

use std::net::SocketAddr;
use std::sync::Arc;

use agentrouter_kernel::page::{PageCursor, PageKey, PageScope};
use agentrouter_kernel::{Fault, FaultKind, Principal};
use agentrouter_storage::scope::{self, CustomerScope};
use agentrouter_storage::{CallOrigin, Db, Source};
use tonic::{Request, Status};

use crate::status::into_status;

/// The metadata key by which operators name a customer where the path has none.
pub const CUSTOMER_KEY: &str = "x-agentrouter-customer";
/// The metadata key of idempotency keys.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Id of a request, in extensions.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

/// Network address of the caller, in extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The verified context of a call, put into extensions by the enforcement layer.
#[derive(Debug, Clone)]
pub struct Call {
    /// Full name of the method, such as `agentrouter.tenancy.v1.TenancyService/GetCustomer`.
    pub method: String,
    /// What the audit log calls it.
    pub action: String,
    /// Who calls. None only for methods that are open to anyone.
    pub caller: Option<Principal>,
    /// Where the call came from.
    pub origin: CallOrigin,
    /// The customer named by header.
    pub customer_header: Option<String>,
    /// The idempotency key.
    pub idempotency_key: Option<String>,
}

impl Call {
    /// Takes a request apart.
    ///
    /// # Errors
    /// INTERNAL where the enforcement layer is missing: nothing is served without it.
    pub fn open<T>(request: Request<T>) -> Result<(Self, T), Status> {
        let (_, mut extensions, message) = request.into_parts();
        let call = extensions
            .remove::<Self>()
            .ok_or_else(|| into_status(Fault::internal("the call did not pass the enforcement layer")))?;
        Ok((call, message))
    }

    /// The caller.
    ///
    /// # Errors
    /// UNAUTHENTICATED for open methods called without a credential.
    pub fn principal(&self) -> Result<&Principal, Fault> {
        self.caller.as_ref().ok_or_else(unauthenticated)
    }

    /// The customer that a path names. The header, where an operator sends it too, must agree.
    ///
    /// # Errors
    /// `CUSTOMER_NOT_FOUND`; INVALID_ARGUMENT where header and path disagree.
    pub async fn customer(&self, source: impl Source, name: &str) -> Result<CustomerScope, Fault> {
        let principal = self.principal()?;
        if name.is_empty() {
            return Err(Fault::invalid_field("customer_id", "is required"));
        }
        let named = scope::customer(source, principal, name).await?;
        self.check_customer_header(&named)?;
        Ok(named)
    }

    /// Checks that the header, where there is one, names this customer.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where it names another one.
    pub fn check_customer_header(&self, named: &CustomerScope) -> Result<(), Fault> {
        match &self.customer_header {
            Some(header) if *header != named.slug && *header != named.id.to_string() => {
                Err(Fault::invalid_field(CUSTOMER_KEY, "names another customer than the path"))
            }
            _ => Ok(()),
        }
    }

    /// The customer of a call whose path names none: the header's for operators, else the caller's own.
    ///
    /// # Errors
    /// `CUSTOMER_NOT_FOUND`.
    pub async fn own_customer(&self, db: &Db) -> Result<CustomerScope, Fault> {
        let principal = self.principal()?;
        match &self.customer_header {
            Some(name) => scope::customer(db, principal, name).await,
            None => Ok(CustomerScope { id: principal.customer, slug: principal.customer_slug.clone() }),
        }
    }

    /// Opens a page token of this call.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where it is not a token of this list, filter, order and caller.
    pub fn open_page(&self, key: &PageKey, list: &ListInput<'_>) -> Result<Option<PageCursor>, Fault> {
        key.open(self.page_scope(list)?, list.token)
    }

    /// Seals the position after a page; empty where the list ended.
    pub fn seal_page(
        &self,
        key: &PageKey,
        list: &ListInput<'_>,
        next: Option<&PageCursor>,
    ) -> Result<String, Fault> {
        next.map_or_else(|| Ok(String::new()), |cursor| key.seal(self.page_scope(list)?, cursor))
    }

    fn page_scope<'a>(&'a self, list: &ListInput<'a>) -> Result<PageScope<'a>, Fault> {
        Ok(PageScope {
            method: &self.method,
            parent: list.parent,
            filter: list.filter,
            order_by: list.order_by,
            caller: &self.principal()?.credential_id,
        })
    }
}

/// What a page token of a list is bound to.
#[derive(Debug, Clone, Copy)]
pub struct ListInput<'a> {
    /// The token of the request.
    pub token: &'a str,
    /// What is listed, such as a customer's row id.
    pub parent: &'a str,
    /// Everything that selects rows.
    pub filter: &'a str,
    /// The order.
    pub order_by: &'a str,
}

/// UNAUTHENTICATED, the same for every kind of missing or wrong credential.
pub fn unauthenticated() -> Fault {
    Fault::new(
        FaultKind::Unauthenticated,
        "UNAUTHENTICATED",
        "a valid credential is needed: send `authorization: Bearer <key>`",
    )
}
