//! HTTP/2 as those speak it who want to keep a server busy.

use agentrouter_listener::{Limits, Settings};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::frames::{self, CONTINUATION, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, frame};
use crate::server::Server;

/// RFC 9113, 7: the peer may be generating excessive load.
const ENHANCE_YOUR_CALM: u32 = 11;
const REFUSED_STREAM: u32 = 7;

async fn open(limits: Limits) -> (Server, TcpStream) {
    let server = Server::start(Settings { limits, tls: None }).await;
    let mut stream = server.connect().await;
    stream.write_all(&frames::opening()).await.expect("it is sent");
    (server, stream)
}

/// Why the connection ended.
async fn goodbye(stream: &mut TcpStream) -> Option<u32> {
    let frame = frames::find(stream, GOAWAY).await?;
    Some(u32::from_be_bytes(frame.payload[4..8].try_into().expect("four bytes")))
}

// A9 #102: streams that are reset as soon as they are opened end the connection.
#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let (_server, mut stream) = open(Limits::default()).await;
    let mut flood = Vec::new();
    for index in 0..1000 {
        let id = 2 * index + 1;
        flood.extend(frames::get(id, "/slow"));
        flood.extend(frame(RST_STREAM, 0, id, &8u32.to_be_bytes()));
    }
    // It may be over before everything is written.
    let _sent = stream.write_all(&flood).await;
    assert_eq!(goodbye(&mut stream).await, Some(ENHANCE_YOUR_CALM));
}

// A9 #102: a head without an end costs no memory.
#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let (_server, mut stream) = open(Limits::default()).await;
    let mut flood = frame(HEADERS, END_STREAM, 1, &frames::head("/"));
    // Each a field of its own: a name of one byte, a value of 200.
    let mut field = vec![0x00, 0x01, b'x', 0x7f, 200 - 127];
    field.extend_from_slice(&[b'v'; 200]);
    for _ in 0..5000 {
        flood.extend(frame(CONTINUATION, 0, 1, &field));
    }
    let _sent = stream.write_all(&flood).await;
    let why = goodbye(&mut stream).await;
    assert!(matches!(why, Some(ENHANCE_YOUR_CALM | 1)), "{why:?}");
}

// A9 #102: more streams than there may be are refused, and the others are served.
#[tokio::test]
async fn streams_are_bounded() {
    let (_server, mut stream) = open(Limits { streams: 2, ..Limits::default() }).await;
    for id in [1, 3, 5] {
        stream.write_all(&frames::get(id, "/slow")).await.expect("it is sent");
    }
    let refused = frames::find(&mut stream, RST_STREAM).await.expect("one is refused");
    assert_eq!((refused.stream, refused.payload), (5, REFUSED_STREAM.to_be_bytes().to_vec()));
    assert_eq!(frames::read_answer(&mut stream, 3).await, "slow");
}

// A9 #102: a head that is too large is answered, and the connection goes on.
#[tokio::test]
async fn large_heads_are_answered_with_431() {
    let (_server, mut stream) = open(Limits { head_bytes: 1024, ..Limits::default() }).await;
    let mut head = frames::head("/");
    for _ in 0..20 {
        head.extend_from_slice(&[0x00, 0x01, b'x', 100]);
        head.extend_from_slice(&[b'v'; 100]);
    }
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)).await.expect("it is sent");
    let answer = frames::find(&mut stream, HEADERS).await.expect("an answer");
    // `:status`, by its place in HPACK's table, and 431 in its code of Huffman's.
    assert_eq!(answer.payload, [0x48, 0x83, 105, 144, 255]);
    stream.write_all(&frames::get(3, "/")).await.expect("it is sent");
    assert!(frames::read_answer(&mut stream, 3).await.contains("tls=false"));
}

// A12 #115: a connection whose peer is gone does not stay.
#[tokio::test]
async fn a_peer_that_answers_no_ping_is_gone() {
    let limits = Limits {
        ping_interval: Some(Duration::from_millis(100)),
        ping_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let (_server, mut stream) = open(limits).await;
    assert!(frames::find(&mut stream, PING).await.is_some(), "it is asked");
    while frames::read(&mut stream).await.is_some() {}
}
