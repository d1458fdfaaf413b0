//! Compiles `proto/` for `crates/api`: messages, tonic services and the descriptor set that reflection,
//! the REST gateway, the access policies and the coverage tests read. Pure Rust; no `protoc` is needed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    // Asked for at run time: clones that share a target folder share the built script, too.
    let package = env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?;
    let proto = Path::new(&package).join("../../proto");
    let mut files = Vec::new();
    find_protos(&proto.join("agentrouter"), &mut files)?;
    // Nothing of ours imports these, but error details are rendered from their descriptors.
    files.push(proto.join("google/rpc/error_details.proto"));
    files.push(proto.join("google/rpc/status.proto"));
    files.sort();
    println!("cargo:rerun-if-changed=../../proto");

    let mut compiler = protox::Compiler::new([&proto])?;
    compiler.include_source_info(true).include_imports(true).open_files(&files)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        // Sorted maps encode the same way every time, so requests can be hashed.
        .btree_map(".")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn find_protos(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find_protos(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
