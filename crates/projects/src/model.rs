//! Projects, memberships, and what a change of them does.

use std::collections::BTreeMap;

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{self, Id};
use agentrouter_storage::{FromColumn, Row, StorageError};

agentrouter_storage::row! {
    /// A project.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Project {
        pub(crate) id: Id<id::Project>,
        pub(crate) slug: String,
        pub(crate) display_name: String,
        pub(crate) description: String,
        pub(crate) labels: BTreeMap<String, String>,
        pub(crate) is_default: bool,
        pub(crate) revision: i64,
        pub(crate) created_at: Timestamp,
        pub(crate) updated_at: Timestamp,
        pub(crate) deleted_at: Option<Timestamp>,
    }
}

agentrouter_storage::row! {
    /// The membership of an identity in a project.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Member {
        pub(crate) id: Id<id::Member>,
        pub(crate) identity_id: Id<id::Identity>,
        pub(crate) role: MemberRole,
        pub(crate) revision: i64,
        pub(crate) created_at: Timestamp,
        pub(crate) updated_at: Timestamp,
    }
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberRole {
    /// Reads.
    Member,
    /// Also updates, archives and manages members.
    Admin,
}

impl MemberRole {
    /// The name in requests, answers and rows.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
        }
    }

    /// Reads a name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Member, Self::Admin].into_iter().find(|role| role.as_str() == text)
    }
}

impl FromColumn for MemberRole {
    fn from_column(row: &Row, column: &str) -> Result<Self, StorageError> {
        let text: String = row.get(column)?;
        Self::parse(&text).ok_or_else(|| StorageError::Corrupt(format!("member role {text:?}")))
    }
}

/// What a new project is made from. The fields are valid.
#[derive(Debug)]
pub(crate) struct NewProject {
    pub(crate) slug: String,
    pub(crate) display_name: String,
    pub(crate) description: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// New values of the fields that an update touches.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) display_name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
}

impl Changes {
    /// The project as it is after the changes; its revision and times are the store's.
    pub(crate) fn apply(self, before: &Project) -> Project {
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
