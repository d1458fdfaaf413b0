//! What the dependencies may be: `deny.toml`.

use std::process::Command;

use anyhow::Result;

use crate::process::run;
use crate::tools::Tool;

/// Checks bans, licences and sources. Advisories are left out: they change without us, so a commit that passed today
/// would fail tomorrow, and reading them needs the network.
pub(crate) fn check() -> Result<()> {
    run(Command::new(Tool::CargoDeny.path()?).args(["--workspace", "--locked", "check", "bans", "licenses", "sources"]))
}
