//! Compares what clients were told with what is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use agentrouter_kernel::id::{self, Configuration, Event, Id, Provider, Workspace};
use agentrouter_storage::{Db, Engine, query, row};
use tokio::time::Instant;
use uuid::Uuid;

use crate::common::program::PATIENCE;
use crate::fleet::{Fleet, Tenant};
use crate::ledger::{Ledger, Winner};

/// How much there was to compare.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) writes: usize,
    pub(crate) triggers: i64,
    pub(crate) claims: usize,
    pub(crate) applied: usize,
    versions: i64,
    events: usize,
    failed: usize,
    stale: u32,
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writes, triggers, claims, applied, versions, events, failed, stale } = self;
        write!(
            f,
            "{writes} writes, {triggers} triggers, {versions} versions, {events} events, {claims} claims, "
        )?;
        write!(f, "{applied} applied, {failed} failed, {stale} too late")
    }
}

/// Fails where anything differs.
pub(crate) async fn compare(db: &Db, fleet: &Fleet) -> Compared {
    intact(db).await;
    let writes = providers(db, fleet).await + customers(db, fleet).await + keys(db, fleet).await;
    let triggers = triggers(db, fleet).await;
    let versions = versions(db, fleet).await;
    delivered(db, fleet).await;
    let events = events(db).await;
    let ledger = fleet.ledger.lock().unwrap();
    claims_and_completions(&events, &ledger);
    Compared {
        writes,
        triggers,
        claims: ledger.claims.len(),
        applied: ledger.applied.len(),
        versions,
        events: events.len(),
        failed: ledger.failed.len(),
        stale: ledger.stale,
    }
}

async fn intact(db: &Db) {
    if db.engine() == Engine::Sqlite {
        let found = query("SELECT integrity_check AS value FROM pragma_integrity_check");
        assert_eq!(found.values::<String>(db).await.unwrap(), ["ok"]);
    }
}

/// How often each row was written, by the audit log.
async fn audited(db: &Db) -> BTreeMap<String, i64> {
    row! {
        struct Audited {
            target: String,
            writes: i64,
        }
    }
    const AUDITED: &str = "SELECT target, CAST(COUNT(*) AS BIGINT) AS writes FROM audit_entries \
         WHERE outcome = 'succeeded' GROUP BY target";
    let rows: Vec<Audited> = query(AUDITED).all(db).await.unwrap();
    rows.into_iter().map(|row| (row.target, row.writes)).collect()
}

async fn providers(db: &Db, fleet: &Fleet) -> usize {
    row! {
        struct Stored {
            id: Id<Provider>,
            customer: String,
            slug: String,
            weight: i64,
            enabled: bool,
            revision: i64,
        }
    }
    const STORED: &str = "SELECT p.id, c.slug AS customer, p.slug, p.weight, p.enabled, p.revision \
         FROM providers p JOIN customers c ON c.id = p.customer_id";
    let rows: Vec<Stored> = query(STORED).all(db).await.unwrap();
    let audited = audited(db).await;
    let told: Vec<_> = fleet.providers().filter(|writer| writer.stored.is_some()).collect();
    assert_eq!(rows.len(), told.len(), "neither lost nor doubled");
    let mut writes = 0;
    for writer in told {
        let told = writer.stored.as_ref().unwrap();
        let row = rows.iter().find(|row| row.id.to_string() == told.id).unwrap();
        assert_eq!(
            (row.customer.as_str(), row.slug.as_str()),
            (writer.customer.as_str(), writer.name.as_str())
        );
        assert_eq!((row.weight, row.enabled), (i64::from(told.weight), told.enabled));
        // Every answered write counts once, and nothing else does.
        assert_eq!((row.revision, audited[&told.id]), (i64::from(writer.writes), i64::from(writer.writes)));
        writes += usize::try_from(writer.writes).unwrap();
    }
    writes
}

async fn customers(db: &Db, fleet: &Fleet) -> usize {
    row! {
        struct Stored {
            id: Id<id::Customer>,
            slug: String,
            description: String,
            revision: i64,
            projects: i64,
        }
    }
    const STORED: &str = "SELECT c.id, c.slug, c.description, c.revision, \
             (SELECT CAST(COUNT(*) AS BIGINT) FROM projects p WHERE p.customer_id = c.id AND p.is_default = TRUE) AS projects \
         FROM customers c WHERE c.deleted_at IS NULL";
    let mut rows: BTreeMap<String, Stored> = query(STORED)
        .all::<Stored>(db)
        .await
        .unwrap()
        .into_iter()
        .map(|row| (row.slug.clone(), row))
        .collect();
    let audited = audited(db).await;
    for known in fleet.tenants.iter().map(|tenant| tenant.customer).chain(["default"]) {
        assert_eq!(rows.remove(known).map(|row| row.projects), Some(1), "{known}");
    }
    let mut writes = 0;
    for writer in fleet.customers() {
        for told in &writer.stored {
            let row = rows.remove(&told.customer_id).unwrap();
            assert_eq!((row.id.to_string(), &row.description), (told.id.clone(), &told.description));
            let told_writes = if told.description.is_empty() { 1 } else { 2 };
            assert_eq!((row.revision, audited[&told.id], row.projects), (told_writes, told_writes, 1));
        }
        writes += writer.writes;
    }
    assert_eq!(rows.keys().collect::<Vec<_>>(), Vec::<&String>::new(), "customers nobody was told of");
    writes
}

async fn keys(db: &Db, fleet: &Fleet) -> usize {
    const STORED: &str =
        "SELECT id AS value FROM api_keys WHERE identity_id = $1 AND (revoked_at IS NOT NULL) = $2";
    let audited = audited(db).await;
    let mut writes = 0;
    for writer in fleet.keys() {
        let identity = Id::<id::Identity>::parse(&writer.identity).unwrap();
        for is_revoked in [false, true] {
            let rows: Vec<Id<id::ApiKey>> =
                query(STORED).bind(identity).bind(is_revoked).values(db).await.unwrap();
            let told = writer.stored.iter().filter(|key| key.revoked_at.is_some() == is_revoked);
            let told: BTreeSet<_> = told.map(|key| key.id.clone()).collect();
            let stored: BTreeSet<_> = rows.iter().map(ToString::to_string).collect();
            assert_eq!(stored, told, "revoked: {is_revoked}");
            assert!(told.iter().all(|id| audited[id] == 1 + i64::from(is_revoked)));
        }
        writes += writer.writes;
    }
    writes
}

async fn triggers(db: &Db, fleet: &Fleet) -> i64 {
    const AUDITED: &str =
        "SELECT CAST(COUNT(*) AS BIGINT) AS value FROM audit_entries WHERE action = 'configuration.trigger'";
    let stored = query(AUDITED).value::<i64>(db).await.unwrap();
    let told = fleet.triggers().map(|trigger| i64::from(trigger.calls)).sum();
    assert_eq!(stored, Some(told));
    told
}

/// Slots have exactly the versions that the answered writes made, without holes, in the order of their positions.
async fn versions(db: &Db, fleet: &Fleet) -> i64 {
    row! {
        struct Stored {
            config_type: String,
            user_id: String,
            newest: i64,
            version: i64,
            position: i64,
        }
    }
    const STORED: &str = "SELECT l.config_type, l.user_id, l.version AS newest, v.version, v.position \
         FROM liaison_configuration_versions v JOIN liaison_configurations l ON l.id = v.configuration_id \
         JOIN customers c ON c.id = l.customer_id WHERE c.slug = $1 ORDER BY l.id, v.version";
    let mut total = 0;
    for Tenant { customer, .. } in &fleet.tenants {
        let customer = *customer;
        let mut expected = BTreeMap::new();
        for writer in fleet.providers().filter(|writer| writer.customer == customer) {
            *expected.entry(("providers".to_owned(), "system".to_owned())).or_insert(0) +=
                i64::from(writer.writes);
        }
        for trigger in fleet.triggers().filter(|trigger| trigger.customer == customer) {
            *expected.entry(("providers".to_owned(), "system".to_owned())).or_insert(0) += trigger.updates;
        }
        for writer in fleet.keys().filter(|writer| writer.customer == customer) {
            expected
                .insert(("user_keys".to_owned(), writer.identity.clone()), writer.writes.try_into().unwrap());
        }
        let rows: Vec<Stored> = query(STORED).bind(customer).all(db).await.unwrap();
        let mut last = BTreeMap::new();
        for row in &rows {
            let slot = (row.config_type.clone(), row.user_id.clone());
            let (version, position) = last.insert(slot, (row.version, row.position)).unwrap_or_default();
            assert!(row.version == version + 1 && row.position > position, "a hole after version {version}");
            assert!(row.version <= row.newest);
        }
        let stored: BTreeMap<_, _> = last.into_iter().map(|(slot, (version, _))| (slot, version)).collect();
        assert_eq!(stored, expected, "versions of {customer}");
        let newest =
            fleet.triggers().filter(|trigger| trigger.customer == customer).map(|trigger| trigger.newest);
        assert!(newest.max() <= stored.values().copied().max());
        total += stored.values().sum::<i64>();
    }
    total
}

const OPEN: &str =
    "SELECT CAST(COUNT(*) AS BIGINT) AS value FROM liaison_configuration_events WHERE is_open = TRUE";

/// Waits until no event is open. One that failed stays so until it is due again, though a newer one was applied since,
/// and a server closes it then.
pub(crate) async fn closed(db: &Db) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let open = query(OPEN).value::<i64>(db).await.unwrap();
        if open == Some(0) {
            return;
        }
        assert!(Instant::now() < deadline, "{open:?} events stay open");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Every workspace runs the newest version of every slot, and nothing is open.
async fn delivered(db: &Db, fleet: &Fleet) {
    row! {
        struct Stored {
            customer: String,
            workspace: String,
            version: i64,
            applied_version: Option<i64>,
        }
    }
    const STORED: &str = "SELECT c.slug AS customer, w.slug AS workspace, l.version, s.applied_version \
         FROM workspaces w JOIN customers c ON c.id = w.customer_id \
         JOIN liaison_configurations l ON l.customer_id = w.customer_id \
         LEFT JOIN workspace_slots s ON s.workspace_id = w.id AND s.configuration_id = l.id";
    let rows: Vec<Stored> = query(STORED).all(db).await.unwrap();
    for row in &rows {
        assert_eq!(row.applied_version, Some(row.version), "{}/{}", row.customer, row.workspace);
    }
    for (customer, workspace) in fleet.tenants.iter().flat_map(Tenant::workspaces) {
        let slots = rows.iter().filter(|row| row.customer == customer && row.workspace == workspace);
        assert_eq!(slots.count(), fleet.slots(customer), "slots of {customer}/{workspace}");
    }
    assert_eq!(query(OPEN).value::<i64>(db).await.unwrap(), Some(0));
}

row! {
    struct EventRow {
        id: Id<Event>,
        workspace_id: Id<Workspace>,
        configuration_id: Option<Id<Configuration>>,
        version: i64,
        status: String,
        attempt: i64,
        worker_id: String,
        claim_token: Option<Uuid>,
        superseded_by: Option<Id<Event>>,
    }
}

async fn events(db: &Db) -> Vec<EventRow> {
    const EVENTS: &str = "SELECT id, workspace_id, configuration_id, version, status, attempt, worker_id, claim_token, \
         superseded_by FROM liaison_configuration_events ORDER BY id";
    query(EVENTS).all(db).await.unwrap()
}

fn claims_and_completions(events: &[EventRow], ledger: &Ledger) {
    let by_id: BTreeMap<_, _> = events.iter().map(|event| (event.id, event)).collect();
    let mut applied = BTreeMap::new();
    for event in events {
        let id = event.id.to_string();
        let told = ledger.attempts(&id);
        let used = i32::try_from(event.attempt).unwrap();
        assert!(told.last().is_none_or(|last| *last <= used), "{id}: {told:?} of {used}");
        // Each attempt has one winner. One that nobody was told of ran out before it could be asked for again.
        let untold = used - i32::try_from(told.len()).unwrap();
        let unanswered = ledger.unanswered.get(&id).copied().unwrap_or_default();
        assert!(untold <= unanswered, "{id}: {untold} attempts that nobody won");
        if let (true, Some(last)) = (untold == 0, told.last()) {
            let stored =
                Winner { worker: event.worker_id.clone(), token: event.claim_token.unwrap().to_string() };
            assert_eq!(ledger.claims[&(id.clone(), *last)], stored, "{id}");
        }
        let is_applied = event.status == "applied";
        let told_applied = ledger.applied.get(&id).copied();
        let is_unsure = is_applied && told_applied.is_none() && ledger.unsure.contains(&(id.clone(), used));
        assert!(is_unsure || told_applied == is_applied.then_some(used), "{id} is {}", event.status);
        if is_applied {
            let delivery = (event.workspace_id, event.configuration_id, event.version);
            let twice = applied.insert(delivery, id.clone());
            assert_eq!(twice, None, "version {} was applied twice, the second time by {id}", event.version);
        } else {
            assert!(matches!(event.status.as_str(), "superseded" | "failed"), "{id} is {}", event.status);
            let next = event.superseded_by.unwrap();
            let next = by_id[&next];
            assert!(next.version >= event.version, "{id} gave way to an older one");
        }
    }
    let known: BTreeSet<_> = events.iter().map(|event| event.id.to_string()).collect();
    assert!(ledger.claims.keys().all(|(event, _)| known.contains(event)), "a claimed event is lost");
}
