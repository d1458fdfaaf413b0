//! Random interleavings of everything that happens to events, against a model and the table of states.
//!
//! Each case is a customer of its own with data planes that run what their workers applied. After every step, the
//! answer and the rows are compared with what the model expects; in the end everything is drained and must have
//! converged. `AGENTROUTER_MODEL_CASES` runs more cases than the tests do by themselves. What ever failed is kept in
//! `regressions` and tried first.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected must stop"
)]

mod answers;
mod check;
mod ops;
mod rows;
mod world;

use std::future::Future;

use agentrouter_testkit::TestDb;
use ops::{Op, ops};
use proptest::test_runner::{Config, FileFailurePersistence, TestError, TestRunner};
use tokio::runtime::Runtime;
use world::World;

/// How many cases there are where nobody asks for more.
const CASES: u32 = 24;

// Behaviour 1: of racing workers one holds the event, in any interleaving.
// Behaviour 3: a stale token changes no row, in any interleaving.
// Behaviour 13: at most one event waits and one is in flight per slot, after every step.
// Behaviour 16: the applied version goes back only where the data plane says that it went back.
#[test]
fn any_interleaving_converges_on_sqlite() {
    interleave(agentrouter_testkit::sqlite());
}

// Behaviour 1: of racing workers one holds the event, in any interleaving.
// Behaviour 3: a stale token changes no row, in any interleaving.
// Behaviour 13: at most one event waits and one is in flight per slot, after every step.
// Behaviour 16: the applied version goes back only where the data plane says that it went back.
#[test]
fn any_interleaving_converges_on_postgres() {
    interleave(agentrouter_testkit::postgres());
}

fn interleave(test: impl Future<Output = TestDb>) {
    let runtime = Runtime::new().unwrap();
    let test = runtime.block_on(test);
    let config = Config {
        cases: cases(),
        max_shrink_iters: 500,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/model/regressions/events.txt",
        ))),
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&ops(), |ops| {
        runtime.block_on(run(&test, &ops));
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, ops)) => {
            let steps: Vec<_> = ops.iter().map(|op| format!("  {op:?}")).collect();
            panic!("{reason}\n{}", steps.join("\n"));
        }
        Err(error) => panic!("{error}"),
    }
}

fn cases() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration to read it from")]
    let text = std::env::var("AGENTROUTER_MODEL_CASES");
    text.map_or(CASES, |text| text.parse().unwrap())
}

async fn run(test: &TestDb, ops: &[Op]) {
    let mut world = World::new(test).await;
    for op in ops {
        world.step(op).await;
    }
    world.drain().await;
}
