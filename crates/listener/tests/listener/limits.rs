//! What connections of HTTP/1.1, and any, may cost.

use std::time::{Duration, Instant};

use agentrouter_listener::{Limits, MaxAge, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use crate::frames::{self, GOAWAY};
use crate::server::{Server, read_all};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
const SHORT: Duration = Duration::from_millis(200);

async fn start(limits: Limits) -> Server {
    Server::start(Settings { limits, tls: None }).await
}

// A9 #102: heads are bounded in bytes and fields.
#[tokio::test]
async fn large_heads_are_refused() {
    let server = start(Limits { head_bytes: 4096, head_fields: 10, ..Limits::default() }).await;
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "v".repeat(8000));
    assert!(server.say(long.as_bytes()).await.starts_with("HTTP/1.1 431 "), "too long");
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: v\r\n".repeat(10));
    assert!(server.say(many.as_bytes()).await.starts_with("HTTP/1.1 431 "), "too many");
    let path = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "p".repeat(70_000));
    let answer = start(Limits { head_bytes: 1 << 20, ..Limits::default() }).await.say(path.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 414 "), "{answer}");
    assert!(server.say(GET).await.starts_with("HTTP/1.1 200 OK"));
}

// A9 #101: who is slow to say what it wants is let go.
#[tokio::test]
async fn slow_heads_end_the_connection() {
    let server = start(Limits { head: SHORT, ..Limits::default() }).await;
    for begun in [&b""[..], b"PRI * HT", b"GET / HTTP/1.1\r\nhost", GET.get(..10).expect("a start")] {
        let started = Instant::now();
        server.say(begun).await;
        assert!(started.elapsed() >= SHORT, "{begun:?}");
    }
    // One that is kept alive may be idle for as long, and not longer.
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it is sent");
    assert!(read_all(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
}

// A9 #101: a peer that does not read what it asked for does not hold it in memory for ever.
#[tokio::test]
async fn a_peer_that_does_not_read_is_let_go() {
    let server = start(Limits { stalled_write: SHORT, ..Limits::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it is sent");
    sleep(SHORT * 5).await;
    let mut read = Vec::new();
    let end = timeout(Duration::from_secs(20), stream.read_to_end(&mut read)).await.expect("in time");
    assert!(end.is_err() || read.len() < 32 << 20, "it was cut off");
    server.stopped().await;
}

// A9 #102: more connections than there may be wait until one ends.
#[tokio::test]
async fn connections_are_bounded() {
    let server = start(Limits { connections: 2, ..Limits::default() }).await;
    let held = [server.connect().await, server.connect().await];
    let mut third = server.connect().await;
    third.write_all(GET).await.expect("the system takes it");
    assert!(timeout(SHORT, third.readable()).await.is_err(), "it waits");
    drop(held);
    assert!(read_all(&mut third).await.starts_with("HTTP/1.1 200 OK"));
}

// A12 #115: connections do not live for ever, and their calls end in order.
#[tokio::test]
async fn old_connections_are_told_to_go() {
    let age = MaxAge { age: SHORT, grace: Duration::from_secs(10) };
    let server = start(Limits { age: Some(age), ..Limits::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(&frames::opening()).await.expect("it is sent");
    stream.write_all(&frames::get(1, "/slow")).await.expect("it is sent");
    assert!(frames::find(&mut stream, GOAWAY).await.is_some(), "it is told");
    assert_eq!(frames::read_answer(&mut stream, 1).await, "slow");
    while frames::read(&mut stream).await.is_some() {}

    let hasty = MaxAge { age: Duration::from_millis(50), grace: Duration::from_millis(50) };
    let server = start(Limits { age: Some(hasty), ..Limits::default() }).await;
    let answer = server.say(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(answer, "", "what takes longer than the grace is cut off");
}

// A9 #103: where a request ends is never a matter of opinion.
#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_not_read_twice() {
    let server = start(Limits::default()).await;
    let post =
        |headers: &str, body: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n{body}").into_bytes();
    let both = post(
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
    );
    let answer = server.say(&both).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    for headers in [
        "content-length: 4\r\ncontent-length: 5\r\n",
        "content-length: +4\r\n",
        "content-length: 4, 5\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding : chunked\r\n",
    ] {
        let answer = server.say(&post(headers, "abcd")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{headers}: {answer}");
    }
}
