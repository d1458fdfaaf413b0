//! The migrations of both engines: the same steps on each side, and none edited once recorded.
//!
//! `migrations/migrations.lock` holds a line per file, its hash and its path. A step that a database somewhere has run
//! cannot change any more, so a recorded file must keep its hash; what must change becomes a new step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::capture;

const FOLDER: &str = "migrations";
const LOCK: &str = "migrations/migrations.lock";
const ENGINES: [&str; 2] = ["sqlite", "postgres"];

/// A hash by the path below the migrations folder.
type Hashes = BTreeMap<String, String>;

/// Fails where the two sides differ, or a file differs from the lock.
pub(crate) fn check() -> Result<()> {
    let current = current()?;
    let faults = compare(&locked()?, &current);
    ensure!(faults.is_empty(), "{}", listed(&faults));
    println!(
        "{} migrations on each of {}, as recorded",
        current.len() / ENGINES.len(),
        ENGINES.join(" and ")
    );
    Ok(())
}

/// Records new migrations; a recorded one that changed is refused as in [`check`].
pub(crate) fn write() -> Result<()> {
    let (locked, current) = (locked()?, current()?);
    let unsettled: Vec<Fault> = compare(&locked, &current)
        .into_iter()
        .filter(|fault| !matches!(fault, Fault::Unrecorded(_)))
        .collect();
    ensure!(unsettled.is_empty(), "{}", listed(&unsettled));
    let lines: Vec<String> = current.iter().map(|(path, hash)| format!("{hash}  {path}")).collect();
    fs::write(LOCK, lines.join("\n") + "\n")?;
    println!("recorded {} new files", current.len() - locked.len());
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// The name is not `NNNN_<service>_<what>.sql`.
    Name(String),
    /// Two steps of one engine with the same number, or a number left out.
    Number(String),
    /// One engine lacks the step.
    OneSided(String),
    Changed(String),
    Removed(String),
    Unrecorded(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(path) => write!(f, "{path}: not named NNNN_<service>_<what>.sql"),
            Self::Number(path) => write!(f, "{path}: its number is not the one after the step before it"),
            Self::OneSided(path) => write!(f, "{path}: the other engine has no file of this name"),
            Self::Changed(path) => {
                write!(f, "{path}: changed since it was recorded; write a new migration instead")
            }
            Self::Removed(path) => write!(f, "{path}: recorded, but gone"),
            Self::Unrecorded(path) => {
                write!(f, "{path}: not recorded; run `cargo xtask migrations --write`")
            }
        }
    }
}

fn listed(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n  ")
}

fn compare(locked: &Hashes, current: &Hashes) -> Vec<Fault> {
    let mut faults = Vec::new();
    for engine in ENGINES {
        let names = names(current, engine);
        for (expected, name) in (1_u32..).zip(&names) {
            let path = format!("{engine}/{name}");
            match number(name) {
                None => faults.push(Fault::Name(path)),
                Some(number) if number != expected => faults.push(Fault::Number(path)),
                Some(_) => {}
            }
        }
        let others: BTreeSet<&str> = ENGINES.iter().flat_map(|other| self::names(current, other)).collect();
        faults.extend(others.difference(&names).map(|name| Fault::OneSided(name.to_string())));
    }
    for (path, hash) in locked {
        match current.get(path) {
            None => faults.push(Fault::Removed(path.clone())),
            Some(now) if now != hash => faults.push(Fault::Changed(path.clone())),
            Some(_) => {}
        }
    }
    faults.extend(current.keys().filter(|path| !locked.contains_key(*path)).cloned().map(Fault::Unrecorded));
    faults
}

fn names<'a>(hashes: &'a Hashes, engine: &str) -> BTreeSet<&'a str> {
    hashes.keys().filter_map(|path| path.strip_prefix(engine)?.strip_prefix('/')).collect()
}

/// The number at the start of a well-formed name.
fn number(name: &str) -> Option<u32> {
    let (number, rest) = name.strip_suffix(".sql")?.split_once('_')?;
    let (service, what) = rest.split_once('_')?;
    let is_word = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b))
    };
    let well_formed = number.len() == 4 && is_word(service) && is_word(what);
    number.parse().ok().filter(|_| well_formed)
}

fn current() -> Result<Hashes> {
    let mut paths = Vec::new();
    for engine in ENGINES {
        let folder = Path::new(FOLDER).join(engine);
        for entry in folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))? {
            let name = entry?.file_name();
            paths.push(format!("{engine}/{}", name.to_str().context("a migration's name is not UTF-8")?));
        }
    }
    let hashes = capture(
        // The hash git itself would use, without the conversions a checkout may make.
        Command::new("git").args(["hash-object", "--no-filters", "--"]).args(&paths).current_dir(FOLDER),
    )?;
    Ok(paths.into_iter().zip(hashes.lines().map(str::to_owned)).collect())
}

fn locked() -> Result<Hashes> {
    if !Path::new(LOCK).exists() {
        return Ok(Hashes::new());
    }
    let parse = |line: &str| line.split_once("  ").map(|(hash, path)| (path.to_owned(), hash.to_owned()));
    let text = fs::read_to_string(LOCK)?;
    text.lines().map(|line| parse(line).with_context(|| format!("{LOCK}: cannot read {line:?}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes<const N: usize>(files: [(&str, &str); N]) -> Hashes {
        files.into_iter().map(|(path, hash)| (path.to_owned(), hash.to_owned())).collect()
    }

    fn two_steps() -> Hashes {
        hashes([
            ("sqlite/0001_tenancy_customers.sql", "a"),
            ("sqlite/0002_audit_log.sql", "b"),
            ("postgres/0001_tenancy_customers.sql", "c"),
            ("postgres/0002_audit_log.sql", "d"),
        ])
    }

    #[test]
    fn what_is_recorded_passes() {
        assert_eq!(compare(&two_steps(), &two_steps()), []);
    }

    #[test]
    fn a_recorded_step_neither_changes_nor_goes() {
        let mut current = two_steps();
        current.insert("sqlite/0001_tenancy_customers.sql".to_owned(), "z".to_owned());
        let changed = Fault::Changed("sqlite/0001_tenancy_customers.sql".to_owned());
        assert_eq!(compare(&two_steps(), &current), [changed]);

        let mut current = two_steps();
        current.retain(|path, _| !path.ends_with("0002_audit_log.sql"));
        let removed = ["postgres/0002_audit_log.sql", "sqlite/0002_audit_log.sql"];
        assert_eq!(compare(&two_steps(), &current), removed.map(|path| Fault::Removed(path.to_owned())));
    }

    #[test]
    fn both_engines_have_each_step() {
        let mut current = two_steps();
        current.insert("sqlite/0003_audit_index.sql".to_owned(), "e".to_owned());
        let faults = compare(&current, &current);
        assert_eq!(faults, [Fault::OneSided("0003_audit_index.sql".to_owned())]);
    }

    #[test]
    fn a_new_step_waits_to_be_recorded() {
        let faults =
            compare(&Hashes::new(), &hashes([("sqlite/0001_a_b.sql", "1"), ("postgres/0001_a_b.sql", "2")]));
        let expected = ["postgres/0001_a_b.sql", "sqlite/0001_a_b.sql"];
        assert_eq!(faults, expected.map(|path| Fault::Unrecorded(path.to_owned())));
    }

    #[test]
    fn numbers_follow_each_other() {
        let gap = hashes([("sqlite/0002_a_b.sql", "1"), ("postgres/0002_a_b.sql", "2")]);
        let expected = ["sqlite/0002_a_b.sql", "postgres/0002_a_b.sql"];
        assert_eq!(compare(&gap, &gap), expected.map(|path| Fault::Number(path.to_owned())));
    }

    #[test]
    fn names_say_number_service_and_matter() {
        assert_eq!(number("0012_configurator_event_slots.sql"), Some(12));
        for name in
            ["1_a_b.sql", "0001_a.sql", "0001_A_b.sql", "0001_a_b.txt", "0001-a-b.sql", "00a1_a_b.sql"]
        {
            assert_eq!(number(name), None, "{name}");
        }
    }
}
