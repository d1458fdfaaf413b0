//! Lists: the paging fields of a request in, a page of rows and the token of the next page out.

use std::fmt::{Display, Write as _};

use agentrouter_api::common::{PageRequest, PageResponse};
use agentrouter_kernel::filter::{Field, parse_order};
use agentrouter_kernel::{Fault, Filter, PageSize, Role, Violations};
use agentrouter_storage::{FromRow, List, Value};

use crate::call::{Call, ListInput};
use crate::write::Deps;

/// The number of items of a page whose request names none.
const DEFAULT_SIZE: i32 = 50;

/// What one list RPC lists: the constants of its service.
#[derive(Debug, Clone, Copy)]
pub struct ListSpec {
    /// The statement up to and with its `WHERE` and the conditions that hold for every page. Its parameters are
    /// those of [`Listing::bind`], in their order. Columns to sort by, and the row id, are selected under their
    /// bare names.
    pub select: &'static str,
    /// The fields to filter and order by.
    pub fields: &'static [Field],
    /// The order where the request asks for none, written like `order_by`; empty for the order of creation.
    pub default_order: &'static str,
    /// The column of the row id. It makes every order total, and runs in the direction of the last field.
    pub id_column: &'static str,
}

/// A list under way: bind the parameters of its statement, then [`Listing::fetch`] the page.
#[derive(Debug)]
#[must_use = "a list does nothing until its page is fetched"]
pub struct Listing<'a> {
    call: &'a Call,
    spec: &'static ListSpec,
    page: PageRequest,
    values: Vec<Value>,
    selected_by: String,
    prefix: &'static str,
}

impl Call {
    /// Starts a list with the `page` of the request.
    pub fn list(&self, spec: &'static ListSpec, page: Option<PageRequest>) -> Listing<'_> {
        Listing {
            call: self,
            spec,
            page: page.unwrap_or_default(),
            values: Vec::new(),
            selected_by: String::new(),
            prefix: "page.",
        }
    }

    /// Whether a list shows archived rows, too.
    ///
    /// # Errors
    /// PERMISSION_DENIED `ROLE_REQUIRED` where somebody below an admin asks for them.
    pub fn show_deleted(&self, asked: bool) -> Result<bool, Fault> {
        if asked && !self.principal()?.has(Role::Admin) {
            return Err(Fault::denied("ROLE_REQUIRED", "to list archived rows needs the role admin"));
        }
        Ok(asked)
    }
}

impl Listing<'_> {
    /// Binds the next parameter. It selects rows, so a token of this list is refused with another value.
    pub fn bind(mut self, value: impl Into<Value> + Display) -> Self {
        let text = value.to_string();
        // Lengths keep neighbouring values apart. Writing to a String cannot fail.
        let _ = write!(self.selected_by, "{}:{text};", text.len());
        self.values.push(value.into());
        self
    }

    /// Binds a parameter that differs from page to page, such as the time.
    pub fn bind_moving(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// For requests whose paging fields stand in themselves: violations then name them without `page.`.
    pub fn flat(mut self) -> Self {
        self.prefix = "";
        self
    }

    /// Reads the page.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with every violation of size, filter and order, or for a token that is none of this list.
    pub async fn fetch<T: FromRow>(self, deps: &Deps) -> Result<(Vec<T>, PageResponse), Fault> {
        let order_by = match self.page.order_by.trim() {
            "" => self.spec.default_order,
            asked => asked,
        };
        let mut violations = Violations::new();
        let size = PageSize::new(&self.path("page_size"), self.page.page_size, DEFAULT_SIZE, &mut violations);
        let filter = self.noted(Filter::parse(&self.page.filter, self.spec.fields), &mut violations);
        let order = self.noted(parse_order(order_by, self.spec.fields), &mut violations);
        violations.finish()?;
        let (Some(filter), Some(order)) = (filter, order) else {
            return Err(Fault::internal("a filter or order was refused without a violation"));
        };
        let input = ListInput {
            token: &self.page.page_token,
            parent: &self.selected_by,
            filter: &self.page.filter,
            // Not what was asked, so that a token does not outlive a change of the default.
            order_by,
        };
        let mut violations = Violations::new();
        let after = self.noted(self.call.open_page(&deps.page_key, &input), &mut violations);
        violations.finish()?;
        let page = List {
            select: self.spec.select,
            values: self.values.clone(),
            filter: &filter,
            order: &order,
            id_column: self.spec.id_column,
            id_descending: order.last().is_some_and(|last| last.descending),
            after: after.flatten().as_ref(),
            size,
        }
        .fetch(&deps.db)
        .await?;
        let next_page_token = self.call.seal_page(&deps.page_key, &input, page.next.as_ref())?;
        Ok((page.items, PageResponse { next_page_token }))
    }

    fn path(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    /// Takes the violations of a fault over, under the path that the field has in the request.
    fn noted<T>(&self, result: Result<T, Fault>, violations: &mut Violations) -> Option<T> {
        result
            .inspect_err(|fault| {
                for violation in fault.violations() {
                    violations.add(self.path(&violation.field), violation.description.clone());
                }
            })
            .ok()
    }
}
