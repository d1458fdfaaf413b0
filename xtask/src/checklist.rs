//! The gateway's checklist: what a gateway has to do, and the test that decides each point.
//!
//! The points stand in `crates/gateway/checklist.txt`. A test names those that it decides in the comment right above it,
//! as `A4 #54, #57` or `A1 #2 to #5`; a file of tests may do so in its first comment, and a benchmark or a program that
//! a suite runs against likewise. The crate's README ends with both, so that a reader needs no tool.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::cited::{Code, Commented};

const POINTS: &str = "crates/gateway/checklist.txt";
const README: &str = "crates/gateway/README.md";

/// Where the list begins in the README; it goes on to the end.
const HEADING: &str = "\n## Checklist\n";

/// What shows a point without being a test: figures, and the server that a suite of others is run against.
const NO_TESTS: [&str; 2] = ["bench", "crates/gateway-conformance"];

/// A part of the list.
#[derive(Debug, PartialEq, Eq)]
struct Section {
    number: u32,
    title: String,
    points: Vec<Point>,
}

/// Something that a gateway has to do.
#[derive(Debug, PartialEq, Eq)]
struct Point {
    number: u32,
    priority: Priority,
    what: String,
    /// What no test decides yet.
    open: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Priority {
    P0,
    P1,
    P2,
}

/// The tests by the number of the point.
type Tests = BTreeMap<u32, Vec<String>>;

/// Fails where a point has no test, a test names no point, or the README says otherwise.
pub(crate) fn check() -> Result<()> {
    let readme = fs::read_to_string(README).with_context(|| format!("cannot read {README}"))?;
    let (sections, tests) = current()?;
    let written = with_list(&readme, &rendered(&sections, &tests));
    ensure!(readme == written, "{README} is behind the tests: run `cargo xtask checklist --write`");
    summarize(&sections, &tests)
}

/// Writes the list into the README.
pub(crate) fn write() -> Result<()> {
    let readme = fs::read_to_string(README).with_context(|| format!("cannot read {README}"))?;
    let (sections, tests) = current()?;
    fs::write(README, with_list(&readme, &rendered(&sections, &tests)))?;
    println!("wrote {README}");
    summarize(&sections, &tests)
}

fn current() -> Result<(Vec<Section>, Tests)> {
    let points = fs::read_to_string(POINTS).with_context(|| format!("cannot read {POINTS}"))?;
    let sections = sections(&points)?;
    let (tests, faults) = collect(&Code::of_project()?, &sections);
    ensure!(faults.is_empty(), "citations that show nothing:\n  {}", faults.join("\n  "));
    Ok((sections, tests))
}

fn summarize(sections: &[Section], tests: &Tests) -> Result<()> {
    let points = || sections.iter().flat_map(|section| &section.points);
    let open = points().filter(|point| point.open.is_some()).count();
    println!("{} points, {} with tests, {open} open", points().count(), tests.len());
    let missing = missing(sections, tests);
    ensure!(missing.is_empty(), "no test decides {}, and none is declared open", missing.join(", "));
    Ok(())
}

/// The points that need a test and have none.
fn missing(sections: &[Section], tests: &Tests) -> Vec<String> {
    let points = sections.iter().flat_map(|section| &section.points);
    let missing = points.filter(|point| {
        point.priority != Priority::P2 && point.open.is_none() && !tests.contains_key(&point.number)
    });
    missing.map(|point| format!("#{}", point.number)).collect()
}

/// Reads the points, which are numbered through all sections.
fn sections(text: &str) -> Result<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    let mut next = 1;
    for (at, line) in (1..).zip(text.lines()) {
        let wrong = || format!("{POINTS}:{at}: `{line}`");
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let (word, rest) = line.trim().split_once(' ').with_context(wrong)?;
        let points = sections.last_mut().map(|section| &mut section.points);
        if word == "open:" {
            let point = points.and_then(|points| points.last_mut()).with_context(wrong)?;
            ensure!(point.open.is_none(), "{}: open twice", wrong());
            point.open = Some(rest.to_owned());
        } else if let Some(number) = word.strip_prefix('A').and_then(|number| number.parse().ok()) {
            sections.push(Section { number, title: rest.to_owned(), points: Vec::new() });
        } else {
            let number = word.parse().with_context(wrong)?;
            ensure!(number == next, "{}: number {next} is missing", wrong());
            next += 1;
            let (priority, what) = rest.split_once(' ').with_context(wrong)?;
            let priority = match priority {
                "P0" => Priority::P0,
                "P1" => Priority::P1,
                "P2" => Priority::P2,
                _ => anyhow::bail!("{}: no priority", wrong()),
            };
            points.with_context(wrong)?.push(Point { number, priority, what: what.to_owned(), open: None });
        }
    }
    Ok(sections)
}

/// The tests of each point, and the citations that are wrong.
fn collect(code: &Code, sections: &[Section]) -> (Tests, Vec<String>) {
    let mut tests = Tests::new();
    let mut headers = Vec::new();
    let mut faults = Vec::new();
    for (path, commented) in code.commented() {
        let cited = cited(commented);
        if cited.is_empty() {
            continue;
        }
        let shown = path.display();
        let is_header = commented.comments.iter().all(|(_, comment)| comment.starts_with("//!"));
        let is_no_test = NO_TESTS.iter().any(|folder| path.starts_with(folder));
        let test = match &commented.function {
            _ if is_header && (is_no_test || is_of_tests(path)) => None,
            Some(function) if is_no_test || code.kind(path, commented).is_some() => Some(function),
            _ => {
                faults.push(format!("{shown}:{}: a citation stands right above its test", commented.line));
                continue;
            }
        };
        for (section, number) in cited {
            let exists = sections
                .iter()
                .any(|one| one.number == section && one.points.iter().any(|point| point.number == number));
            if !exists {
                faults.push(format!("{shown}:{}: {POINTS} has no A{section} #{number}", commented.line));
            } else if let Some(function) = test {
                let entry = tests.entry(number).or_default();
                let test = format!("{shown}::{function}");
                if !entry.contains(&test) {
                    entry.push(test);
                }
            } else {
                headers.push((number, shown.to_string()));
            }
        }
    }
    // A whole file is named only where none of its functions is.
    for (number, file) in headers {
        let entry = tests.entry(number).or_default();
        if !entry.iter().any(|test| test.starts_with(&file)) {
            entry.push(file);
        }
    }
    (tests, faults)
}

/// Whether a file holds nothing but tests.
fn is_of_tests(path: &Path) -> bool {
    path.components().any(|component| component.as_os_str() == "tests")
}

/// The sections and numbers that comments name.
fn cited(commented: &Commented) -> Vec<(u32, u32)> {
    let lines = commented.comments.iter().map(|(_, comment)| comment.trim_start_matches(['/', '!']));
    let mut found: Vec<(u32, u32)> = Vec::new();
    let mut section = None;
    let mut is_range = false;
    for word in lines.flat_map(str::split_whitespace) {
        let bare = word.trim_start_matches('(').trim_end_matches([',', ':', ';', '.', ')']);
        let number = |prefix| bare.strip_prefix(prefix).and_then(|number| number.parse::<u32>().ok());
        if let Some(number) = number('A') {
            section = Some(number);
        } else if let (Some(section), Some(number)) = (section, number('#')) {
            match found.last() {
                Some(&(_, first)) if is_range => found.extend((first + 1..=number).map(|one| (section, one))),
                _ => found.push((section, number)),
            }
        } else if bare != "to" && bare != "and" {
            section = None;
        }
        is_range = bare == "to";
        if word.ends_with([':', ';', '.', ')']) {
            section = None;
        }
    }
    found
}

/// The README with the list at its end.
fn with_list(readme: &str, list: &str) -> String {
    let (before, _) = readme.split_once(HEADING).unwrap_or((readme, ""));
    format!("{}\n{HEADING}\n{list}", before.trim_end())
}

/// The list as a reader sees it.
fn rendered(sections: &[Section], tests: &Tests) -> String {
    let mut list = String::from(
        "What a gateway has to do, and the tests that decide it; `cargo xtask checklist --write` writes the list. P0 is what\n\
         nobody goes without, P1 what sets this one apart, P2 what may come later. Paths begin at the repository's root.\n",
    );
    for Section { number, title, points } in sections {
        let _ = write!(list, "\n### A{number} {title}\n\n| # | | Point | Decided by |\n|--:|:-:|---|---|\n");
        for Point { number, priority, what, open } in points {
            let named = tests.get(number).map_or(&[][..], Vec::as_slice);
            let tests = named.iter().map(|test| format!("`{test}`"));
            let open = open.iter().map(|reason| format!("open: {reason}"));
            let decided = tests.chain(open).collect::<Vec<_>>().join("<br>");
            let what = what.replace('|', "\\|");
            let _ = writeln!(list, "| {number} | {priority:?} | {what} | {decided} |");
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# Words.\n\nA1 Paths\n1 P0 First\n2 P1 Second\n   open: not yet\n3 P2 Third\n\nA2 More\n4 P0 Fourth\n";

    fn collected(files: &[(&str, &str)]) -> (Tests, Vec<String>) {
        let mut code = Code::default();
        for (path, text) in files {
            code.insert(path.into(), text);
        }
        collect(&code, &sections(LIST).unwrap())
    }

    #[test]
    fn points_are_numbered_through() {
        let sections = sections(LIST).unwrap();
        let numbers: Vec<u32> =
            sections.iter().flat_map(|section| &section.points).map(|point| point.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert_eq!(sections[0].points[1].open.as_deref(), Some("not yet"));
        assert_eq!(missing(&sections, &Tests::from([(4, Vec::new())])), ["#1"]);
        for wrong in
            ["A1 Paths\n2 P0 Second", "1 P0 First", "A1 Paths\n1 P3 First", "A1 Paths\nopen: yes", "word"]
        {
            assert!(super::sections(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tests_are_found_in_every_form_of_citation() {
        let (tests, faults) = collected(&[
            ("a.rs", "/// A1 #1 to #3, A2 #4: words, #9.\n/// More of A1 and so on.\n#[test]\nfn a() {}"),
            ("bench/src/b.rs", "//! Figures: checklist A2 #4.\n\n// A1 #1.\nfn b() {}"),
            (
                "crates/a/tests/c.rs",
                "//! Words (A1 #1). As \"A9 #9\".\n\n// A1 #2 and #3\n#[tokio::test]\nasync fn c() {}",
            ),
            ("tests/d/main.rs", "on_both_engines!(d);"),
            ("tests/d/e.rs", "// A1 #1,\n// #3.\npub(crate) async fn d() {}"),
        ]);
        assert_eq!(faults, Vec::<String>::new());
        let expected = [
            (1, vec!["a.rs::a", "bench/src/b.rs::b", "tests/d/e.rs::d", "crates/a/tests/c.rs"]),
            (2, vec!["a.rs::a", "crates/a/tests/c.rs::c"]),
            (3, vec!["a.rs::a", "crates/a/tests/c.rs::c", "tests/d/e.rs::d"]),
            (4, vec!["a.rs::a", "bench/src/b.rs"]),
        ];
        let expected: Tests =
            expected.map(|(number, tests)| (number, tests.into_iter().map(str::to_owned).collect())).into();
        assert_eq!(tests, expected);
    }

    #[test]
    fn citations_that_show_nothing_are_faults() {
        for (text, expected) in [
            ("// A1 #5\n#[test]\nfn a() {}", "a.rs:3: crates/gateway/checklist.txt has no A1 #5"),
            ("// A2 #1\n#[test]\nfn a() {}", "a.rs:3: crates/gateway/checklist.txt has no A2 #1"),
            ("// A1 #1\nfn a() {}", "a.rs:2: a citation stands"),
            ("// A1 #1\n\n#[test]\nfn a() {}", "a.rs:2: a citation stands"),
            ("//! A1 #1\n\n#[test]\nfn a() {}", "a.rs:2: a citation stands"),
        ] {
            let (tests, faults) = collected(&[("a.rs", text)]);
            assert_eq!(tests, Tests::new(), "{text}");
            assert!(matches!(&faults[..], [fault] if fault.starts_with(expected)), "{text}: {faults:?}");
        }
    }

    #[test]
    fn the_list_is_the_end_of_the_readme() {
        let tests = Tests::from([(1, vec!["a.rs::a".to_owned(), "b.rs::b".to_owned()])]);
        let list = rendered(&sections(LIST).unwrap(), &tests);
        assert!(
            list.contains(
                "| 1 | P0 | First | `a.rs::a`<br>`b.rs::b` |\n| 2 | P1 | Second | open: not yet |\n"
            )
        );
        let readme = with_list("# Words\n", &list);
        assert!(readme.starts_with("# Words\n\n## Checklist\n\nWhat "), "{readme}");
        assert_eq!(with_list(&readme, &list), readme);
    }
}
