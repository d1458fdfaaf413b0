//! Workspaces, and the rules their fields keep.

use std::collections::BTreeMap;

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{self, Id};

agentrouter_storage::row! {
/// A workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Row id.
    pub id: Id<id::Workspace>,
    /// Slug.
    pub slug: String,
    /// The number that event ids carry.
    pub number: i64,
    /// Name for people.
    pub display_name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Grows with every write.
    pub revision: i64,
    /// When its worker last called.
    pub last_seen_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it was archived.
    pub deleted_at: Option<Timestamp>,
}
}

/// What a new workspace is made from. The fields are valid.
#[derive(Debug, Clone, Default)]
pub struct NewWorkspace {
    /// Slug.
    pub slug: String,
    /// Name for people.
    pub display_name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// What an update does. Absent fields stay as they are.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) display_name: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
}

impl Change {
    /// The workspace as it is after the change; its revision and times are the store's.
    pub(crate) fn apply(self, before: &Workspace) -> Workspace {
        let before = before.clone();
        Workspace {
            display_name: self.display_name.unwrap_or(before.display_name),
            labels: self.labels.unwrap_or(before.labels),
            ..before
        }
    }
}
