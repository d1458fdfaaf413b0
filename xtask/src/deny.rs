//! What the dependencies may be: `deny.toml`.

use std::process::Command;

use anyhow::Result;

use crate::process::run;
use crate::tools::Tool;

/// What is checked. Advisories are left out: they change without us, so a commit that passed today would fail tomorrow,
/// and reading them needs the network.
const CHECKS: [&str; 3] = ["bans", "licenses", "sources"];

/// Checks the dependencies of the whole workspace.
pub(crate) fn check() -> Result<()> {
    run(Command::new(Tool::CargoDeny.path()?).args(["--workspace", "--locked", "check"]).args(CHECKS))
}
