//! HTTP/2 by the byte, to say what no client says.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// GET, http, and the path `/`, by their places in HPACK's table; the authority `a`.
const HEAD: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'];

pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// What a client begins with: the preface and empty settings.
pub(crate) fn opening() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes
}

/// A whole request without a body.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head(path))
}

/// The block of a GET's head.
pub(crate) fn head(path: &str) -> Vec<u8> {
    if path == "/" {
        return HEAD.to_vec();
    }
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).expect("a short path")];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(&[0x41, 0x01, b'a']);
    block
}

/// The next frame; none at the end.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let read = async {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("it fits")];
        stream.read_exact(&mut payload).await.ok()?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream: id, payload })
    };
    timeout(Duration::from_secs(20), read).await.expect("in time")
}

/// The frame of this kind, after whatever comes before it.
pub(crate) async fn find(stream: &mut (impl AsyncRead + Unpin), kind: u8) -> Option<Frame> {
    loop {
        let frame = read(stream).await?;
        if frame.kind == kind {
            return Some(frame);
        }
    }
}

/// The body of an answer.
pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin), id: u32) -> String {
    let mut body = Vec::new();
    loop {
        let frame = read(stream).await.expect("an answer");
        if frame.stream == id && frame.kind == DATA {
            body.extend_from_slice(&frame.payload);
        }
        if frame.stream == id && frame.flags & END_STREAM != 0 {
            return String::from_utf8(body).expect("text");
        }
    }
}
