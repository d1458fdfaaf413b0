//! Compiles the service of the gateway's tests, and the message that templates are over.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let package = env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?;
    let includes =
        ["proto", "../gateway/tests/proto", "../../proto"].map(|path| Path::new(&package).join(path));
    for include in ["proto", "../gateway/tests/proto", "../../proto/google"] {
        println!("cargo:rerun-if-changed={include}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    for (file, descriptor) in [("gateway_test.proto", "service.bin"), ("fuzz/shape.proto", "shape.bin")] {
        let mut compiler = protox::Compiler::new(&includes)?;
        compiler.include_imports(true).open_file(file)?;
        fs::write(out.join(descriptor), compiler.encode_file_descriptor_set())?;
    }
    Ok(())
}
