//! TLS: what is spoken, who is let in, and certificates that change.

use std::time::Duration;

use agentrouter_listener::{ClientCertificates, Limits, MinVersion, Settings, Tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, Dialer};
use crate::frames;
use crate::server::{Server, read_all};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

async fn get(mut stream: TlsStream<tokio::net::TcpStream>) -> String {
    stream.write_all(GET).await.expect("it is sent");
    read_all(&mut stream).await
}

async fn start(tls: Tls) -> Server {
    Server::start(Settings { tls: Some(tls), ..Settings::default() }).await
}

// A12 #114: one port, and ALPN decides between HTTP/2 and HTTP/1.1.
#[tokio::test]
async fn alpn_chooses_the_version() {
    let authority = Authority::new();
    let server = start(authority.tls(ClientCertificates::None, MinVersion::Tls12).await).await;
    let ca = authority.ca_file();

    let both = Dialer { protocols: &[b"http/1.1", b"h2"], ..Dialer::default() };
    let mut stream = both.dial(&server, &ca).await.expect("hands are shaken");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "the server's choice");
    stream.write_all(&frames::opening()).await.expect("it is sent");
    stream.write_all(&frames::get(1, "/")).await.expect("it is sent");
    let answer = frames::read_answer(&mut stream, 1).await;
    assert!(answer.ends_with("tls=true client= body="), "{answer}");
    drop(stream);

    let old = Dialer { protocols: &[b"http/1.1"], versions: &[&TLS12], ..Dialer::default() };
    let stream = old.dial(&server, &ca).await.expect("hands are shaken");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(get(stream).await.starts_with("HTTP/1.1 200 OK"));

    let none = Dialer::default().dial(&server, &ca).await.expect("hands are shaken");
    assert!(get(none).await.contains("127.0.0.1 tls=true"));
    server.stopped().await;
}

// A12 #114: nothing older than asked for is spoken.
#[tokio::test]
async fn the_oldest_version_is_a_setting() {
    let authority = Authority::new();
    let server = start(authority.tls(ClientCertificates::None, MinVersion::Tls13).await).await;
    let (old, new) = ([&TLS12], [&TLS13]);
    let with = |versions| Dialer { versions, ..Dialer::default() };
    let refused = with(&old).dial(&server, &authority.ca_file()).await.expect_err("it is too old");
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
    assert!(with(&new).dial(&server, &authority.ca_file()).await.is_ok());
}

// A12 #114: clients' certificates, and who they are to the service.
#[tokio::test]
async fn clients_are_known_by_their_certificates() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let edge = authority.issue("edge-1.example", Some("spiffe://example/edge-1"));
    let wrong = stranger.issue("edge-1.example", None);
    let ca = authority.ca_file();
    let dial = |identity| Dialer { identity, ..Dialer::default() };

    let required =
        start(authority.tls(ClientCertificates::Required(ca.clone()), MinVersion::Tls12).await).await;
    let answer = get(dial(Some(&edge)).dial(&required, &ca).await.expect("it is known")).await;
    assert!(answer.contains("CN=edge-1.example"), "{answer}");
    assert!(answer.contains(r#"["DNS:edge-1.example", "URI:spiffe://example/edge-1"]"#), "{answer}");
    let der = CertificateDer::from_pem_slice(edge.certificate.as_bytes()).expect("a certificate");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    assert!(answer.contains(&format!("{:?}", digest.as_ref())), "{answer}");
    for identity in [None, Some(&wrong)] {
        // With TLS 1.3 the client learns it with what it reads first.
        let refused = match dial(identity).dial(&required, &ca).await {
            Ok(mut stream) => {
                let _sent = stream.write_all(GET).await;
                stream.read_to_end(&mut Vec::new()).await.expect_err("it is refused")
            }
            Err(error) => error,
        };
        let text = refused.to_string();
        let alerts = ["CertificateRequired", "UnknownCA", "DecryptError", "BadCertificate"];
        assert!(alerts.iter().any(|alert| text.contains(alert)), "{text}");
    }

    let optional =
        start(authority.tls(ClientCertificates::Optional(ca.clone()), MinVersion::Tls12).await).await;
    let answer = get(dial(None).dial(&optional, &ca).await.expect("it need not be known")).await;
    assert!(answer.ends_with("client= body="), "{answer}");
    let answer = get(dial(Some(&edge)).dial(&optional, &ca).await.expect("it is known")).await;
    assert!(answer.contains("CN=edge-1.example"), "{answer}");
}

// A12 #114: certificates are replaced without a restart, and connections that are there stay.
#[tokio::test]
async fn certificates_are_replaced_while_connections_stay() {
    let authority = Authority::new();
    let tls = authority.tls(ClientCertificates::None, MinVersion::Tls12).await;
    let server = start(tls.clone()).await;
    let ca = authority.ca_file();
    let shown =
        |stream: &TlsStream<_>| stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec();
    let mut old = Dialer::default().dial(&server, &ca).await.expect("hands are shaken");
    assert!(!tls.reload().await.expect("good files"), "there is nothing new");

    // Half of a change is none.
    let next = authority.issue("localhost", None);
    std::fs::write(authority.path("server.pem"), &next.certificate).expect("a file");
    let error = tls.reload().await.expect_err("the key is another one's");
    assert!(error.to_string().contains("server.pem"), "{error}");
    let kept = Dialer::default().dial(&server, &ca).await.expect("the last good one stays");
    assert_eq!(shown(&kept), shown(&old));

    authority.install(&next);
    let stop = CancellationToken::new();
    let following = tls.clone().follow(Duration::from_millis(20), stop.clone());
    let changed = async {
        loop {
            let stream = Dialer::default().dial(&server, &ca).await.expect("hands are shaken");
            if shown(&stream) != shown(&old) {
                stop.cancel();
                return;
            }
        }
    };
    timeout(Duration::from_secs(20), async { tokio::join!(following, changed) }).await.expect("it is seen");
    old.write_all(GET).await.expect("it is sent");
    assert!(read_all(&mut old).await.starts_with("HTTP/1.1 200 OK"), "what was there stays");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    authority.install(&authority.issue("localhost", None));
    let error = |files| async { Tls::load(files).await.expect_err("it cannot be used").to_string() };
    let mut files = authority.files(ClientCertificates::None, MinVersion::Tls12);
    files.key = authority.path("none.key");
    assert!(error(files).await.contains("none.key: "));
    let mut files = authority.files(ClientCertificates::None, MinVersion::Tls12);
    files.key = authority.path("server.pem");
    assert!(error(files).await.ends_with("server.pem: there is no private key in it, in PEM"));
    let files =
        authority.files(ClientCertificates::Required(authority.path("server.key")), MinVersion::Tls12);
    assert!(error(files).await.ends_with("server.key: there is no certificate in it, in PEM"));
}

// A9 #101, #102: handshakes are bounded in time and number.
#[tokio::test]
async fn who_does_not_shake_hands_is_let_go() {
    let authority = Authority::new();
    let tls = authority.tls(ClientCertificates::None, MinVersion::Tls12).await;
    let limits = Limits { handshake: Duration::from_secs(3), handshakes: 1, ..Limits::default() };
    let server = Server::start(Settings { limits, tls: Some(tls) }).await;
    let mut silent = server.connect().await;
    // It holds the only turn, and then its time is over.
    let waiting = Dialer::default().dial(&server, &authority.ca_file()).await;
    let mut end = Vec::new();
    let read = timeout(Duration::from_secs(20), silent.read_to_end(&mut end)).await.expect("in time");
    assert!(read.is_ok() && end.is_empty(), "{read:?}");
    drop(waiting);
    assert!(
        get(Dialer::default().dial(&server, &authority.ca_file()).await.expect("a turn"))
            .await
            .contains("200")
    );

    // Plain text is refused with an alert, not with a reset.
    let mut plain = server.connect().await;
    plain.write_all(GET).await.expect("it is sent");
    plain.read_to_end(&mut end).await.expect("it ends in order");
    assert_eq!(end.first(), Some(&21), "an alert: {end:?}");
}
