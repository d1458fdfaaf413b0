//! For tests only: a migrated database per test on each engine, and callers to test with.
//!
//! A test body takes a [`TestDb`] and is stamped onto both engines by [`on_both_engines!`]. PostgreSQL is
//! found by `AGENTROUTER_TEST_POSTGRES_URL`, which `cargo xtask test` sets; without it the test fails.

#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a test that cannot set up must stop")]

mod call;
mod db;
mod locks;
mod refusal;

pub use call::{admin, call, operator, request, session, viewer, workspace};
pub use db::{TestDb, postgres, sqlite};
pub use locks::until_awaited;
pub use refusal::{refused, violations};

/// Stamps test bodies `async fn name(db: TestDb)` onto both engines.
#[macro_export]
macro_rules! on_both_engines {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::postgres().await).await;
            })*
        }
    };
}
