//! All tests of the workspace, with everything they need around them.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, IsTerminal};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::postgres::{self, Cluster, Durability};
use crate::process::{cargo, run as run_command};
use crate::tools::Tool;

/// How long no test may end before the run is given up: one that hangs would otherwise eat all the time there is.
const SILENCE: Duration = Duration::from_mins(10);

/// Runs `cargo test` on the whole workspace, or as `args` say.
///
/// Without a person at the terminal who would see it, a run in which no test ends for ten minutes is ended as failed.
///
/// The tests find a PostgreSQL in `AGENTROUTER_TEST_POSTGRES_URL`, its programs in
/// `AGENTROUTER_TEST_POSTGRES_BIN`, grpcurl in
/// `AGENTROUTER_TEST_GRPCURL`, an OpenID Connect issuer in `AGENTROUTER_TEST_OIDC_PROVIDER`, a data plane in
/// `AGENTROUTER_TEST_AIGW` and `AGENTROUTER_TEST_ENVOY`, the API server of Kubernetes in
/// `AGENTROUTER_TEST_KUBE_APISERVER`, the conformance suite of protobuf in
/// `AGENTROUTER_TEST_PROTOBUF_CONFORMANCE`, what judges the OpenAPI document in `AGENTROUTER_TEST_OPENAPI_CHECKS`, and the
/// clients of others, with what they are made by, in `AGENTROUTER_TEST_BUF`, `AGENTROUTER_TEST_CHROMIUM`,
/// `AGENTROUTER_TEST_GHZ`, `AGENTROUTER_TEST_NODE_CLIENTS` and `AGENTROUTER_TEST_PYTHON_CLIENT`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let grpcurl = Tool::Grpcurl.path()?;
    let kube_apiserver = Tool::KubeApiserver.path()?;
    let oidc_provider = Tool::OidcProvider.path()?;
    let aigw = Tool::Aigw.path()?;
    let envoy = Tool::Envoy.path()?;
    let protobuf_conformance = Tool::ProtobufConformance.path()?;
    let openapi_checks = Tool::OpenapiChecks.path()?;
    let buf = Tool::Buf.path()?;
    let chromium = Tool::Chromium.path()?;
    let ghz = Tool::Ghz.path()?;
    let node_clients = Tool::NodeClients.path()?;
    let python_client = Tool::PythonClient.path()?;
    let cluster = Cluster::start(Durability::None)?;
    let mut command = cargo();
    command.arg("test");
    if !select_packages(args) {
        command.arg("--workspace");
    }
    command.args(args);
    // Compiled first, so that silence while they run means what it seems to.
    run_command(cargo().args(before_dashes(command.get_args())).arg("--no-run"))?;
    command
        .env("AGENTROUTER_TEST_POSTGRES_URL", cluster.url())
        .env("AGENTROUTER_TEST_POSTGRES_BIN", postgres::binaries()?)
        .env("AGENTROUTER_TEST_GRPCURL", grpcurl)
        .env("AGENTROUTER_TEST_KUBE_APISERVER", kube_apiserver)
        .env("AGENTROUTER_TEST_OIDC_PROVIDER", oidc_provider)
        .env("AGENTROUTER_TEST_AIGW", aigw)
        .env("AGENTROUTER_TEST_ENVOY", envoy)
        .env("AGENTROUTER_TEST_PROTOBUF_CONFORMANCE", protobuf_conformance)
        .env("AGENTROUTER_TEST_OPENAPI_CHECKS", openapi_checks)
        .env("AGENTROUTER_TEST_BUF", buf)
        .env("AGENTROUTER_TEST_CHROMIUM", chromium)
        .env("AGENTROUTER_TEST_GHZ", ghz)
        .env("AGENTROUTER_TEST_NODE_CLIENTS", node_clients)
        .env("AGENTROUTER_TEST_PYTHON_CLIENT", python_client);
    let (totals, passed) = counted(&mut command)?;
    println!("\n{} passed, {} failed, {} skipped", totals.passed, totals.failed, totals.ignored);
    ensure!(passed, "cargo test failed");
    ensure!(totals.passed > 0, "no test ran");
    ensure!(totals.ignored == 0, "a test that is ignored proves nothing: repair it or delete it");
    Ok(())
}

/// Whether the arguments for cargo (those before a second `--`) name the packages to test.
fn select_packages(args: &[String]) -> bool {
    let mut for_cargo = args.iter().take_while(|arg| *arg != "--");
    for_cargo.any(|arg| {
        let is_short = arg.starts_with("-p") && !arg.starts_with("--");
        is_short || arg.starts_with("--package") || arg == "--workspace" || arg.starts_with("--manifest-path")
    })
}

/// The arguments that are cargo's own.
fn before_dashes<'a>(args: impl Iterator<Item = &'a OsStr>) -> Vec<&'a OsStr> {
    args.take_while(|arg| *arg != "--").collect()
}

/// Runs the tests, passing on what they print, and adds up their results.
fn counted(command: &mut Command) -> Result<(Totals, bool)> {
    let watched = !std::io::stdin().is_terminal();
    if watched {
        // A group of its own, to be ended with the test programs that cargo started.
        command.process_group(0);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let stdout = BufReader::new(child.stdout.take().context("cargo test has no standard output")?);
    let (send, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || -> std::io::Result<()> {
        let mut stdout = stdout;
        let mut line = Vec::new();
        while stdout.read_until(b'\n', &mut line)? > 0 {
            // Nobody listens any more once the run was given up.
            let _ = send.send(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
        Ok(())
    });
    let mut totals = Totals::default();
    let limit = if watched { SILENCE } else { Duration::MAX };
    loop {
        match lines.recv_timeout(limit) {
            Ok(line) => {
                print!("{line}");
                totals.add(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                run_command(Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]))?;
                child.wait()?;
                bail!(
                    "no test ended for {} min: a test hangs, among those not told above",
                    SILENCE.as_secs() / 60
                );
            }
        }
    }
    reader.join().map_err(|_| anyhow!("reading the results failed"))??;
    Ok((totals, child.wait()?.success()))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Totals {
    /// Adds a test program's closing line; any other line changes nothing.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        for part in result.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let Some(count) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
            match words.next() {
                Some("passed") => self.passed += count,
                Some("failed") => self.failed += count,
                Some("ignored") => self.ignored += count,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_add_up() {
        let mut totals = Totals::default();
        for line in [
            "running 4 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.15s",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 12.00s",
            "note: 5 passed; that is what a test printed",
        ] {
            totals.add(line);
        }
        assert_eq!(totals, Totals { passed: 13, failed: 2, ignored: 1 });
    }

    #[test]
    fn the_whole_workspace_unless_packages_are_named() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for named in ["-p xtask", "-pxtask", "--package=xtask", "--locked --package xtask", "--workspace"] {
            assert!(select_packages(&words(named)), "{named}");
        }
        for unnamed in ["", "--locked", "page -- --nocapture", "-- -p"] {
            assert!(!select_packages(&words(unnamed)), "{unnamed}");
        }
    }
}
