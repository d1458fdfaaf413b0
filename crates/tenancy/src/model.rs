//! Customers, and what a change of one does.

use std::collections::BTreeMap;

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{self, Id};

agentrouter_storage::row! {
    /// A customer.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Customer {
        /// Row id.
        pub id: Id<id::Customer>,
        /// Name in paths, unique among all customers.
        pub slug: String,
        /// Name for people.
        pub display_name: String,
        /// Free text.
        pub description: String,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Grows with every write.
        pub revision: i64,
        /// When it was created.
        pub created_at: Timestamp,
        /// When it was last written.
        pub updated_at: Timestamp,
        /// Since when it is archived.
        pub deleted_at: Option<Timestamp>,
    }
}

/// What a new customer is made from. The fields are valid.
#[derive(Debug, Clone, Default)]
pub struct NewCustomer {
    /// Name in paths.
    pub slug: String,
    /// Name for people.
    pub display_name: String,
    /// Free text.
    pub description: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// New values of the fields that an update touches.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    pub(crate) display_name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
}

impl Changes {
    /// The customer as it is after the changes; its revision and times are the store's.
    pub(crate) fn apply(self, before: &Customer) -> Customer {
        let mut after = before.clone();
        if let Some(display_name) = self.display_name {
            after.display_name = display_name;
        }
        if let Some(description) = self.description {
            after.description = description;
        }
        if let Some(labels) = self.labels {
            after.labels = labels;
        }
        after
    }
}
