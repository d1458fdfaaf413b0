//! Reading events as people do: the newest first, with what has ended.

use agentrouter_kernel::id::{Customer, Event, Id, Workspace};
use agentrouter_storage::{Db, StorageError, query};
use uuid::Uuid;

use crate::claim::Reach;
use crate::event::{EventRow, select_events};
use crate::poll;

/// Which events are listed.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The tenant.
    pub customer: Id<Customer>,
    /// Only those of one workspace.
    pub workspace: Option<Id<Workspace>>,
    /// Only those with this stored status; empty for all.
    pub status: String,
    /// Only those of this stored type of configuration; empty for all.
    pub config_type: String,
    /// Only those of this user; empty for all.
    pub user_id: String,
    /// Only stuck ones.
    pub stuck: bool,
}

/// Where a page begins: after the event with this place in the sequence and this id.
pub type After = (i64, Uuid);

/// Up to `limit` events, the newest first. What was offered and not laid out yet is laid out before.
pub async fn list(
    db: &Db,
    wanted: &Wanted,
    after: Option<After>,
    limit: i64,
) -> Result<Vec<EventRow>, StorageError> {
    // One statement per index: an `OR` over both would sort the whole history.
    const OPEN_OF_WORKSPACE: &str = select_events!(
        "WHERE e.workspace_id = $2 AND w.customer_id = $1 AND e.is_open = TRUE AND ($3 = '' OR e.status = $3) \
         AND ($4 = '' OR e.config_type = $4) AND ($5 = '' OR e.user_id = $5) AND ($6 = FALSE OR e.stuck = TRUE) \
         AND (e.position, e.id) < ($7, $8) ORDER BY e.position DESC, e.id DESC LIMIT $9"
    );
    const ENDED_OF_WORKSPACE: &str = select_events!(
        "WHERE e.workspace_id = $2 AND w.customer_id = $1 AND e.is_open = FALSE AND ($3 = '' OR e.status = $3) \
         AND ($4 = '' OR e.config_type = $4) AND ($5 = '' OR e.user_id = $5) AND ($6 = FALSE OR e.stuck = TRUE) \
         AND (e.position, e.id) < ($7, $8) ORDER BY e.position DESC, e.id DESC LIMIT $9"
    );
    const OPEN_OF_CUSTOMER: &str = select_events!(
        "WHERE e.customer_id = $1 AND e.workspace_id = COALESCE($2, e.workspace_id) AND e.is_open = TRUE \
         AND ($3 = '' OR e.status = $3) AND ($4 = '' OR e.config_type = $4) AND ($5 = '' OR e.user_id = $5) \
         AND ($6 = FALSE OR e.stuck = TRUE) AND (e.position, e.id) < ($7, $8) \
         ORDER BY e.position DESC, e.id DESC LIMIT $9"
    );
    const ENDED_OF_CUSTOMER: &str = select_events!(
        "WHERE e.customer_id = $1 AND e.workspace_id = COALESCE($2, e.workspace_id) AND e.is_open = FALSE \
         AND ($3 = '' OR e.status = $3) AND ($4 = '' OR e.config_type = $4) AND ($5 = '' OR e.user_id = $5) \
         AND ($6 = FALSE OR e.stuck = TRUE) AND (e.position, e.id) < ($7, $8) \
         ORDER BY e.position DESC, e.id DESC LIMIT $9"
    );
    let (open, ended) = if let Some(workspace) = wanted.workspace {
        poll::catch_up(db, wanted.customer, workspace).await?;
        (OPEN_OF_WORKSPACE, ENDED_OF_WORKSPACE)
    } else {
        poll::catch_up_customer(db, wanted.customer).await?;
        (OPEN_OF_CUSTOMER, ENDED_OF_CUSTOMER)
    };
    let may_be_open = !matches!(wanted.status.as_str(), "applied" | "superseded");
    let may_have_ended = !wanted.stuck && !matches!(wanted.status.as_str(), "pending" | "acknowledged");
    let (position, id) = after.unwrap_or((i64::MAX, Uuid::max()));
    let mut events: Vec<EventRow> = Vec::new();
    for sql in [may_be_open.then_some(open), may_have_ended.then_some(ended)].into_iter().flatten() {
        let rows: Vec<EventRow> = query(sql)
            .bind(wanted.customer)
            .bind(wanted.workspace)
            .bind(&wanted.status)
            .bind(&wanted.config_type)
            .bind(&wanted.user_id)
            .bind(wanted.stuck)
            .bind(position)
            .bind(id)
            .bind(limit)
            .all(db)
            .await?;
        events.extend(rows);
    }
    // An event that ended between the two statements may be in both.
    events.sort_by_key(|event| std::cmp::Reverse((event.position, event.id.uuid())));
    events.dedup_by_key(|event| event.id);
    events.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(events)
}

/// An event of a customer, laid out or not.
pub async fn find(
    db: &Db,
    customer: Id<Customer>,
    event: Id<Event>,
) -> Result<Option<EventRow>, StorageError> {
    let reach = Reach { customer, workspace: None, credential: String::new() };
    if let Some(row) = poll::find(db, &reach, event).await? {
        return Ok(Some(row));
    }
    let mut tx = db.begin().await?;
    let row = poll::resolve(&mut tx, &reach, event).await?;
    tx.commit_unaudited("an event that was offered gets its row").await?;
    Ok(row)
}
