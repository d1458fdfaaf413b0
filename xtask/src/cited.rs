//! What the comments above tests say that they show.
//!
//! Lists of promises number them, and a test names the number right above its function, so that a promise and its proof
//! cannot drift apart unseen. This module finds the comments and the tests; what a mark looks like is the lists' own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::process::project_files;

/// The macro that makes a test on each engine of a function.
const STAMP: &str = "on_both_engines!(";

/// Comments, and what stands right below them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Commented {
    /// Lines with their numbers.
    pub(crate) comments: Vec<(usize, String)>,
    /// The number of the line below.
    pub(crate) line: usize,
    /// The function that begins there.
    pub(crate) function: Option<String>,
    has_test_attribute: bool,
}

/// What makes a test of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An attribute.
    Attribute,
    /// The macro for both engines, in its own file or in that of a module above.
    BothEngines,
}

/// The commented code of the project.
#[derive(Debug, Default)]
pub(crate) struct Code(BTreeMap<PathBuf, Page>);

/// A file.
#[derive(Debug)]
struct Page {
    commented: Vec<Commented>,
    /// Functions that the file makes tests of, its own or those of its modules.
    stamped: BTreeSet<String>,
}

impl Code {
    /// Reads all Rust but that of the tasks, which are not the product and talk about marks.
    pub(crate) fn of_project() -> Result<Self> {
        let mut code = Self::default();
        for path in project_files()? {
            if path.extension().is_some_and(|extension| extension == "rs") && !path.starts_with("xtask") {
                let text = fs::read_to_string(&path)?;
                code.insert(path, &text);
            }
        }
        Ok(code)
    }

    pub(crate) fn insert(&mut self, path: PathBuf, text: &str) {
        self.0.insert(path, Page { commented: commented(text), stamped: stamped(text) });
    }

    /// Everything with a comment, file by file.
    pub(crate) fn commented(&self) -> impl Iterator<Item = (&Path, &Commented)> {
        self.0
            .iter()
            .flat_map(|(path, page)| page.commented.iter().map(move |commented| (&**path, commented)))
    }

    /// Whether the code below the comments is a test.
    pub(crate) fn kind(&self, path: &Path, commented: &Commented) -> Option<Kind> {
        let function = commented.function.as_ref()?;
        if commented.has_test_attribute {
            return Some(Kind::Attribute);
        }
        stampers(path)
            .any(|file| self.0.get(&file).is_some_and(|page| page.stamped.contains(function)))
            .then_some(Kind::BothEngines)
    }
}

/// The files that may make tests of a file's functions: itself, and those it is a module of.
fn stampers(path: &Path) -> impl Iterator<Item = PathBuf> {
    let folders = path.ancestors().skip(1).filter(|folder| folder.file_name().is_some());
    let above = folders
        .flat_map(|folder| [folder.join("main.rs"), folder.join("mod.rs"), folder.with_extension("rs")]);
    std::iter::once(path.to_path_buf()).chain(above)
}

/// Reads a file of Rust, line by line: rustfmt keeps comments, attributes and functions on lines of their own.
fn commented(text: &str) -> Vec<Commented> {
    let mut found = Vec::new();
    let mut comments = Vec::new();
    let mut has_test_attribute = false;
    let mut open_brackets = 0;
    for (at, line) in (1..).zip(text.lines().map(str::trim)) {
        if open_brackets > 0 {
            open_brackets += brackets(line);
        } else if line.starts_with("//") {
            comments.push((at, line.to_owned()));
        } else if line.starts_with("#[") {
            has_test_attribute |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            open_brackets = brackets(line);
        } else {
            if !comments.is_empty() {
                let function = function(line).map(str::to_owned);
                let comments = std::mem::take(&mut comments);
                found.push(Commented { comments, line: at, function, has_test_attribute });
            }
            has_test_attribute = false;
        }
    }
    found
}

/// How many more brackets a line opens than it closes.
fn brackets(line: &str) -> i32 {
    line.chars().fold(0, |depth, c| match c {
        '[' | '(' => depth + 1,
        ']' | ')' => depth - 1,
        _ => depth,
    })
}

/// The name of the function that begins on this line.
fn function(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_function = before.split_whitespace().all(|word| word.starts_with("pub") || word == "async");
    let name = after.split(['(', '<']).next()?;
    is_function.then_some(name)
}

/// The functions that the file makes tests of on both engines.
fn stamped(text: &str) -> BTreeSet<String> {
    let lists = text.split(STAMP).skip(1).filter_map(|after| after.split(')').next());
    let lines = lists.flat_map(str::lines).map(|line| line.split("//").next().unwrap_or_default());
    let names = lines.flat_map(|line| line.split(',')).map(|name| name.trim().to_owned());
    names.filter(|name| !name.is_empty()).collect()
}
