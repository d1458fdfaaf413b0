//! Compiles the protos of the conformance suite, and the annotations that the gateway looks for.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let package = env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?;
    let own = Path::new(&package).join("proto");
    let shared = Path::new(&package).join("../../proto");
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=../../proto/google");

    let mut compiler = protox::Compiler::new([&own, &shared])?;
    compiler.include_imports(true).open_files([
        "connectrpc/conformance/v1/server_compat.proto",
        "connectrpc/conformance/v1/service.proto",
        "google/api/annotations.proto",
    ])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
