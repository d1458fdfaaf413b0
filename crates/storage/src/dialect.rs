//! The statements and fragments that differ between the engines, side by side.

/// PostgreSQL's clock, in microseconds since the epoch. SQLite has the injected clock instead.
pub(crate) const POSTGRES_CLOCK: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)";

/// Takes a named lock until the transaction ends. SQLite has one writer, so there it is held already.
pub(crate) const POSTGRES_LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
