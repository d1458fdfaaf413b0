//! Compiles the protos of `rivals`: what is served, and beside it a few or many more routes.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const ORDERS: &str = "agentrouter/bench/v1/orders.proto";
/// Routes beside the two of the orders, so that there are 10 and 1,000 of them.
const MORE: [(&str, usize); 2] = [("descriptor-10.bin", 8), ("descriptor-1000.bin", 998)];

fn main() -> Result<(), Box<dyn Error>> {
    let package = env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let (own, shared) = (Path::new(&package).join("proto"), Path::new(&package).join("../proto"));
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=../proto/agentrouter/options");
    println!("cargo:rerun-if-changed=../proto/google");

    let folders = [&own, &shared, &out];
    let compiled = |name: &str, file: &str| -> Result<protox::Compiler, Box<dyn Error>> {
        let mut compiler = protox::Compiler::new(folders)?;
        compiler.include_imports(true).open_file(file)?;
        fs::write(out.join(name), compiler.encode_file_descriptor_set())?;
        Ok(compiler)
    };
    let orders = compiled("descriptor.bin", ORDERS)?;
    for (name, routes) in MORE {
        let file = format!("more-{routes}.proto");
        fs::write(out.join(&file), more(routes)?)?;
        compiled(name, &file)?;
    }
    let mut config = prost_build::Config::new();
    // Sorted, so that all write the same text. The options are those of another crate.
    config.btree_map(["."]).extern_path(".agentrouter.options.v1", "::agentrouter_api::options");
    config.service_generator(tonic_prost_build::configure().service_generator());
    config.compile_fds(orders.file_descriptor_set())?;
    Ok(())
}

/// A service with so many routes: resources of shops, each with five methods, as services have them.
fn more(routes: usize) -> Result<String, std::fmt::Error> {
    let mut text = format!(
        "syntax = \"proto3\";\npackage agentrouter.bench.v1;\nimport \"{ORDERS}\";\n\
         import \"google/api/annotations.proto\";\nservice MoreService {{\n"
    );
    for index in 0..routes {
        let (kind, one) = (index / 5, "number");
        let (verb, tail) = match index % 5 {
            0 => ("get", format!("/{{{one}}}")),
            1 => ("get", String::new()),
            2 => ("post", String::new()),
            3 => ("put", format!("/{{{one}}}")),
            _ => ("delete", format!("/{{{one}}}")),
        };
        let body = if matches!(verb, "post" | "put") { " body: \"*\"" } else { "" };
        writeln!(
            text,
            "rpc More{index}(FindRequest) returns (FindResponse) {{ option (google.api.http) = {{ {verb}: \
             \"/v1/shops/{{shop}}/kind{kind}s{tail}\"{body} }}; }}"
        )?;
    }
    text.push_str("}\n");
    Ok(text)
}
