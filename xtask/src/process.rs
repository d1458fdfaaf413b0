//! Running other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The cargo that runs this task.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The folder of the workspace's `Cargo.toml`.
///
/// Asked of cargo at run time: with one target folder shared by several clones, a path compiled in could be that of
/// another clone.
pub fn workspace_root() -> Result<PathBuf> {
    let manifest = capture(cargo().args(["locate-project", "--workspace", "--message-format", "plain"]))?;
    let root = PathBuf::from(manifest.trim()).parent().map(PathBuf::from);
    root.context("the workspace's manifest has no parent folder")
}

/// Runs to the end with the terminal's streams; any exit code but 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    ensure!(status.success(), "{} failed ({status})", shown(command));
    Ok(())
}

/// As [`run`], but returns what the program wrote to its standard output.
pub fn capture_bytes(command: &mut Command) -> Result<Vec<u8>> {
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start {}", shown(command)))?;
    ensure!(output.status.success(), "{} failed ({})", shown(command), output.status);
    Ok(output.stdout)
}

/// As [`capture_bytes`], for programs that print text.
pub fn capture(command: &mut Command) -> Result<String> {
    let bytes = capture_bytes(command)?;
    String::from_utf8(bytes).with_context(|| format!("{} printed no UTF-8", shown(command)))
}

/// The paths of all files that belong to the project: tracked, or new and not ignored.
pub fn project_files() -> Result<Vec<PathBuf>> {
    let list =
        capture(Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    // A file deleted but not yet committed is still listed.
    Ok(list.split_terminator('\0').map(PathBuf::from).filter(|path| path.is_file()).collect())
}

/// The command as a person would type it, without the folder of the program.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let words =
        std::iter::once(program.file_name().unwrap_or(command.get_program())).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    format!("`{line}`")
}
