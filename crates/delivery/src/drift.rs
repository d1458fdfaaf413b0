//! Drift: slots whose newest version a workspace does not run and that no open event will bring to it.
//!
//! What the data plane reports decides; where it reports nothing, the recorded versions do. A slot is healed by a new
//! event for its newest version. Healing is a fixed point: an open event, or one that was refused for good, keeps a
//! slot from being healed again, and a slot that drifts again and again is healed after longer and longer delays. The
//! cost is one pass over the slots of the customer, whatever the history.

use std::collections::{HashMap, HashSet};

use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_kernel::id::{Configuration, Customer, Id, Workspace};
use agentrouter_kernel::{Fault, Timestamp};
use agentrouter_storage::{Db, Source, Sql, StorageError, Tx, Value, query, row};

use crate::layout::{Delivery, deliver, lay_out_workspace, next_offer};
use crate::names::config_type_name;
use crate::retry_delay;
use crate::slot::{SYSTEM_USER, Slot};
use crate::version::next_position;

/// A slot that stayed in place this long after it could have been healed again counts as calm: its delays start anew.
const CALM_MICROS: i64 = 300_000_000;

/// What a data plane says it runs of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The user of the slot.
    pub user_id: String,
    /// What the slot configures.
    pub config_type: ConfigType,
    /// The key of the slot.
    pub key_id: String,
    /// The version that runs; 0 for none.
    pub version: i64,
    /// Its checksum; empty where the worker does not know it.
    pub checksum: String,
}

/// What a data plane says it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The slots it speaks of.
    pub slots: Vec<Observed>,
    /// Whether these are all: a slot that is not among them then counts as not applied.
    pub is_complete: bool,
}

impl Report {
    /// Whether it says nothing, so that the recorded versions count.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && !self.is_complete
    }
}

/// Which slots are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// Those of users and their keys.
    Users,
}

/// How many events were queued, by the kind of slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// For slots of the whole customer.
    pub global: usize,
    /// For slots of users.
    pub per_user: usize,
    /// For slots of users' keys.
    pub per_user_per_key: usize,
}

impl Replayed {
    /// All of them.
    pub fn total(self) -> usize {
        self.global + self.per_user + self.per_user_per_key
    }
}

row! {
    #[derive(Debug)]
    struct SlotRow {
        id: Id<Configuration>,
        user_id: String,
        config_type: String,
        key_id: String,
        version: i64,
        checksum: String,
        deleted: bool,
        applied_version: i64,
        withheld_version: i64,
        heal_version: i64,
        heal_count: i64,
        heal_after: Option<Timestamp>,
    }
}

impl SlotRow {
    /// Whether the workspace runs something else than the newest version.
    fn has_drifted(&self, report: &Reported<'_>) -> bool {
        let observed =
            report.slots.get(&(self.user_id.as_str(), self.config_type.as_str(), self.key_id.as_str()));
        let (version, checksum) = match observed {
            Some(observed) => (observed.version, observed.checksum.as_str()),
            None if report.is_complete => (0, ""),
            None => (self.applied_version, ""),
        };
        if self.deleted && version == 0 {
            // What is not there need not be deleted.
            return false;
        }
        version != self.version || !(checksum.is_empty() || checksum == self.checksum)
    }

    /// Whether the newest version may be offered once more: it was not refused or rolled back, and the delay after the
    /// last time is over.
    fn may_heal(&self, now: Timestamp) -> bool {
        self.withheld_version < self.version
            && (self.heal_version != self.version || self.heal_after.is_none_or(|after| after <= now))
    }

    /// How often it will have been healed, this time included.
    fn heals(&self, now: Timestamp) -> i64 {
        let is_calm = self.heal_after.is_none_or(|after| after.as_micros() + CALM_MICROS < now.as_micros());
        if self.heal_version != self.version || is_calm { 1 } else { self.heal_count + 1 }
    }
}

struct Reported<'a> {
    slots: HashMap<(&'a str, &'a str, &'a str), &'a Observed>,
    is_complete: bool,
}

/// Queues an event for every slot in `scope` that a workspace has drifted from. Returns how many there are: none where
/// nothing changed since the last call.
///
/// # Errors
/// INTERNAL or UNAVAILABLE where the database fails.
pub async fn heal(
    db: &Db,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    scope: Scope,
    report: &Report,
) -> Result<Replayed, Fault> {
    // Most sweeps find nothing, so they only read.
    let now = db.now().await?;
    if drifted(db, customer, workspace, scope, report, now).await?.is_empty() {
        return Ok(Replayed::default());
    }
    let mut tx = db.begin().await?;
    // The sequence first, as whoever takes both does.
    let position = next_position(&mut tx, customer).await?;
    // What was offered to all comes with its own event, and two sweeps of one workspace take turns.
    lay_out_workspace(&mut tx, customer, workspace).await?;
    next_offer(&mut tx, workspace).await?;
    let now = tx.now().await?;
    let slots = drifted(&mut tx, customer, workspace, scope, report, now).await?;
    let event_type = match scope {
        Scope::All => EventType::Reconciled,
        Scope::Users => EventType::FullSync,
    };
    offer(&mut tx, customer, workspace, &slots, event_type, position).await?;
    note_heals(&mut tx, customer, workspace, &slots, now).await?;
    tx.commit_unaudited("the events tell").await?;
    Ok(count(&slots))
}

/// Queues the newest version of every live slot of a workspace, or of one slot, whether or not it was reported as
/// applied: what an admin asks for who does not trust the reports. Left out are slots whose newest version has an open
/// event already (stuck ones included: [`crate::redrive::retry`] frees those) or was refused by the data plane. Returns how many
/// events there are new.
///
/// # Errors
/// `CONFIGURATION_NOT_FOUND` where `slot` was never written.
pub async fn resync(
    tx: &mut Tx,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    slot: Option<&Slot>,
) -> Result<usize, Fault> {
    let position = next_position(tx, customer).await?;
    lay_out_workspace(tx, customer, workspace).await?;
    next_offer(tx, workspace).await?;
    let mut slots = slots(&mut *tx, customer, workspace, Scope::All, false).await?;
    if let Some(wanted) = slot {
        let config_type = config_type_name(wanted.config_type);
        slots.retain(|slot| {
            slot.user_id == wanted.user_id && slot.config_type == config_type && slot.key_id == wanted.key_id
        });
        if slots.is_empty() {
            return Err(Fault::not_found::<Configuration>(format!(
                "{}/{config_type}/{}",
                wanted.user_id, wanted.key_id
            )));
        }
    }
    let open = open(&mut *tx, workspace).await?;
    // A tombstone matters only where there was something.
    slots.retain(|slot| {
        !(slot.deleted && slot.applied_version == 0)
            && slot.withheld_version < slot.version
            && !open.contains(&(slot.id, slot.version))
    });
    offer(tx, customer, workspace, &slots, EventType::FullSync, position).await?;
    Ok(slots.len())
}

/// The slots that have drifted, may be healed, and have no open event for their newest version.
async fn drifted(
    mut source: impl Reads,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    scope: Scope,
    report: &Report,
    now: Timestamp,
) -> Result<Vec<SlotRow>, StorageError> {
    let names: Vec<String> = report.slots.iter().map(|slot| config_type_name(slot.config_type)).collect();
    let reported = Reported {
        slots: report
            .slots
            .iter()
            .zip(&names)
            .map(|(slot, name)| ((slot.user_id.as_str(), name.as_str(), slot.key_id.as_str()), slot))
            .collect(),
        is_complete: report.is_complete,
    };
    let mut slots = slots(source.source(), customer, workspace, scope, report.is_empty()).await?;
    slots.retain(|slot| slot.has_drifted(&reported) && slot.may_heal(now));
    if !slots.is_empty() {
        let open = open(source.source(), workspace).await?;
        slots.retain(|slot| !open.contains(&(slot.id, slot.version)));
    }
    Ok(slots)
}

/// A source that several statements read from.
trait Reads: Send {
    fn source(&mut self) -> impl Source;
}

impl Reads for &Db {
    fn source(&mut self) -> impl Source {
        *self
    }
}

impl Reads for &mut Tx {
    fn source(&mut self) -> impl Source {
        &mut **self
    }
}

/// The slots of a workspace, or only those whose recorded version is not the newest.
async fn slots(
    source: impl Source,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    scope: Scope,
    only_behind: bool,
) -> Result<Vec<SlotRow>, StorageError> {
    const SLOTS: &str = "SELECT c.id, c.user_id, c.config_type, c.key_id, c.version, c.checksum, c.deleted, \
             COALESCE(s.applied_version, 0) AS applied_version, COALESCE(s.withheld_version, 0) AS withheld_version, \
             COALESCE(s.heal_version, 0) AS heal_version, COALESCE(s.heal_count, 0) AS heal_count, s.heal_after \
         FROM liaison_configurations c \
         LEFT JOIN workspace_slots s ON s.workspace_id = $2 AND s.configuration_id = c.id \
         WHERE c.customer_id = $1 AND (c.workspace_id IS NULL OR c.workspace_id = $2) \
         AND ($3 = FALSE OR c.user_id <> $4) AND ($5 = FALSE OR COALESCE(s.applied_version, 0) <> c.version) \
         ORDER BY c.position";
    query(SLOTS)
        .bind(customer)
        .bind(workspace)
        .bind(scope == Scope::Users)
        .bind(SYSTEM_USER)
        .bind(only_behind)
        .all(source)
        .await
}

/// What is open in a workspace: slots and versions.
async fn open(
    source: impl Source,
    workspace: Id<Workspace>,
) -> Result<HashSet<(Id<Configuration>, i64)>, StorageError> {
    row! {
        struct Open {
            configuration_id: Id<Configuration>,
            version: i64,
        }
    }
    const OPEN: &str = "SELECT configuration_id, version FROM liaison_configuration_events \
         WHERE workspace_id = $1 AND is_open = TRUE AND configuration_id IS NOT NULL";
    let open: Vec<Open> = query(OPEN).bind(workspace).all(source).await?;
    Ok(open.into_iter().map(|open| (open.configuration_id, open.version)).collect())
}

async fn offer(
    tx: &mut Tx,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    slots: &[SlotRow],
    event_type: EventType,
    position: i64,
) -> Result<(), StorageError> {
    if slots.is_empty() {
        return Ok(());
    }
    let now = tx.now().await?;
    let deliveries: Vec<_> =
        slots.iter().map(|slot| Delivery::again(workspace, slot.id, slot.version, position, now)).collect();
    deliver(tx, &deliveries, event_type).await?;
    tx.announce(customer);
    Ok(())
}

/// Notes when each slot was healed, so that the next time waits longer.
async fn note_heals(
    tx: &mut Tx,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    slots: &[SlotRow],
    now: Timestamp,
) -> Result<(), StorageError> {
    const NOTE: Sql = Sql::Each {
        sqlite: "INSERT INTO workspace_slots (workspace_id, configuration_id, customer_id, applied_version, applied_checksum, \
                 withheld_version, heal_version, heal_count, heal_after) \
             SELECT $2, unhex(value ->> 0), $3, 0, '', 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each($1) WHERE TRUE \
             ON CONFLICT (workspace_id, configuration_id) DO UPDATE SET heal_version = excluded.heal_version, \
                 heal_count = excluded.heal_count, heal_after = excluded.heal_after",
        postgres: "INSERT INTO workspace_slots (workspace_id, configuration_id, customer_id, applied_version, applied_checksum, \
                 withheld_version, heal_version, heal_count, heal_after) \
             SELECT $2, CAST(value ->> 0 AS uuid), $3, 0, '', 0, CAST(value ->> 1 AS bigint), CAST(value ->> 2 AS bigint), \
                 CAST(value ->> 3 AS bigint) FROM jsonb_array_elements(CAST($1 AS jsonb)) \
             ON CONFLICT (workspace_id, configuration_id) DO UPDATE SET heal_version = excluded.heal_version, \
                 heal_count = excluded.heal_count, heal_after = excluded.heal_after",
    };
    let mut slots: Vec<_> = slots.iter().collect();
    // Rows are locked in one order, whoever writes them.
    slots.sort_by_key(|slot| slot.id.uuid());
    let rows: serde_json::Value = slots
        .into_iter()
        .map(|slot| {
            let heals = slot.heals(now);
            let after = now.plus(retry_delay(heals));
            serde_json::json!([slot.id.uuid().simple().to_string(), slot.version, heals, after.as_micros()])
        })
        .collect();
    if rows.as_array().is_none_or(Vec::is_empty) {
        return Ok(());
    }
    query(NOTE).bind(rows.to_string()).bind(Value::from(workspace)).bind(customer).execute(tx).await?;
    Ok(())
}

fn count(slots: &[SlotRow]) -> Replayed {
    let mut replayed = Replayed::default();
    for slot in slots {
        if slot.user_id == SYSTEM_USER {
            replayed.global += 1;
        } else if slot.key_id.is_empty() {
            replayed.per_user += 1;
        } else {
            replayed.per_user_per_key += 1;
        }
    }
    replayed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(heal_version: i64, heal_count: i64, heal_after: Option<i64>) -> SlotRow {
        SlotRow {
            id: Id::new(Timestamp::from_secs(1)),
            user_id: "ada".to_owned(),
            config_type: "byok".to_owned(),
            key_id: "key".to_owned(),
            version: 3,
            checksum: "c3".to_owned(),
            deleted: false,
            applied_version: 3,
            withheld_version: 0,
            heal_version,
            heal_count,
            heal_after: heal_after.map(Timestamp::from_secs),
        }
    }

    fn observed(version: i64, checksum: &str) -> Observed {
        let (user_id, key_id) = ("ada".to_owned(), "key".to_owned());
        Observed { user_id, config_type: ConfigType::Byok, key_id, version, checksum: checksum.to_owned() }
    }

    fn drifts(slot: &SlotRow, observed: Option<&Observed>, is_complete: bool) -> bool {
        let slots = observed.iter().map(|observed| (("ada", "byok", "key"), *observed)).collect();
        slot.has_drifted(&Reported { slots, is_complete })
    }

    #[test]
    fn the_report_counts_before_the_record() {
        let mut slot = slot(0, 0, None);
        assert!(!drifts(&slot, None, false));
        assert!(drifts(&slot, None, true), "what a complete report leaves out is not applied");
        assert!(drifts(&slot, Some(&observed(2, "")), false));
        assert!(
            drifts(&slot, Some(&observed(4, "")), false),
            "a version that was never made is none of ours"
        );
        assert!(!drifts(&slot, Some(&observed(3, "")), true));
        assert!(!drifts(&slot, Some(&observed(3, "c3")), true));
        assert!(drifts(&slot, Some(&observed(3, "edited")), true));
        slot.deleted = true;
        assert!(!drifts(&slot, None, true));
        assert!(drifts(&slot, Some(&observed(2, "")), true));
    }

    #[test]
    fn delays_grow_until_the_slot_is_calm_or_new() {
        let now = Timestamp::from_secs(1000);
        assert!(slot(0, 0, None).may_heal(now));
        assert_eq!(slot(0, 0, None).heals(now), 1);
        assert!(!slot(3, 1, Some(1001)).may_heal(now));
        assert!(slot(3, 1, Some(1000)).may_heal(now));
        assert_eq!(slot(3, 1, Some(1000)).heals(now), 2);
        assert_eq!(slot(3, 4, Some(600)).heals(now), 1, "calm for longer than the longest delay");
        assert!(slot(2, 9, Some(2000)).may_heal(now), "another version has delays of its own");
        assert_eq!(slot(2, 9, Some(2000)).heals(now), 1);
        let withheld = SlotRow { withheld_version: 3, ..slot(0, 0, None) };
        assert!(!withheld.may_heal(now));
    }
}
