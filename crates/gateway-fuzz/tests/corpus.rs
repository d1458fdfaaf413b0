//! Every kept input once more, without an engine.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets the unexpected must stop")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use agentrouter_gateway_fuzz::{TARGETS, target};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder of the corpus");
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Runs all inputs of a target, and names the one that fails.
fn replay(name: &str) {
    let run = target(name).expect("a target");
    let folder = corpus().join(name);
    let inputs = names(&folder);
    assert!(inputs.len() > 5, "{name} has {} inputs", inputs.len());
    for input in inputs {
        let bytes = fs::read(folder.join(&input)).unwrap();
        let outcome = std::panic::catch_unwind(|| run(&bytes));
        assert!(outcome.is_ok(), "{name}/{input} fails: \"{}\"", bytes.escape_ascii());
    }
}

#[test]
fn every_target_has_a_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&corpus()), targets);
}

/// A9 #103: templates and paths.
#[test]
fn templates() {
    replay("template");
}

/// A9 #103: queries.
#[test]
fn queries() {
    replay("query");
}

/// A9 #103: JSON and messages.
#[test]
fn json() {
    replay("json");
}

/// A9 #98, #103: frames of every protocol, whole and in pieces.
#[test]
fn frames() {
    replay("frames");
}

/// A9 #103: whole requests.
#[test]
fn requests() {
    replay("requests");
}
