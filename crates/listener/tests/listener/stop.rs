//! The end of a listener.

use std::net::TcpStream as Client;

use agentrouter_listener::{ClientCertificates, MinVersion, Settings};
use tokio::io::AsyncWriteExt as _;

use crate::authority::{Authority, Dialer};
use crate::server::{Server, read_all};

/// What becomes of a client that has sent these bytes, and waits in the queue of a server that is told to stop.
async fn at_the_stop(sent: &[u8]) -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut client = Client::connect(listener.local_addr().expect("an address")).expect("the queue is open");
    client.write_all(sent).expect("it is sent");
    let server = Server::stopped_with(listener);
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = String::new();
        client.read_to_string(&mut answer).map(|_| answer)
    });
    server.await;
    answer.await.expect("it reads").expect("the connection ends in order")
}

// Behaviour 35: who was let in before the stop is served.
#[tokio::test]
async fn connections_that_wait_in_the_queue_are_served() {
    let answer = at_the_stop(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("body="), "{answer}");
}

#[tokio::test]
async fn silent_connections_end_in_order() {
    assert_eq!(at_the_stop(b"").await, "");
}

// A12 #115: the same over TLS, where a call is under way.
#[tokio::test]
async fn calls_over_tls_are_served_to_their_end() {
    let authority = Authority::new();
    let tls = authority.tls(ClientCertificates::None, MinVersion::Tls12).await;
    let server = Server::start(Settings { tls: Some(tls), ..Settings::default() }).await;
    let mut stream = Dialer::default().dial(&server, &authority.ca_file()).await.expect("hands are shaken");
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it is sent");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let (answer, ()) = tokio::join!(read_all(&mut stream), server.stopped());
    assert!(answer.ends_with("slow"), "{answer}");
}
