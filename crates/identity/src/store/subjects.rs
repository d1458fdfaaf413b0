//! Users of OIDC issuers, by the identities they lead to.

use agentrouter_kernel::Role;
use agentrouter_kernel::id::{Customer, ExternalSubject as Kind, Id, Identity};
use agentrouter_storage::{Db, Source, Sql, StorageError, Tx, Value, query, row};

use crate::model::ExternalSubject;
use crate::oidc::Subject;

row! {
    /// A user of an issuer.
    #[derive(Debug, Clone)]
    pub(crate) struct SubjectRow {
        pub(crate) id: Id<Kind>,
        pub(crate) identity_id: Id<Identity>,
        pub(crate) issuer: String,
        pub(crate) subject: String,
        pub(crate) role: String,
    }
}

impl From<&SubjectRow> for ExternalSubject {
    fn from(row: &SubjectRow) -> Self {
        Self { issuer: row.issuer.clone(), subject: row.subject.clone(), role: Role::parse(&row.role) }
    }
}

macro_rules! select {
    ($more:literal) => {
        concat!(
            "SELECT id, identity_id, issuer, subject, role FROM external_subjects WHERE customer_id = $1",
            $more,
            " ORDER BY issuer, subject"
        )
    };
}

/// The users of one identity, in the order of their names.
pub(crate) async fn of_identity(
    source: impl Source,
    customer: Id<Customer>,
    identity: Id<Identity>,
) -> Result<Vec<SubjectRow>, StorageError> {
    query(select!(" AND identity_id = $2")).bind(customer).bind(identity).all(source).await
}

/// The users of several identities, in the order of their names.
pub(crate) async fn of_identities(
    source: impl Source,
    customer: Id<Customer>,
    identities: Vec<Id<Identity>>,
) -> Result<Vec<SubjectRow>, StorageError> {
    const FIND: Sql = Sql::Each {
        sqlite: select!(" AND identity_id IN (SELECT unhex(value) FROM json_each($2))"),
        postgres: select!(" AND identity_id = ANY($2)"),
    };
    let identities = Value::Uuids(identities.into_iter().map(Id::uuid).collect());
    query(FIND).bind(customer).bind_all([identities]).all(source).await
}

/// Inserts a user; false where it leads to an identity already, whoever's.
pub(crate) async fn insert(
    tx: &mut Tx,
    customer: Id<Customer>,
    identity: Id<Identity>,
    id: Id<Kind>,
    new: &ExternalSubject,
) -> Result<bool, StorageError> {
    const INSERT: &str = "INSERT INTO external_subjects \
         (id, customer_id, identity_id, issuer, subject, role, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT DO NOTHING";
    let now = tx.now().await?;
    let inserted = query(INSERT)
        .bind(id)
        .bind(customer)
        .bind(identity)
        .bind(&new.issuer)
        .bind(&new.subject)
        .bind(new.role.map_or("", Role::as_str))
        .bind(now)
        .execute(tx)
        .await?;
    Ok(inserted == 1)
}

pub(crate) async fn delete(tx: &mut Tx, customer: Id<Customer>, id: Id<Kind>) -> Result<(), StorageError> {
    const DELETE: &str = "DELETE FROM external_subjects WHERE id = $1 AND customer_id = $2";
    query(DELETE).bind(id).bind(customer).execute(tx).await?;
    Ok(())
}

/// Deletes the users of an identity.
pub(crate) async fn delete_of_identity(
    tx: &mut Tx,
    customer: Id<Customer>,
    identity: Id<Identity>,
) -> Result<(), StorageError> {
    const DELETE: &str = "DELETE FROM external_subjects WHERE identity_id = $1 AND customer_id = $2";
    query(DELETE).bind(identity).bind(customer).execute(tx).await?;
    Ok(())
}

row! {
    /// A user that leads to an identity of a live customer.
    #[derive(Debug)]
    pub(crate) struct LiveSubject {
        pub(crate) id: Id<Kind>,
        pub(crate) customer_id: Id<Customer>,
        pub(crate) customer_slug: String,
        pub(crate) identity_id: Id<Identity>,
        pub(crate) role: String,
    }
}

/// Finds a user by what its issuer calls it. No customer is given: this is how it is known.
pub(crate) async fn find_live(db: &Db, subject: &Subject) -> Result<Option<LiveSubject>, StorageError> {
    const FIND: &str = "SELECT s.id, s.customer_id, c.slug AS customer_slug, s.identity_id, s.role \
         FROM external_subjects s JOIN customers c ON c.id = s.customer_id \
         WHERE s.issuer = $1 AND s.subject = $2 AND c.deleted_at IS NULL";
    query(FIND).bind(&subject.issuer).bind(&subject.subject).optional(db).await
}

/// Whether a user still leads to this identity.
pub(crate) async fn leads_to(
    tx: &mut Tx,
    customer: Id<Customer>,
    id: Id<Kind>,
    identity: Id<Identity>,
) -> Result<bool, StorageError> {
    const FIND: &str =
        "SELECT id AS value FROM external_subjects WHERE id = $1 AND customer_id = $2 AND identity_id = $3";
    let found = query(FIND).bind(id).bind(customer).bind(identity).value::<Id<Kind>>(tx).await?;
    Ok(found.is_some())
}
