//! Fuzzing, guided by coverage, on the stable compiler.
//!
//! The engine is libFuzzer. What it needs of the compiler are edges that count themselves: a pass of LLVM that every
//! rustc has, and that is asked for by the flags below. Sanitizers would need a nightly one, and would find nothing in
//! code without `unsafe`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::MetadataCommand;
use clap::Args;

use crate::process::{capture, cargo, run as run_command};

const PACKAGE: &str = "agentrouter-gateway-fuzz";

/// The kept inputs, a folder for each target.
const CORPUS: &str = "crates/gateway-fuzz/corpus";

/// What tells the program which target it is.
const TARGET: &str = "AGENTROUTER_FUZZ_TARGET";

/// Each edge counts how often it is taken, and comparisons tell what they are compared with.
const FLAGS: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// The bounds of a smoke run; whichever is reached first ends a target.
const SMOKE_SECONDS: u32 = 12;
const SMOKE_RUNS: &str = "-runs=200000";

/// How much of one input is shown where it fails, in bytes.
const SHOWN: usize = 2000;

/// What to fuzz.
#[derive(Debug, Args)]
pub(crate) struct Fuzz {
    /// The target; all, one after the other, where none is named
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Keep what was found: the smallest set of inputs that reaches what all of them reach
    #[arg(long)]
    keep: bool,
}

/// Runs targets. The first input that fails is an error; it is printed, and lies in the target folder.
pub(crate) fn run(Fuzz { target, seconds, keep }: &Fuzz) -> Result<()> {
    let targets = targets()?;
    if let Some(target) = target {
        ensure!(targets.contains(target), "no target `{target}`; there are {}", targets.join(", "));
    }
    let program = build()?;
    for name in targets.iter().filter(|name| target.as_ref().is_none_or(|target| target == *name)) {
        fuzz(&program, name, *seconds, &[])?;
        if *keep {
            minimize(&program, name)?;
        }
    }
    Ok(())
}

/// What CI has time for: from the kept inputs alone, the same inputs in the same order every time, so that what fails is
/// what was changed.
pub(crate) fn smoke() -> Result<()> {
    let program = build()?;
    for name in &targets()? {
        fs::remove_dir_all(work(&program, name, "found")?)?;
        fuzz(&program, name, SMOKE_SECONDS, &["-seed=1", SMOKE_RUNS])?;
    }
    Ok(())
}

/// The targets are the folders of the corpus; a test keeps it so.
fn targets() -> Result<Vec<String>> {
    let entries = fs::read_dir(CORPUS).with_context(|| format!("cannot read {CORPUS}"))?;
    let mut targets = Vec::new();
    for entry in entries {
        targets.push(entry?.file_name().to_string_lossy().into_owned());
    }
    targets.sort_unstable();
    Ok(targets)
}

/// Builds the program and returns where it is.
fn build() -> Result<PathBuf> {
    let version = capture(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say what it compiles for")?;
    // Where a target is named, the flags are not for build scripts and macros.
    run_command(
        cargo()
            .args(["build", "--locked", "--profile", "fuzz", "--target", host])
            .args(["--package", PACKAGE, "--features", "libfuzzer"])
            .env("RUSTFLAGS", FLAGS)
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    let metadata = MetadataCommand::new().no_deps().exec().context("cargo metadata")?;
    Ok(metadata.target_directory.join(host).join("fuzz").join(PACKAGE).into())
}

/// Lets the engine run. What it finds goes to a folder of its own, and what fails beside it.
fn fuzz(program: &Path, name: &str, seconds: u32, options: &[&str]) -> Result<()> {
    let found = work(program, name, "found")?;
    let failed = work(program, name, "failed")?;
    println!("--- {name}, {seconds} s");
    let before = files(&failed)?;
    let outcome = run_command(
        Command::new(program)
            .env(TARGET, name)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", failed.display()))
            // A second and half a gibibyte are far more than any input may cost.
            .args([
                "-timeout=10",
                "-rss_limit_mb=512",
                "-max_len=4096",
                "-print_final_stats=1",
                "-verbosity=0",
            ])
            .args(options)
            .arg(&found)
            .arg(kept(name)),
    );
    let Err(error) = outcome else { return Ok(()) };
    let failures: Vec<PathBuf> = files(&failed)?.into_iter().filter(|file| !before.contains(file)).collect();
    for failure in &failures {
        let input = fs::read(failure)?;
        let shown = input.get(..SHOWN).unwrap_or(&input);
        println!("{} bytes that fail, in {}:\n\"{}\"", input.len(), failure.display(), shown.escape_ascii());
    }
    bail!("{name}: {error}. Mend it, and keep the input in {}, where a test runs it", kept(name).display())
}

/// Leaves only inputs in the corpus that others do not make superfluous.
fn minimize(program: &Path, name: &str) -> Result<()> {
    let merged = work(program, name, "merged")?;
    fs::remove_dir_all(&merged)?;
    fs::create_dir_all(&merged)?;
    let (kept, found) = (kept(name), work(program, name, "found")?);
    run_command(
        Command::new(program)
            .env(TARGET, name)
            .args(["-set_cover_merge=1", "-max_len=1024", "-verbosity=0"])
            .args([&merged, &kept, &found]),
    )?;
    for file in files(&kept)?.iter().filter(|file| !is_named(file)) {
        fs::remove_file(file)?;
    }
    let mut left = 0;
    for file in files(&merged)? {
        let to = kept.join(file.file_name().unwrap_or_default());
        fs::copy(&file, to)?;
        left += 1;
    }
    println!("{name}: {left} inputs");
    Ok(())
}

/// Whether a person named an input: the engine names them by their hash. Such a one is never superfluous.
fn is_named(file: &Path) -> bool {
    let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.len() != 40 || !name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn kept(name: &str) -> PathBuf {
    Path::new(CORPUS).join(name)
}

/// A folder beside the program.
fn work(program: &Path, name: &str, what: &str) -> Result<PathBuf> {
    let folder = program.parent().context("a program without a folder")?.join("corpus").join(name).join(what);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    files.sort_unstable();
    Ok(files)
}
