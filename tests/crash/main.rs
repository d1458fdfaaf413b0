//! kill -9 of the server, again and again, while people and workers use it. Clients note what they were told; at the
//! end that is compared with what is stored.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected must stop"
)]
#![expect(clippy::print_stdout, reason = "how much was going on is part of the result")]

#[path = "../common/mod.rs"]
mod common;

mod birth;
mod call;
mod client;
mod fleet;
mod ledger;
mod verify;
mod worker;
mod writers;

use std::time::Duration;

use agentrouter_testkit::{TestDb, on_both_engines};
use birth::{a_key_that_was_written_but_not_stored_is_used, first_starts_that_are_cut_short};
use common::program::{Program, Settings};
use fleet::Fleet;

on_both_engines!(
    fifty_kills_under_load,
    first_starts_that_are_cut_short,
    a_key_that_was_written_but_not_stored_is_used,
);

const KILLS: u32 = 50;

async fn fifty_kills_under_load(db: TestDb) {
    // A second process at an embedded database would do the recovery in the server's place.
    db.db.close().await;
    let data_dir = tempfile::tempdir().unwrap();
    let settings = Settings::new(data_dir.path(), &db.target);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);

    let program = Program::start(&settings).await;
    let mut fleet = Fleet::prepare(&program, &mut rng).await;
    program.kill().await;
    for _ in 0..KILLS {
        let program = Program::start(&settings).await;
        let load = fleet.work(&program);
        load.flows().await;
        tokio::time::sleep(Duration::from_millis(rng.u64(50..=200))).await;
        fleet = load.cut_short(program).await;
    }

    let program = Program::start(&settings).await;
    fleet = fleet.settle(&program).await;
    program.stop().await;
    let stored = settings.open().await;
    println!("{}", verify::compare(&stored, &fleet).await);
}
