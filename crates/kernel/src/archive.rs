//! Archived rows: out of service, and for a while able to come back.

use std::time::Duration;

use crate::fault::Fault;
use crate::id::Kind;
use crate::time::Timestamp;

/// How long an archived row can be brought back.
pub const UNDELETE_WINDOW: Duration = Duration::from_hours(30 * 24);

/// Decides whether a row can be brought back at `now`. `name` is what the request calls it.
///
/// # Errors
/// FAILED_PRECONDITION: `<RESOURCE>_NOT_ARCHIVED` for a row in service, `UNDELETE_EXPIRED` after
/// [`UNDELETE_WINDOW`].
pub fn check_undelete<K: Kind>(
    name: &str,
    archived_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), Fault> {
    let archived_at = archived_at.ok_or_else(|| Fault::not_archived::<K>(name))?;
    if now.since(archived_at) > UNDELETE_WINDOW {
        return Err(Fault::precondition(
            "UNDELETE_EXPIRED",
            format!("{} {name:?} was archived more than 30 days ago and cannot be brought back", K::NOUN),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Project;

    #[test]
    fn the_window_is_thirty_days_to_the_microsecond() {
        let archived = Timestamp::from_secs(1_700_000_000);
        let check = |archived, now| check_undelete::<Project>("p", archived, now).map_err(|f| f.reason());
        assert_eq!(check(Some(archived), archived), Ok(()));
        let last = archived.plus(UNDELETE_WINDOW);
        assert_eq!(check(Some(archived), last), Ok(()));
        assert_eq!(check(Some(archived), last.plus(Duration::from_micros(1))), Err("UNDELETE_EXPIRED"));
        assert_eq!(check(None, last), Err("PROJECT_NOT_ARCHIVED"));
    }
}
