//! How long the Rust files are: a long file is usually two rooms in one.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::process::project_files;

/// Lines from which a file is worth a thought.
const LONG: usize = 500;

/// Lines from which a file fails the check.
const TOO_LONG: usize = 800;

/// Lists the long files, longest first; fails where one is too long.
pub(crate) fn check() -> Result<()> {
    let mut files = Vec::new();
    for path in project_files()?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")) {
        files.push((fs::read_to_string(&path)?.lines().count(), path));
    }
    files.sort_unstable_by(|a, b| b.cmp(a));
    let long: Vec<&(usize, PathBuf)> = files.iter().take_while(|(lines, _)| *lines > LONG).collect();
    for (lines, path) in &long {
        println!("{lines:>6} {}", path.display());
    }
    println!("{} Rust files, {} of them over {LONG} lines", files.len(), long.len());
    ensure!(
        long.iter().all(|(lines, _)| *lines <= TOO_LONG),
        "split the files of more than {TOO_LONG} lines"
    );
    Ok(())
}
