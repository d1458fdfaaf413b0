//! What those who run an installation do with it: change its key-encryption key, move it to the other engine, back it
//! up and restore it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

mod common;
mod surface;

#[path = "operations/backup.rs"]
mod backup;
#[path = "operations/copying.rs"]
mod copying;
#[path = "operations/populated.rs"]
mod populated;
#[path = "operations/rotation.rs"]
mod rotation;
#[path = "operations/sealing.rs"]
mod sealing;

use std::process::{Output, Stdio};

use agentrouter_testkit::on_both_engines;
use backup::a_restored_backup_serves_and_brings_workers_back;
use copying::{
    a_copy_needs_an_empty_target, a_copy_needs_an_unused_source, an_installation_moves_to_the_other_engine,
};
use rotation::{a_rotation_cut_short_goes_on, everything_is_rewrapped_under_load};
use sealing::a_sealed_value_opens_where_it_belongs_only;
use tokio::process::Command;

on_both_engines!(
    everything_is_rewrapped_under_load,
    a_rotation_cut_short_goes_on,
    a_sealed_value_opens_where_it_belongs_only,
    an_installation_moves_to_the_other_engine,
    a_copy_needs_an_empty_target,
    a_copy_needs_an_unused_source,
    a_restored_backup_serves_and_brings_workers_back,
);

/// The `agentrouter` program with these arguments and nothing else in its environment.
fn program(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentrouter"));
    command.env_clear().args(arguments).envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs the program, which must end well; what it prints.
async fn ran(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let Output { status, stdout, stderr } = program(arguments, environment).output().await.unwrap();
    assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// Runs the program, which must fail; what it says.
async fn failed(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let Output { status, stderr, .. } = program(arguments, environment).output().await.unwrap();
    assert_eq!(status.code(), Some(1), "{arguments:?}");
    String::from_utf8(stderr).unwrap()
}
