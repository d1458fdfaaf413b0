//! Compiles `proto/` for `crates/api`: messages, tonic services, a list of each service's unary rpcs, and the descriptor
//! set that reflection, the REST gateway, the access policies and the coverage tests read. Pure Rust; no `protoc` is
//! needed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost_build::{Service, ServiceGenerator};

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
    let mut config = prost_build::Config::new();
    // Sorted maps encode the same way every time, so requests can be hashed.
    config.btree_map(["."]);
    config.service_generator(Box::new(Services(tonic_prost_build::configure().service_generator())));
    config.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The services as tonic has them, and a function for each that names its unary rpcs one by one.
struct Services(Box<dyn ServiceGenerator>);

impl ServiceGenerator for Services {
    fn generate(&mut self, service: Service, out: &mut String) {
        let unary =
            service.methods.iter().filter(|method| !method.client_streaming && !method.server_streaming);
        let mut calls = String::new();
        for method in unary {
            let path = format!("/{}.{}/{}", service.package, service.proto_name, method.proto_name);
            calls += &format!(
                "{{ let service = std::sync::Arc::clone(service); rpcs.add({path:?}, move |request| {{ \
                 let service = std::sync::Arc::clone(&service); \
                 async move {{ service.{}(request).await }} }}); }}\n",
                method.name
            );
        }
        // The module that tonic makes has the name of the service, as a method would have it.
        let module = format!("{}_server", snake_case(&service.name));
        let (name, function) = (&service.name, snake_case(&service.name));
        self.0.generate(service.clone(), out);
        *out += &format!(
            "/// Names the unary rpcs of a service.\n\
             pub fn {function}_rpcs<T: {module}::{name}>(service: &std::sync::Arc<T>, rpcs: &mut impl crate::UnaryRpcs) \
             {{\n{calls}}}\n"
        );
    }
}

/// Names of services are words in upper camel case.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (index, letter) in name.char_indices() {
        if index > 0 && letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
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
