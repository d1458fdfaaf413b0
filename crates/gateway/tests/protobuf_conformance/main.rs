//! The official conformance suite of protobuf against the codec of this crate: every case that reads or writes JSON,
//! those that are only recommended, too, in proto2, proto3 and edition 2023 (A4 #54, #66).
//!
//! The suite's runner starts a program that it asks to convert messages. That program is this one, started once more.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets the unexpected must stop")]
#![expect(clippy::print_stdout, reason = "what the runner counted is shown")]

mod testee;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The runner, with what older machines have to load before it beside it; `cargo xtask test` sets it.
const RUNNER: &str = "AGENTROUTER_TEST_PROTOBUF_CONFORMANCE";
/// What compiles the suite's protos.
const BUF: &str = "AGENTROUTER_TEST_BUF";
/// The file with the descriptors of the suite's protos, for the program that is asked.
const DESCRIPTORS: &str = "AGENTROUTER_PROTOBUF_CONFORMANCE_DESCRIPTORS";

fn main() -> ExitCode {
    if let Some(descriptors) = std::env::var_os(DESCRIPTORS) {
        testee::run(&PathBuf::from(descriptors));
        return ExitCode::SUCCESS;
    }
    // Told as a test harness does.
    println!("\nrunning 1 test");
    let passes = conforms();
    let (outcome, result, [passed, failed]) =
        if passes { ("ok", "ok", [1, 0]) } else { ("FAILED", "FAILED", [0, 1]) };
    println!("test protobuf_conformance ... {outcome}\n");
    println!(
        "test result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n"
    );
    if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn conforms() -> bool {
    let runner = PathBuf::from(std::env::var_os(RUNNER).expect("`cargo xtask test` sets the runner"));
    let folder = tempfile::tempdir().unwrap();
    let descriptors = folder.path().join("suite.binpb");
    let compiled = Command::new(std::env::var_os(BUF).expect("`cargo xtask test` sets buf"))
        .arg("build")
        .arg(runner.parent().unwrap().with_file_name("include"))
        .arg("--as-file-descriptor-set")
        .arg("--output")
        .arg(&descriptors)
        .status()
        .unwrap();
    assert!(compiled.success(), "the suite's protos compile");
    let output = Command::new(&runner)
        .args(["--enforce_recommended", "--maximum_edition", "2023"])
        .arg(std::env::current_exe().unwrap())
        .env("LD_PRELOAD", runner.with_file_name("older.so"))
        .env(DESCRIPTORS, &descriptors)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stderr);
    for line in
        report.lines().filter(|line| line.starts_with("ERROR") || line.starts_with("CONFORMANCE SUITE"))
    {
        println!("{line}");
    }
    // A runner that did not come to its end has shown nothing.
    output.status.success() && report.contains("CONFORMANCE SUITE PASSED")
}
