//! Which test shows which promised behaviour.
//!
//! `docs/behaviours.md` numbers what the control plane promises. A test that shows one of them says so right above its
//! function, so that the promise and its proof cannot drift apart unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};

use crate::cited::{Code, Kind};

/// The page that lists them.
const PAGE: &str = "docs/behaviours.md";

/// How many there are: a page that loses a line must not lose a promise.
const COUNT: u32 = 48;

/// How a test names one.
const MARK: &str = "// Behaviour ";

/// Prints the tests of every behaviour; fails where one has none, or a test names none that exists.
pub(crate) fn check() -> Result<()> {
    let listed = listed(&fs::read_to_string(PAGE).with_context(|| format!("cannot read {PAGE}"))?);
    ensure!(listed == (1..=COUNT).collect::<Vec<_>>(), "{PAGE} must list 1 to {COUNT} in order: {listed:?}");

    let (tests, faults) = collect(&Code::of_project()?);
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
fn collect(code: &Code) -> (BTreeMap<u32, Vec<String>>, Vec<String>) {
    let mut tests: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut faults = Vec::new();
    for (path, commented) in code.commented() {
        let shown = path.display();
        let mut numbers = Vec::new();
        for (line, comment) in &commented.comments {
            match comment.strip_prefix(MARK).map(|mark| mark.split_once(':')) {
                None => {}
                Some(Some((number, what))) if !what.trim().is_empty() && number.parse::<u32>().is_ok() => {
                    numbers.extend(number.parse::<u32>());
                }
                Some(_) => {
                    faults.push(format!("{shown}:{line}: not of the form `{MARK}<number>: <what is shown>`"));
                }
            }
        }
        if numbers.is_empty() {
            continue;
        }
        let Some(function) = &commented.function else {
            faults.push(format!("{shown}:{}: a mark stands right above its test", commented.line));
            continue;
        };
        let test = match code.kind(path, commented) {
            Some(Kind::Attribute) => format!("{shown} {function}"),
            Some(Kind::BothEngines) => format!("{shown} {function} (SQLite, PostgreSQL)"),
            None => {
                faults.push(format!("{shown}: {function} is not a test"));
                continue;
            }
        };
        for number in numbers {
            if (1..=COUNT).contains(&number) {
                tests.entry(number).or_default().push(test.clone());
            } else {
                faults.push(format!("{shown}: {function} names {number}, which {PAGE} does not list"));
            }
        }
    }
    (tests, faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mark, put together here so that no other tool takes it for one.
    fn mark(number: &str) -> String {
        format!("{MARK}{number}: what it shows\n")
    }

    fn code(files: &[(&str, String)]) -> Code {
        let mut code = Code::default();
        for (path, text) in files {
            code.insert(path.into(), text);
        }
        code
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
        let (tests, faults) = collect(&code(&files));
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
            let (tests, faults) = collect(&code(&[("a.rs", text.clone())]));
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
