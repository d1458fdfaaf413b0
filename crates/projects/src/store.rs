//! The statements over projects and their members.

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::filter::{Field, FieldKind};
use agentrouter_kernel::id::{self, Id, NameOrId};
use agentrouter_rpc::ListSpec;
use agentrouter_storage::{Source, StorageError, Tx, query};

use crate::model::{Member, MemberRole, NewProject, Project};

macro_rules! project_columns {
    () => {
        "id, slug, display_name, description, labels, is_default, revision, created_at, updated_at, deleted_at"
    };
}

macro_rules! member_columns {
    () => {
        "id, identity_id, role, revision, created_at, updated_at"
    };
}

/// The projects of a customer. `$1`: the customer; `$2`: whether archived ones, too.
pub(crate) const PROJECTS: ListSpec = ListSpec {
    select: concat!(
        "SELECT ",
        project_columns!(),
        " FROM projects WHERE customer_id = $1 AND (deleted_at IS NULL OR $2 = TRUE)"
    ),
    fields: &[
        Field { name: "project_id", column: "slug", kind: FieldKind::Text, sortable: true },
        Field { name: "display_name", column: "display_name", kind: FieldKind::Text, sortable: true },
        Field { name: "description", column: "description", kind: FieldKind::Text, sortable: true },
        Field { name: "created_at", column: "created_at", kind: FieldKind::Time, sortable: true },
        Field { name: "updated_at", column: "updated_at", kind: FieldKind::Time, sortable: true },
        Field { name: "labels", column: "labels", kind: FieldKind::Labels, sortable: false },
    ],
    default_order: "project_id",
    id_column: "id",
};

/// The members of a project. `$1`: the project; `$2`: the customer.
pub(crate) const MEMBERS: ListSpec = ListSpec {
    select: concat!(
        "SELECT ",
        member_columns!(),
        " FROM project_members WHERE project_id = $1 AND customer_id = $2"
    ),
    fields: &[
        Field { name: "identity_id", column: "identity_id", kind: FieldKind::Id("id"), sortable: false },
        Field { name: "role", column: "role", kind: FieldKind::Text, sortable: true },
        Field { name: "created_at", column: "created_at", kind: FieldKind::Time, sortable: true },
        Field { name: "updated_at", column: "updated_at", kind: FieldKind::Time, sortable: true },
    ],
    default_order: "",
    id_column: "id",
};

/// A live project of a customer.
pub(crate) async fn find(
    source: impl Source,
    customer: Id<id::Customer>,
    name: &NameOrId<id::Project>,
) -> Result<Option<Project>, StorageError> {
    const BY_SLUG: &str = concat!(
        "SELECT ",
        project_columns!(),
        " FROM projects WHERE customer_id = $1 AND slug = $2 AND deleted_at IS NULL"
    );
    const BY_ID: &str = concat!(
        "SELECT ",
        project_columns!(),
        " FROM projects WHERE customer_id = $1 AND id = $2 AND deleted_at IS NULL"
    );
    match name {
        NameOrId::Slug(slug) => query(BY_SLUG).bind(customer).bind(slug).optional(source).await,
        NameOrId::Id(id) => query(BY_ID).bind(customer).bind(*id).optional(source).await,
    }
}

/// Holds the row of a project, archived or not, until the transaction ends.
pub(crate) async fn lock(
    tx: &mut Tx,
    customer: Id<id::Customer>,
    name: &NameOrId<id::Project>,
) -> Result<Option<Project>, StorageError> {
    const BY_SLUG: &str = concat!(
        "UPDATE projects SET revision = revision WHERE customer_id = $1 AND slug = $2 RETURNING ",
        project_columns!()
    );
    const BY_ID: &str = concat!(
        "UPDATE projects SET revision = revision WHERE customer_id = $1 AND id = $2 RETURNING ",
        project_columns!()
    );
    match name {
        NameOrId::Slug(slug) => query(BY_SLUG).bind(customer).bind(slug).optional(tx).await,
        NameOrId::Id(id) => query(BY_ID).bind(customer).bind(*id).optional(tx).await,
    }
}

/// Inserts a project; none where its slug is taken.
pub(crate) async fn insert(
    tx: &mut Tx,
    customer: Id<id::Customer>,
    new: &NewProject,
    now: Timestamp,
) -> Result<Option<Project>, StorageError> {
    const INSERT: &str = concat!(
        "INSERT INTO projects (customer_id, ",
        project_columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, FALSE, 1, $7, $7, NULL) \
         ON CONFLICT (customer_id, slug) DO NOTHING RETURNING ",
        project_columns!()
    );
    query(INSERT)
        .bind(customer)
        .bind(Id::<id::Project>::new(now))
        .bind(&new.slug)
        .bind(&new.display_name)
        .bind(&new.description)
        .bind(&new.labels)
        .bind(now)
        .optional(tx)
        .await
}

/// Writes the fields that people edit.
pub(crate) async fn update(tx: &mut Tx, project: &Project, now: Timestamp) -> Result<Project, StorageError> {
    const UPDATE: &str = concat!(
        "UPDATE projects SET display_name = $2, description = $3, labels = $4, revision = revision + 1, \
         updated_at = $5 WHERE id = $1 RETURNING ",
        project_columns!()
    );
    query(UPDATE)
        .bind(project.id)
        .bind(&project.display_name)
        .bind(&project.description)
        .bind(&project.labels)
        .bind(now)
        .one(tx)
        .await
}

/// Archives a project or brings it back.
pub(crate) async fn set_deleted_at(
    tx: &mut Tx,
    id: Id<id::Project>,
    deleted_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<Project, StorageError> {
    const SET: &str = concat!(
        "UPDATE projects SET deleted_at = $2, updated_at = $3, revision = revision + 1 \
         WHERE id = $1 RETURNING ",
        project_columns!()
    );
    query(SET).bind(id).bind(deleted_at).bind(now).one(tx).await
}

/// Deletes a project and its memberships for good.
pub(crate) async fn delete(tx: &mut Tx, id: Id<id::Project>) -> Result<(), StorageError> {
    query("DELETE FROM project_members WHERE project_id = $1").bind(id).execute(&mut *tx).await?;
    query("DELETE FROM projects WHERE id = $1").bind(id).execute(tx).await?;
    Ok(())
}

/// The role of an identity in a project, where it is a member.
pub(crate) async fn role_of(
    source: impl Source,
    customer: Id<id::Customer>,
    project: Id<id::Project>,
    identity: Id<id::Identity>,
) -> Result<Option<MemberRole>, StorageError> {
    const FIND: &str = "SELECT role AS value FROM project_members \
         WHERE project_id = $1 AND identity_id = $2 AND customer_id = $3";
    query(FIND).bind(project).bind(identity).bind(customer).value(source).await
}

/// Whether an identity belongs to a customer.
pub(crate) async fn identity_exists(
    source: impl Source,
    customer: Id<id::Customer>,
    identity: Id<id::Identity>,
) -> Result<bool, StorageError> {
    const FIND: &str = "SELECT EXISTS (SELECT 1 FROM identities WHERE id = $2 AND customer_id = $1) AS value";
    Ok(query(FIND).bind(customer).bind(identity).value(source).await?.unwrap_or(false))
}

/// A membership.
pub(crate) async fn find_member(
    source: impl Source,
    project: Id<id::Project>,
    identity: Id<id::Identity>,
) -> Result<Option<Member>, StorageError> {
    const FIND: &str = concat!(
        "SELECT ",
        member_columns!(),
        " FROM project_members WHERE project_id = $1 AND identity_id = $2"
    );
    query(FIND).bind(project).bind(identity).optional(source).await
}

/// Inserts a membership; none where the identity is a member already.
pub(crate) async fn insert_member(
    tx: &mut Tx,
    customer: Id<id::Customer>,
    project: Id<id::Project>,
    identity: Id<id::Identity>,
    role: MemberRole,
) -> Result<Option<Member>, StorageError> {
    const INSERT: &str = concat!(
        "INSERT INTO project_members (customer_id, project_id, ",
        member_columns!(),
        ") VALUES ($1, $2, $3, $4, $5, 1, $6, $6) \
         ON CONFLICT (project_id, identity_id) DO NOTHING RETURNING ",
        member_columns!()
    );
    let now = tx.now().await?;
    query(INSERT)
        .bind(customer)
        .bind(project)
        .bind(Id::<id::Member>::new(now))
        .bind(identity)
        .bind(role.as_str())
        .bind(now)
        .optional(tx)
        .await
}

/// Changes the role of a member.
pub(crate) async fn update_member(
    tx: &mut Tx,
    member: Id<id::Member>,
    role: MemberRole,
) -> Result<Member, StorageError> {
    const UPDATE: &str = concat!(
        "UPDATE project_members SET role = $2, revision = revision + 1, updated_at = $3 \
         WHERE id = $1 RETURNING ",
        member_columns!()
    );
    let now = tx.now().await?;
    query(UPDATE).bind(member).bind(role.as_str()).bind(now).one(tx).await
}

/// Ends a membership.
pub(crate) async fn delete_member(tx: &mut Tx, member: Id<id::Member>) -> Result<(), StorageError> {
    query("DELETE FROM project_members WHERE id = $1").bind(member).execute(tx).await?;
    Ok(())
}

/// Whether a project has an admin beside this member.
pub(crate) async fn has_other_admin(
    tx: &mut Tx,
    project: Id<id::Project>,
    member: Id<id::Member>,
) -> Result<bool, StorageError> {
    const FIND: &str = "SELECT EXISTS (\
         SELECT 1 FROM project_members WHERE project_id = $1 AND id <> $2 AND role = 'admin') AS value";
    Ok(query(FIND).bind(project).bind(member).value(tx).await?.unwrap_or(false))
}
