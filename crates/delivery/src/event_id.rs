//! Ids of events that follow from what they deliver, so that a trigger can name the events of 10,000
//! workspaces without writing them.
//!
//! Such an id is a UUIDv7 whose time is that of the version, and whose random part holds the workspace's number
//! and the version's position in the customer's sequence. Events that repeat a version (reconcile, resync) and
//! instructions have ordinary ids.

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{Event, Id};
use uuid::Uuid;

const POSITION_BITS: u32 = 42;
const NUMBER_BITS: u32 = 32;

/// The id of the event that delivers the version at `position` to the workspace with `number`.
pub fn derive(version_created_at: Timestamp, number: i64, position: i64) -> Id<Event> {
    let millis = u64::try_from(version_created_at.as_micros() / 1_000).unwrap_or_default();
    let number = u128::from(number.unsigned_abs()) & ((1 << NUMBER_BITS) - 1);
    let position = u128::from(position.unsigned_abs()) & ((1 << POSITION_BITS) - 1);
    let payload = number << POSITION_BITS | position;
    // 74 bits: 12 beside the version nibble, 62 behind the variant.
    let mut value = u128::from(millis & 0xFFFF_FFFF_FFFF) << 80;
    value |= 0x7 << 76;
    value |= (payload >> 62) << 64;
    value |= 0b10 << 62;
    value |= payload & ((1 << 62) - 1);
    Id::from_uuid(Uuid::from_u128(value))
}

/// The workspace number and position that an id would stand for if it is a derived one. Whether it is, only
/// the version at that position tells: deriving its id again must give the same one.
pub fn parts(id: Id<Event>) -> (i64, i64) {
    let value = id.uuid().as_u128();
    let payload = (value >> 64 & 0xFFF) << 62 | value & ((1 << 62) - 1);
    let number = payload >> POSITION_BITS & ((1 << NUMBER_BITS) - 1);
    let position = payload & ((1 << POSITION_BITS) - 1);
    (i64::try_from(number).unwrap_or_default(), i64::try_from(position).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_and_the_id_is_a_uuid_v7() {
        let at = Timestamp::from_secs(1_790_000_000);
        for (number, position) in [(1, 1), (10_000, 123_456_789), (i64::from(u32::MAX), (1 << 42) - 1)] {
            let id = derive(at, number, position);
            assert_eq!(parts(id), (number, position));
            assert_eq!(id.uuid().get_version_num(), 7);
            assert_eq!(id.uuid().get_variant(), uuid::Variant::RFC4122);
            assert_ne!(id, derive(at, number, position - 1));
        }
    }
}
