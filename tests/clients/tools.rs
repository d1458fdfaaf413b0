//! The programs of others, as `cargo xtask test` has installed them, and what is made with them: code from the protos,
//! and bundles of it with the clients.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::run::succeed;

/// What all clients share. Made once for the engines' tests.
pub(crate) struct Tools {
    pub(crate) grpcurl: PathBuf,
    pub(crate) ghz: PathBuf,
    pub(crate) chromium: PathBuf,
    /// The folder of the packages of npm.
    pub(crate) packages: PathBuf,
    /// The Python packages, and the code that was made with them.
    pub(crate) python_path: OsString,
    /// The main job for Node.js, in one file.
    pub(crate) node: PathBuf,
    /// The script of the page, in one file.
    pub(crate) page: PathBuf,
}

impl Tools {
    pub(crate) async fn ready() -> &'static Self {
        static TOOLS: OnceCell<Tools> = OnceCell::const_new();
        TOOLS.get_or_init(Self::make).await
    }

    async fn make() -> Self {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
        // What an earlier run left may be of other protos.
        drop(std::fs::remove_dir_all(&made));
        std::fs::create_dir_all(&made).unwrap();
        let packages = above(&tool("AGENTROUTER_TEST_NODE_CLIENTS"), 2);
        let python = above(&tool("AGENTROUTER_TEST_PYTHON_CLIENT"), 2);
        let code = made.join("gen");
        let for_python = made.join("python");
        tokio::join!(generate(&packages, &code), generate_python(&python, &for_python));
        let bundles = Bundles { packages: &packages, code: &code, made: &made };
        let (node, page) = tokio::join!(
            bundles.bundle("node/main.mjs", &["--platform=node", "--format=esm"], "node.mjs"),
            bundles.bundle("browser/page.mjs", &["--platform=browser", "--format=iife"], "page.js"),
        );
        Self {
            grpcurl: tool("AGENTROUTER_TEST_GRPCURL"),
            ghz: tool("AGENTROUTER_TEST_GHZ"),
            chromium: tool("AGENTROUTER_TEST_CHROMIUM"),
            packages: above(&packages, 1),
            python_path: std::env::join_paths([for_python, python]).unwrap(),
            node,
            page,
        }
    }
}

fn tool(variable: &str) -> PathBuf {
    let found = std::env::var_os(variable);
    found.unwrap_or_else(|| panic!("{variable} is not set; run the tests with `cargo xtask test`")).into()
}

/// The folder this many folders above a program.
fn above(program: &Path, folders: usize) -> PathBuf {
    program.ancestors().nth(folders).unwrap().to_owned()
}

fn proto() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto")
}

/// A file of these tests.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Messages and services for Connect-ES and grpc-web.
async fn generate(packages: &Path, code: &Path) {
    let plugin = packages.join(".bin/protoc-gen-es");
    let template = serde_json::json!({
        "version": "v2",
        "plugins": [{"local": plugin, "out": code, "opt": ["target=js"], "include_imports": true}],
    });
    let mut buf = Command::new(tool("AGENTROUTER_TEST_BUF"));
    buf.arg("generate").arg(proto()).args(["--template", &template.to_string()]);
    succeed(buf).await;
}

/// Messages and services for grpcio.
async fn generate_python(python: &Path, code: &Path) {
    let mut files = Vec::new();
    find(&proto().join("agentrouter"), &mut files);
    std::fs::create_dir_all(code).unwrap();
    let mut protoc = Command::new("python3");
    protoc.env("PYTHONPATH", python).args(["-m", "grpc_tools.protoc"]);
    for (option, folder) in [("-I", &*proto()), ("--python_out=", code), ("--grpc_python_out=", code)] {
        protoc.arg(format!("{option}{}", folder.display()));
    }
    protoc.args(files);
    succeed(protoc).await;
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else {
            files.push(path);
        }
    }
}

struct Bundles<'a> {
    packages: &'a Path,
    code: &'a Path,
    made: &'a Path,
}

impl Bundles<'_> {
    /// One file of a client and everything it imports.
    async fn bundle(&self, from: &str, options: &[&str], to: &str) -> PathBuf {
        let bundle = self.made.join(to);
        let mut esbuild = Command::new(self.packages.join(".bin/esbuild"));
        esbuild.env("NODE_PATH", self.packages).arg(source(from)).arg("--bundle").args(options);
        esbuild.args(["--target=es2022", "--log-level=warning"]);
        esbuild.arg(format!("--alias:gen={}", self.code.display()));
        esbuild.arg(format!("--outfile={}", bundle.display()));
        succeed(esbuild).await;
        bundle
    }
}
