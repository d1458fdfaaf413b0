//! Which test shows which promised behaviour.
//!
//! `docs/behaviours.md` numbers what the control plane promises. A test that shows one of them says so right above its
//! function, so that the promise and its proof cannot drift apart unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process::project_files;

/// The page that lists them.
const PAGE: &str = "docs/behaviours.md";

/// How many there are: a page that loses a line must not lose a promise.
const COUNT: u32 = 48;

/// How a test names one.
const MARK: &str = "// Behaviour ";

/// The macro that makes a test on each engine of a function.
const STAMP: &str = "on_both_engines!(";

/// A function that names behaviours.
#[derive(Debug, PartialEq, Eq)]
struct Marked {
    function: String,
    numbers: Vec<u32>,
    has_test_attribute: bool,
}

/// What a file says about behaviours.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    marked: Vec<Marked>,
    /// Functions that the file makes tests of, its own or those of its modules.
    stamped: BTreeSet<String>,
    faults: Vec<String>,
}

/// Prints the tests of every behaviour; fails where one has none, or a test names none that exists.
pub(crate) fn check() -> Result<()> {
    let listed = listed(&fs::read_to_string(PAGE).with_context(|| format!("cannot read {PAGE}"))?);
    ensure!(listed == (1..=COUNT).collect::<Vec<_>>(), "{PAGE} must list 1 to {COUNT} in order: {listed:?}");

    let mut pages = BTreeMap::new();
    for path in project_files()? {
        // The tasks are not the product, and this one talks about the marks.
        if path.extension().is_some_and(|extension| extension == "rs") && !path.starts_with("xtask") {
            let text = fs::read_to_string(&path)?;
            pages.insert(path, read(&text));
        }
    }
    let (tests, faults) = collect(&pages);
    for (number, tests) in &tests {
        println!("{number:>2} {}", tests.first().map_or("", String::as_str));
        for test in tests.iter().skip(1) {
            println!("   {test}");
        }
    }
    ensure!(faults.is_empty(), "marks that show nothing:\n  {}", faults.join("\n  "));
    let missing: Vec<String> =
        (1..=COUNT).filter(|number| !tests.contains_key(number)).map(|number| number.to_string()).collect();
    ensure!(missing.is_empty(), "no test shows behaviour {}", missing.join(", "));
    println!(
        "{COUNT} behaviours, shown by {} tests",
        tests.values().flatten().collect::<BTreeSet<_>>().len()
    );
    Ok(())
}

/// The numbers of the page's list.
fn listed(page: &str) -> Vec<u32> {
    page.lines().filter_map(|line| line.split_once(". ")?.0.parse().ok()).collect()
}

/// The tests by number, and the marks that are wrong.
fn collect(pages: &BTreeMap<PathBuf, Page>) -> (BTreeMap<u32, Vec<String>>, Vec<String>) {
    let mut tests: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut faults = Vec::new();
    for (path, page) in pages {
        let shown = path.display();
        faults.extend(page.faults.iter().map(|fault| format!("{shown}:{fault}")));
        for marked in &page.marked {
            let function = &marked.function;
            let is_stamped = || {
                stampers(path)
                    .any(|file| pages.get(&file).is_some_and(|page| page.stamped.contains(function)))
            };
            let test = if marked.has_test_attribute {
                format!("{shown} {function}")
            } else if is_stamped() {
                format!("{shown} {function} (SQLite, PostgreSQL)")
            } else {
                faults.push(format!("{shown}: {function} is not a test"));
                continue;
            };
            for number in &marked.numbers {
                if (1..=COUNT).contains(number) {
                    tests.entry(*number).or_default().push(test.clone());
                } else {
                    faults.push(format!("{shown}: {function} names {number}, which {PAGE} does not list"));
                }
            }
        }
    }
    (tests, faults)
}

/// The files that may make tests of a file's functions: itself, and those it is a module of.
fn stampers(path: &Path) -> impl Iterator<Item = PathBuf> {
    let folders = path.ancestors().skip(1).filter(|folder| folder.file_name().is_some());
    let above = folders
        .flat_map(|folder| [folder.join("main.rs"), folder.join("mod.rs"), folder.with_extension("rs")]);
    std::iter::once(path.to_path_buf()).chain(above)
}

/// Reads a file of Rust, line by line: rustfmt keeps marks, attributes and functions on lines of their own.
fn read(text: &str) -> Page {
    let mut page = Page { stamped: stamped(text), ..Page::default() };
    let mut numbers = Vec::new();
    let mut has_test_attribute = false;
    let mut open_brackets = 0;
    for (at, line) in (1..).zip(text.lines().map(str::trim)) {
        if open_brackets > 0 {
            open_brackets += brackets(line);
        } else if let Some(mark) = line.strip_prefix(MARK) {
            match mark.split_once(':').map(|(number, what)| (number.parse(), what.trim())) {
                Some((Ok(number), what)) if !what.is_empty() => numbers.push(number),
                _ => page.faults.push(format!("{at}: not of the form `{MARK}<number>: <what is shown>`")),
            }
        } else if line.starts_with("#[") {
            has_test_attribute |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            open_brackets = brackets(line);
        } else if !line.starts_with("//") {
            match function(line) {
                Some(function) if !numbers.is_empty() => page.marked.push(Marked {
                    function: function.to_owned(),
                    numbers: std::mem::take(&mut numbers),
                    has_test_attribute,
                }),
                None if !numbers.is_empty() => {
                    numbers.clear();
                    page.faults.push(format!("{at}: a mark stands right above its test"));
                }
                _ => {}
            }
            has_test_attribute = false;
        }
    }
    page
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A mark, put together here so that no other tool takes it for one.
    fn mark(number: &str) -> String {
        format!("{MARK}{number}: what it shows\n")
    }

    fn pages(files: &[(&str, String)]) -> BTreeMap<PathBuf, Page> {
        files.iter().map(|(path, text)| (PathBuf::from(path), read(text))).collect()
    }

    #[test]
    fn tests_are_found_by_attribute_and_by_stamp() {
        let plain = format!(
            "{}{}#[expect(\n    lint,\n    reason = \"a reason\"\n)]\n#[tokio::test(flavor = \"x\")]\nasync fn plain() {{}}\n",
            mark("3"),
            mark("4")
        );
        let main = "on_both_engines!(\n    // Together:\n    both,\n    deep, other\n);\n".to_owned();
        let deep = format!("{}// More words.\npub(crate) async fn deep(db: TestDb) {{}}\n", mark("4"));
        let both = format!("{}fn both() {{}}\n{main}", mark("48"));
        let files = [
            ("crates/a/tests/plain.rs", plain),
            ("tests/crash/main.rs", main.clone()),
            ("tests/crash/inner/deep.rs", deep),
            ("tests/both.rs", both),
        ];
        let (tests, faults) = collect(&pages(&files));
        assert_eq!(faults, Vec::<String>::new());
        let deep = "tests/crash/inner/deep.rs deep (SQLite, PostgreSQL)".to_owned();
        let plain = "crates/a/tests/plain.rs plain".to_owned();
        let both = "tests/both.rs both (SQLite, PostgreSQL)".to_owned();
        let expected = BTreeMap::from([(3, vec![plain.clone()]), (4, vec![plain, deep]), (48, vec![both])]);
        assert_eq!(tests, expected);
    }

    #[test]
    fn marks_that_show_nothing_are_faults() {
        for (text, expected) in [
            (format!("{}fn helper() {{}}", mark("1")), "a.rs: helper is not a test"),
            (format!("{}#[test]\nfn a() {{}}", mark("49")), "a.rs: a names 49"),
            (format!("{}#[test]\nfn a() {{}}", mark("0")), "a.rs: a names 0"),
            (format!("{}#[test]\nfn a() {{}}", mark("one")), "a.rs:1: not of the form"),
            (format!("{MARK}1\n#[test]\nfn a() {{}}"), "a.rs:1: not of the form"),
            (format!("{}\n#[test]\nfn a() {{}}", mark("1")), "a.rs:2: a mark stands right above"),
            (format!("{}let a = 1;", mark("1")), "a.rs:2: a mark stands right above"),
            (format!("#[test]\nfn a() {{}}\n{}fn b() {{}}", mark("1")), "a.rs: b is not a test"),
        ] {
            let (tests, faults) = collect(&pages(&[("a.rs", text.clone())]));
            assert_eq!(tests, BTreeMap::new(), "{text}");
            assert!(matches!(&faults[..], [fault] if fault.starts_with(expected)), "{text}: {faults:?}");
        }
    }

    #[test]
    fn the_page_lists_them_by_number() {
        assert_eq!(
            listed("# Title\n\nSee 3. and 4\n\n1. One.\n2. Two, not 2.5.\n\n## More\n\n3. Three.\n"),
            [1, 2, 3]
        );
    }
}
