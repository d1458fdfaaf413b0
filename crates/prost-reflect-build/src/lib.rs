//! Stands in for the published crate of this name when this workspace is built, so that nobody needs `protoc`.
//!
//! `prost-protovalidate-types` compiles `buf/validate/validate.proto` in its build script, by the published crate, which
//! starts the program `protoc`. This one has what that script calls, and compiles with protox, as everything else here
//! does. `[patch]` in the root Cargo.toml puts it into place.

use std::io;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Generates messages that know their descriptors.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    descriptors: Option<PathBuf>,
    pool: Option<String>,
}

impl Builder {
    /// A builder without settings; it needs a [`descriptor_pool`](Self::descriptor_pool).
    pub fn new() -> Self {
        Self::default()
    }

    /// The file that the descriptors are written to, instead of `file_descriptor_set.bin` among the output.
    pub fn file_descriptor_set_path(&mut self, path: impl Into<PathBuf>) -> &mut Self {
        self.descriptors = Some(path.into());
        self
    }

    /// The expression by which generated code reaches the pool of these descriptors.
    pub fn descriptor_pool(&mut self, expression: impl Into<String>) -> &mut Self {
        self.pool = Some(expression.into());
        self
    }

    /// Compiles the files, found in these folders, into `OUT_DIR`.
    pub fn compile_protos(
        &mut self,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> io::Result<()> {
        self.compile_protos_with_config(prost_build::Config::new(), protos, includes)
    }

    /// As [`compile_protos`](Self::compile_protos), by a configuration of one's own.
    pub fn compile_protos_with_config(
        &mut self,
        mut config: prost_build::Config,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> io::Result<()> {
        let pool = self.pool.as_deref().ok_or_else(|| io::Error::other("`descriptor_pool` must be set"))?;
        let pool = format!("#[prost_reflect(descriptor_pool = {pool:?})]");
        let mut compiler = protox::Compiler::new(includes).map_err(io::Error::other)?;
        compiler.include_source_info(true).include_imports(true);
        compiler.open_files(protos).map_err(io::Error::other)?;

        let path = match (&self.descriptors, env::var_os("OUT_DIR")) {
            (Some(path), _) => path.clone(),
            (None, Some(out)) => PathBuf::from(out).join("file_descriptor_set.bin"),
            (None, None) => return Err(io::Error::other("there is no OUT_DIR")),
        };
        fs::write(path, compiler.encode_file_descriptor_set())?;
        for message in compiler.descriptor_pool().all_messages() {
            let name = message.full_name();
            config.type_attribute(name, "#[derive(::prost_reflect::ReflectMessage)]");
            config.type_attribute(name, format!("#[prost_reflect(message_name = {name:?})]"));
            config.type_attribute(name, &pool);
        }
        config.compile_fds(compiler.file_descriptor_set())
    }
}
