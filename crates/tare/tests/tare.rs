//! The program as its users run it.

#![expect(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};

const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "a-token-that-nobody-must-see";

fn tare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tare"));
    command.args(arguments).env_remove("AGENTROUTER_API_KEY").env_remove("AGENTROUTER_BASE_URL");
    command.env_remove("AGENTROUTER_LOG").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("tare runs");
    (status.code(), text(stdout), text(stderr))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

/// A worker that writes JSON lines.
struct Worker {
    child: Child,
    lines: mpsc::Receiver<Value>,
}

impl Worker {
    fn start(folder: &Path, base_url: &str, environment: &[(&str, &str)]) -> Self {
        let target = format!("dir:{}", folder.join("slots").display());
        let mut child = tare(&["liaison", "run", "--output", "json", "--target", &target])
            .env("AGENTROUTER_BASE_URL", base_url)
            .env("AGENTROUTER_API_KEY", TOKEN)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tare runs");
        let stdout = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                let line = line.expect("a line of text");
                let _ = sender.send(serde_json::from_str(&line).expect("a line of JSON"));
            }
        });
        Self { child, lines }
    }

    /// Waits for a line of a type.
    fn until(&self, kind: &str) -> Value {
        loop {
            let line =
                self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line {kind:?} in time"));
            if line["type"] == kind {
                return line;
            }
        }
    }

    /// Asks it to stop, and returns its exit code and its log.
    fn terminate(mut self) -> (Option<i32>, String) {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(killed.success());
        let mut log = String::new();
        self.child.stderr.take().expect("its log").read_to_string(&mut log).expect("text");
        let code = self.child.wait().expect("it ends").code();
        self.until("stopped");
        (code, log)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_says_how_it_ends_and_where_the_token_comes_from() {
    let (code, help, _) = run(&mut tare(&["--help"]));
    assert_eq!(code, Some(0));
    assert!(help.contains("Exit codes:"), "{help}");
    let (code, help, _) = run(&mut tare(&["liaison", "run", "--help"]));
    assert_eq!(code, Some(0));
    assert!(help.contains("AGENTROUTER_API_KEY") && help.contains("--token-file"), "{help}");
}

#[test]
fn wrong_settings_end_with_2_and_say_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = format!("dir:{}", folder.path().join("slots").display());
    let run_with = |arguments: &[&str]| {
        let mut all = vec!["liaison", "run"];
        all.extend(arguments);
        tare(&all)
    };
    let with_target = ["--target", target.as_str()];
    let (code, _, log) = run(&mut run_with(&with_target));
    assert_eq!((code, log.contains("no token: set AGENTROUTER_API_KEY")), (Some(2), true), "{log}");

    let cases: [(&[&str], &str); 11] = [
        (&["--target", target.as_str(), "--sweep", "often"], "must be a number with s, m or h"),
        (&["--target", target.as_str(), "--concurrency", "0"], "concurrency: must be from 1 to 150"),
        (&["--target", target.as_str(), "--state-dir", "/dev/null"], "state_dir: /dev/null cannot be used"),
        (&["--target", "somewhere"], "must be dir:<folder>"),
        (&["--target", "kubernetes:gateway"], "so name a --kubeconfig"),
        (
            &["--target", "kubernetes:../x", "--kubeconfig", "/nonexistent/config"],
            "the namespace must be 1 to 63 lower-case letters",
        ),
        (&["--target", target.as_str(), "--worker-id", ""], "worker_id: is required"),
        (
            &["--target", target.as_str(), "--base-url", "localhost:8080"],
            "base_url: must be an http or https URL",
        ),
        (&["--target", target.as_str(), "--log", "a=b=c"], "--log (AGENTROUTER_LOG) is not a log filter"),
        (&["--target", target.as_str(), "--token-file", "/nonexistent/token"], "cannot read the token file"),
        (&[], "--target"),
    ];
    for (arguments, why) in cases {
        let (code, output, log) = run(run_with(arguments).env("AGENTROUTER_API_KEY", TOKEN));
        assert_eq!((code, output.as_str()), (Some(2), ""), "{log}");
        assert!(log.contains(why), "{log}");
        assert!(!log.contains(TOKEN), "{log}");
    }
}

#[test]
fn views_say_what_they_need_and_what_they_cannot_reach() {
    let commands: [&[&str]; 4] = [
        &["workspace", "list"],
        &["workspace", "status", "edge"],
        &["rollout", "status", "providers"],
        &["events", "tail"],
    ];
    let closed = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let base_url = format!("http://{}", closed.local_addr().expect("an address"));
    drop(closed);
    for command in commands {
        let (code, output, log) = run(&mut tare(command));
        assert_eq!((code, output.as_str()), (Some(2), ""), "{log}");
        assert!(log.contains("no API key: set AGENTROUTER_API_KEY to a management API key"), "{log}");
        let (code, output, log) = run(tare(command)
            .env("AGENTROUTER_API_KEY", TOKEN)
            .env("AGENTROUTER_BASE_URL", &base_url)
            .env("AGENTROUTER_LOG", "trace"));
        assert_eq!((code, output.as_str()), (Some(1), ""), "{log}");
        assert!(log.contains(&format!("error: {base_url} cannot be reached: ")), "{log}");
        assert!(!log.contains(TOKEN), "{log}");
    }
    let wrong: [&[&str]; 4] = [
        &["rollout", "status", "nonsense"],
        &["rollout", "status", "providers", "--timeout", "5m"],
        &["events", "tail", "--type", "nonsense"],
        &["workspace", "list", "--base-url", "localhost:8080"],
    ];
    for arguments in wrong {
        let (code, output, log) = run(tare(arguments).env("AGENTROUTER_API_KEY", TOKEN));
        assert_eq!((code, output.as_str()), (Some(2), ""), "{arguments:?}: {log}");
    }
}

#[test]
fn a_worker_without_a_server_waits_for_it_and_stops_on_request() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let closed = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let base_url = format!("http://{}", closed.local_addr().expect("an address"));
    drop(closed);
    let worker = Worker::start(folder.path(), &base_url, &[("AGENTROUTER_LOG", "trace")]);
    let line = worker.until("unreachable");
    assert_eq!(line["code"], "UNAVAILABLE", "{line}");
    assert!(line["message"].as_str().is_some_and(|message| message.contains("refused")), "{line}");
    assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");

    let target = format!("dir:{}", folder.path().join("slots").display());
    let mut second = tare(&["liaison", "run", "--target", &target]);
    let (code, _, log) = run(second.env("AGENTROUTER_API_KEY", TOKEN));
    assert_eq!((code, log.contains("is used by another worker")), (Some(1), true), "{log}");

    let (code, log) = worker.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("the server is not available"), "{log}");
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn probes_are_answered_where_they_are_wanted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = {
        let free = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        free.local_addr().expect("an address")
    };
    let target = format!("dir:{}", folder.path().join("slots").display());
    let listen = address.to_string();
    let mut child = tare(&["liaison", "run", "--target", &target, "--listen", &listen])
        .env("AGENTROUTER_BASE_URL", "http://127.0.0.1:1")
        .env("AGENTROUTER_API_KEY", TOKEN)
        .stderr(Stdio::piped())
        .spawn()
        .expect("tare runs");
    let get = |path: &str| {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok().map(|_| answer)
    };
    let deadline = Instant::now() + PATIENCE;
    let health = loop {
        if let Some(answer) = get("/healthz") {
            break answer;
        }
        assert!(Instant::now() < deadline, "it never listened");
        std::thread::sleep(Duration::from_millis(20));
    };
    let metrics = get("/metrics").expect("an answer");
    assert!(health.contains("503") && health.contains("has not answered yet"), "{health}");
    assert!(metrics.contains("agentrouter_liaison_connected 0"), "{metrics}");
    assert!(!health.contains(TOKEN) && !metrics.contains(TOKEN));
    // A client that never ends its request does not keep it from ending.
    let mut half = TcpStream::connect(address).expect("it listens");
    half.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").expect("it reads");
    std::thread::sleep(Duration::from_millis(200));
    let killed = Command::new("kill").arg(child.id().to_string()).status().expect("kill runs");
    assert!(killed.success());
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait().expect("it is a child").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("it runs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn the_time_to_give_up_counts_from_the_beginning() {
    // It accepts, and says nothing.
    let mute = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let base_url = format!("http://{}", mute.local_addr().expect("an address"));
    let began = Instant::now();
    let (code, _, log) = run(tare(&["rollout", "status", "providers", "--watch", "--timeout", "1s"])
        .env("AGENTROUTER_API_KEY", TOKEN)
        .env("AGENTROUTER_BASE_URL", &base_url));
    assert_eq!((code, log.contains("has not answered after 1 s")), (Some(1), true), "{log}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// A gRPC server with TLS and without services, in a runtime of its own.
fn tls_server(certificate: &str, key: &str) -> (tokio::runtime::Runtime, SocketAddr) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).expect("a port");
    let address = listener.local_addr().expect("an address");
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    let router = Server::builder()
        .tls_config(tls)
        .expect("a certificate")
        .add_routes(tonic::service::Routes::default());
    runtime.spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
    (runtime, address)
}

#[test]
fn https_is_spoken_to_servers_that_the_machine_trusts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let trusted = write("trusted.pem", &signed.cert.pem());
    let untrusted = write("untrusted.pem", &other.cert.pem());
    let (runtime, address) = tls_server(&signed.cert.pem(), &signed.signing_key.serialize_pem());
    let base_url = format!("https://localhost:{}", address.port());

    // That the server knows no such service is the server's own answer: it came through.
    let worker = Worker::start(folder.path(), &base_url, &[("SSL_CERT_FILE", &trusted)]);
    let line = worker.until("refused");
    assert_eq!(line["code"], "UNIMPLEMENTED", "{line}");
    assert_eq!(worker.terminate().0, Some(0));

    let worker = Worker::start(folder.path(), &base_url, &[("SSL_CERT_FILE", &untrusted)]);
    let line = worker.until("unreachable");
    assert!(line["message"].as_str().is_some_and(|message| message.contains("certificate")), "{line}");
    assert_eq!(worker.terminate().0, Some(0));
    runtime.shutdown_background();
}
