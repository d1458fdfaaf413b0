//! The server over TLS, and the clients that reach it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentrouter::config::edge::TlsConfig;
use agentrouter_api::identity::WhoAmIRequest;
use agentrouter_api::identity::sessions_service_client::SessionsServiceClient;
use agentrouter_liaison::{ClientTls, DirTarget, Report, Token, Worker, WorkerConfig};
use agentrouter_listener::{ClientCertificates, MinVersion, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::{Certificate, Identity, Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::common::{OPERATOR_KEY, TestServer, bearer};

struct Files(tempfile::TempDir);

impl Files {
    /// An authority, a certificate of it for `localhost`, and one for a client.
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        for name in ["localhost", "client"] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            std::fs::write(folder.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn client(&self) -> ClientTls {
        ClientTls {
            ca_file: Some(self.path("ca.pem")),
            cert_file: Some(self.path("client.pem")),
            key_file: Some(self.path("client.key")),
        }
    }
}

async fn start(files: &Files, clients: ClientCertificates) -> TestServer {
    let db = agentrouter_testkit::sqlite().await;
    let mut server = TestServer::start_with(db, |config| {
        config.edge.tls = Some(TlsConfig {
            files: TlsFiles {
                certificates: files.path("localhost.pem"),
                key: files.path("localhost.key"),
                clients,
                min_version: MinVersion::Tls12,
            },
            reload: Duration::from_secs(1),
            hsts_seconds: 60,
        });
    })
    .await;
    server.base_url = format!("https://localhost:{}", server.running.address.port());
    let ca = Certificate::from_pem(files.read("ca.pem").as_bytes()).unwrap();
    let identity = files.read("client.pem") + &files.read("client.key");
    let identity = Identity::from_pem(identity.as_bytes()).unwrap();
    server.http = reqwest::Client::builder().tls_certs_merge([ca]).identity(identity).build().unwrap();
    server
}

// A12 #114: REST, gRPC, the worker and tare reach a server that speaks TLS and asks for certificates.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_reaches_the_server() {
    let files = Files::make();
    let server = start(&files, ClientCertificates::Required(files.path("ca.pem"))).await;

    let response = server.rest(Method::GET, "/v1/customers/default", None).await;
    assert_eq!(
        (response.status(), response.version()),
        (StatusCode::OK, reqwest::Version::HTTP_2),
        "by ALPN"
    );
    assert_eq!(response.headers()["strict-transport-security"], "max-age=60");
    assert_eq!(response.headers()["cache-control"], "no-store");

    let mut violations = agentrouter_kernel::Violations::new();
    let tls = files.client().config(&server.base_url, &mut violations).unwrap();
    let endpoint = Endpoint::new(server.base_url.clone()).unwrap().tls_config(tls).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut sessions = SessionsServiceClient::with_interceptor(channel, bearer(OPERATOR_KEY));
    let caller = sessions.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(caller.customer_id, "default");

    let printed = tare(&files, &server, OPERATOR_KEY).await;
    assert!(printed.contains(r#""workspace_id":"default""#), "{printed}");
    worker(&files, &server).await;

    // Who shows nothing gets nowhere.
    let ca = Certificate::from_pem(files.read("ca.pem").as_bytes()).unwrap();
    let stranger = reqwest::Client::builder().tls_certs_merge([ca]).build().unwrap();
    let refused = stranger.get(format!("{}/healthz", server.base_url)).send().await;
    assert!(refused.is_err(), "{refused:?}");
    server.stop().await;
}

async fn tare(files: &Files, server: &TestServer, key: &str) -> String {
    let key_file = files.path("operator");
    std::fs::write(&key_file, key).unwrap();
    let show = |path: &Path| path.display().to_string();
    let arguments = [
        "workspace",
        "list",
        "--output=json",
        "--base-url",
        &server.base_url,
        "--ca-file",
        &show(&files.path("ca.pem")),
        "--cert-file",
        &show(&files.path("client.pem")),
        "--key-file",
        &show(&files.path("client.key")),
        "--api-key-file",
        &show(&key_file),
    ]
    .map(str::to_owned);
    let printed = Printed::default();
    agentrouter_tare::show(arguments.to_vec(), printed.clone())
        .await
        .unwrap_or_else(|failure| panic!("{failure}"));
    let bytes = printed.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[derive(Clone, Default)]
struct Printed(Arc<std::sync::Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn worker(files: &Files, server: &TestServer) {
    let issued = "/v1/customers/default/workspaces/default:issueToken";
    let issued: Value = server.ok(Method::POST, issued, Some(json!({}))).await;
    let token = Token::new(issued["token"].as_str().unwrap());
    let target = DirTarget::open(files.path("applied")).unwrap();
    let config = WorkerConfig { tls: files.client(), ..WorkerConfig::new(&server.base_url, token) };
    let (reports, mut reported) = mpsc::unbounded_channel();
    let worker = Worker::new(config, Arc::new(target)).unwrap().on_report(move |report| {
        let _gone = reports.send(matches!(report, Report::Connected));
    });
    let stop = CancellationToken::new();
    let mut working = tokio::task::JoinSet::new();
    working.spawn(worker.run(stop.clone()));
    let connected = async { while !reported.recv().await.unwrap() {} };
    tokio::time::timeout(Duration::from_secs(30), connected).await.unwrap();
    stop.cancel();
    working.join_next().await.unwrap().unwrap();
}

// A12 #114: a server that cannot use its files does not start, and says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_used_keep_the_server_from_starting() {
    let files = Files::make();
    let db = agentrouter_testkit::sqlite().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = crate::common::config(folder.path(), db.target.clone());
    config.edge.tls = Some(TlsConfig {
        files: TlsFiles {
            certificates: files.path("localhost.pem"),
            key: files.path("client.key"),
            clients: ClientCertificates::None,
            min_version: MinVersion::Tls12,
        },
        reload: Duration::from_secs(1),
        hsts_seconds: 0,
    });
    let Err(error) = agentrouter::server::start(config).await else { panic!("the key is another one's") };
    let error = format!("{error:#}");
    assert!(error.starts_with("AGENTROUTER_TLS_* (tls): ") && error.contains("localhost.pem"), "{error}");
}
