//! Programs of others that judge the document.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

/// A program among those that check OpenAPI documents.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(folder().join("bin").join(name));
    command.env("PYTHONPATH", folder());
    command
}

/// A script of these tests, for the Python that has the same packages.
pub(crate) fn script(name: &str) -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", folder());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi").join(name));
    command
}

/// Runs it to its end, which must be good; what it printed.
pub(crate) async fn succeed(mut command: Command) -> String {
    let output = command.kill_on_drop(true).output().await.unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let program = command.as_std().get_program();
    assert!(output.status.success(), "{} {}:\n{text}", OsStr::to_string_lossy(program), output.status);
    text
}

/// Where `cargo xtask test` has installed them.
fn folder() -> PathBuf {
    const VARIABLE: &str = "AGENTROUTER_TEST_OPENAPI_CHECKS";
    let program = std::env::var_os(VARIABLE)
        .unwrap_or_else(|| panic!("{VARIABLE} is not set; `cargo xtask test` sets it"));
    Path::new(&program).parent().unwrap().parent().unwrap().to_owned()
}
