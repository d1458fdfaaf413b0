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
mod load;
mod verify;
#[expect(dead_code, reason = "only chaos kills workers")]
mod worker;
mod writers;

use std::time::Duration;

use agentrouter_testkit::{TestDb, on_both_engines};
use birth::{a_key_that_was_written_but_not_stored_is_used, first_starts_that_are_cut_short};
use common::OPERATOR_KEY;
use common::program::{Program, Settings};
use fleet::{Fleet, Tenant};
use load::Load;
use verify::Compared;
use worker::Habits;

on_both_engines!(
    fifty_kills_under_load,
    first_starts_that_are_cut_short,
    a_key_that_was_written_but_not_stored_is_used,
);

const KILLS: u32 = 50;

fn tenants() -> Vec<Tenant> {
    let workspaces = ["east", "west"].map(str::to_owned).to_vec();
    let acme = Tenant {
        customer: "acme",
        providers: &["openai", "anthropic"],
        has_keys: false,
        has_trigger: true,
        workspaces,
        races: 2,
    };
    let globex = Tenant {
        customer: "globex",
        providers: &["openai"],
        has_keys: true,
        has_trigger: false,
        ..acme.clone()
    };
    vec![acme, globex]
}

// Behaviour 29: what was answered before a kill is stored, what was not is told apart, and nothing is delivered twice.
async fn fifty_kills_under_load(db: TestDb) {
    // A second process at an embedded database would do the recovery in the server's place.
    db.db.close().await;
    let data_dir = tempfile::tempdir().unwrap();
    let settings = Settings::new(data_dir.path(), &db.target);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);

    let program = Program::start(&settings).await;
    let api = program.api(OPERATOR_KEY);
    let mut fleet = Fleet::prepare(&api, tenants(), Habits::default(), &mut rng).await;
    program.kill().await;
    for _ in 0..KILLS {
        let program = Program::start(&settings).await;
        let load = Load::start(fleet, &program);
        load.flows().await;
        tokio::time::sleep(Duration::from_millis(rng.u64(50..=200))).await;
        fleet = load.cut_short(program).await;
    }

    let program = Program::start(&settings).await;
    fleet = load::settle(fleet, &program).await;
    let stored = settings.open().await;
    verify::closed(&stored).await;
    program.stop().await;
    let compared = verify::compare(&stored, &fleet).await;
    println!("{compared}");
    // A test under which hardly anything happened has shown nothing.
    let Compared { writes, triggers, claims, applied, .. } = compared;
    assert!(writes > 100 && triggers > 25 && claims > 40 && applied > 40);
}
