//! Lists the files of `migrations/`, so that adding one needs no code.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    // Asked for at run time: clones that share a target folder share the built script, too.
    let package = env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?;
    let root = Path::new(&package).join("../../migrations");
    let mut code = String::new();
    for engine in ["sqlite", "postgres"] {
        let folder = root.join(engine);
        println!("cargo:rerun-if-changed=../../migrations/{engine}");
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder)? {
            files.push(entry?.path());
        }
        files.sort();
        writeln!(code, "pub(crate) const {}: &[(&str, &str)] = &[", engine.to_uppercase())?;
        for file in files {
            let name =
                file.file_stem().and_then(|stem| stem.to_str()).ok_or("a migration's name is not UTF-8")?;
            writeln!(code, "    ({name:?}, include_str!(\"{}\")),", file.canonicalize()?.display())?;
        }
        writeln!(code, "];")?;
    }
    fs::write(Path::new(&env::var_os("OUT_DIR").ok_or("no OUT_DIR")?).join("migrations.rs"), code)?;
    Ok(())
}
