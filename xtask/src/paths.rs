//! No file of the project names a folder of somebody's machine: it would be wrong on every other.

use std::fs;

use anyhow::{Result, ensure};

use crate::process::project_files;

/// Top-level folders that hold people's homes and work, so that what lies below differs from machine to machine.
const PRIVATE: &[&str] = &["Users", "farm", "home", "root", "work"];

/// Fails with every line that names such a folder.
pub(crate) fn check() -> Result<()> {
    let files = project_files()?;
    let mut found = Vec::new();
    for path in &files {
        let bytes = fs::read(path)?;
        // A file that is no text holds nothing a person wrote.
        let Ok(text) = std::str::from_utf8(&bytes) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(machine_path) = find(line) {
                found.push(format!("{}:{number}: {machine_path}", path.display()));
            }
        }
    }
    ensure!(found.is_empty(), "paths that exist on one machine only:\n  {}", found.join("\n  "));
    println!("{} files, none names a folder of a machine", files.len());
    Ok(())
}

/// The first path on the line that starts in a private folder.
fn find(line: &str) -> Option<&str> {
    let starts = line.match_indices('/').filter(|(at, _)| !continues_a_path(&line[..*at]));
    starts.map(|(at, _)| path_at(&line[at..])).find(|path| is_private(path))
}

/// Whether a slash after this text is inside a longer path or an address, not the start of a path.
fn continues_a_path(before: &str) -> bool {
    before.chars().next_back().is_some_and(|last| last.is_alphanumeric() || "_-.~/}>*".contains(last))
}

fn path_at(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || "_-./".contains(c))).unwrap_or(text.len());
    &text[..end]
}

fn is_private(path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    let top = parts.next().unwrap_or_default();
    PRIVATE.contains(&top) && parts.next().is_some_and(|below| !below.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path below a private folder, put together here so that this file passes its own check.
    fn private(top: &str, below: &str) -> String {
        format!("/{top}/{below}")
    }

    #[test]
    fn finds_folders_of_a_machine() {
        for path in [private("home", "ann/project"), private("root", ".cache"), private("Users", "bob")] {
            for line in
                [format!("cd {path} && ls"), format!("\"{path}\""), format!("DIR={path}"), path.clone()]
            {
                assert_eq!(find(&line), Some(path.as_str()), "{line}");
            }
        }
    }

    #[test]
    fn leaves_other_paths_alone() {
        let inside = format!("docs{}", private("work", "plan.md"));
        let address = format!("https://example.com{}", private("home", "page"));
        let variable = format!("${{base}}{}", private("root", "x"));
        for line in [
            inside.as_str(),
            address.as_str(),
            variable.as_str(),
            "/usr/lib/postgresql/15/bin",
            "/v1/workspaces/ws_1:sync",
            "/work/ alone",
            "// a comment",
        ] {
            assert_eq!(find(line), None, "{line}");
        }
    }
}
