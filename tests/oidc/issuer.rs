//! A real OpenID Connect issuer, run by Node.js.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use agentrouter_identity::IssuerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A running issuer, gone when dropped.
pub(crate) struct Issuer {
    pub(crate) url: String,
    certificate: Vec<u8>,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _child: Child,
    _folder: tempfile::TempDir,
}

impl Issuer {
    pub(crate) async fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "tests have no configuration to read it from")]
        let library = std::env::var("AGENTROUTER_TEST_OIDC_PROVIDER")
            .expect("AGENTROUTER_TEST_OIDC_PROVIDER is not set; run the tests with `cargo xtask test`");
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (folder.path().join("certificate"), folder.path().join("key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/oidc/issuer.mjs");
        let mut child = Command::new("node")
            .arg(script)
            .args([library.as_ref(), certificate.as_os_str(), key.as_os_str()])
            .env("NODE_EXTRA_CA_CERTS", &certificate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready: Value = serde_json::from_str(&answers.next_line().await.unwrap().unwrap()).unwrap();
        Self {
            url: format!("https://localhost:{}", ready["port"]),
            certificate: made.cert.pem().into_bytes(),
            commands,
            answers,
            _child: child,
            _folder: folder,
        }
    }

    /// Trust in the issuer itself, or in one of those beside it.
    pub(crate) fn trusted(&self, path: &str, customers: &[&str]) -> IssuerConfig {
        IssuerConfig {
            issuer: format!("{}{path}", self.url),
            audiences: vec!["agentrouter".to_owned()],
            customers: customers.iter().map(|customer| (*customer).to_owned()).collect(),
            ca_certificates: Some(self.certificate.clone()),
            min_refresh: Duration::ZERO,
        }
    }

    async fn ask(&mut self, command: &Value) -> Value {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        serde_json::from_str(&self.answers.next_line().await.unwrap().unwrap()).unwrap()
    }

    /// An ID token, by the whole authorization code flow.
    pub(crate) async fn sign_in(&mut self, user: &str, client: &str) -> String {
        text(&self.ask(&json!({"sign_in": user, "client": client})).await["token"])
    }

    /// A token of other claims, signed by the issuer's key.
    pub(crate) async fn sign(&mut self, claims: &Value, header: &Value) -> String {
        text(&self.ask(&json!({"sign": claims, "header": header})).await["token"])
    }

    /// Has another key from now on.
    pub(crate) async fn rotate(&mut self) {
        self.ask(&json!({"rotate": true})).await;
    }

    /// The key it publishes.
    pub(crate) async fn key(&mut self) -> Value {
        self.ask(&json!({})).await["keys"][1].take()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
