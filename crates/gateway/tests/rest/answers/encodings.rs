//! Compressed answers: checklist A8.

use std::io::Read as _;

use agentrouter_gateway::AnswerOptions;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::{asking, get, with};

fn unpacked(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let read = match encoding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out),
        "zstd" => {
            zstd::stream::read::Decoder::new(bytes).and_then(|mut decoder| decoder.read_to_end(&mut out))
        }
        _ => {
            out.extend_from_slice(bytes);
            Ok(bytes.len())
        }
    };
    // A stream that is still open ends early, with all that it said so far.
    assert!(read.is_ok() || !out.is_empty(), "{encoding}: {read:?}");
    out
}

fn long() -> String {
    format!("/v1/things/a?text={}", "long+".repeat(500))
}

/// A8 #90: whole answers, by weight, from a length on, and `Vary` either way.
#[tokio::test]
async fn answers_are_compressed_as_the_client_likes() {
    let plain = get(AnswerOptions::default(), &long(), &[]).await;
    assert_eq!((plain.header("content-encoding"), plain.body.len() > 2500), ("", true));
    for (accepted, encoding) in [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip;q=0.5, zstd;q=0.8", "zstd"),
        ("gzip;q=0, *;q=0.1", "br"),
        ("identity;q=0, br", "br"),
        ("gzip;q=0.5, identity", ""),
        ("deflate", ""),
    ] {
        let answer = get(AnswerOptions::default(), &long(), &[("accept-encoding", accepted)]).await;
        assert_eq!(answer.header("content-encoding"), encoding, "{accepted}");
        assert_eq!(unpacked(encoding, &answer.body), plain.body, "{accepted}");
        assert!(encoding.is_empty() || answer.body.len() < 500, "{accepted}");
        let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["accept, x-goog-fieldmask, accept-encoding"], "{accepted}");
    }
    let short = get(AnswerOptions::default(), "/v1/things/a", &[("accept-encoding", "gzip")]).await;
    assert_eq!(short.header("content-encoding"), "");
    let forced = get(AnswerOptions::default(), "/v1/things/a", &[("accept-encoding", "gzip, identity;q=0")]);
    assert_eq!(forced.await.header("content-encoding"), "gzip");
    let never = AnswerOptions { compress_from: None, ..AnswerOptions::default() };
    let never = get(never, &long(), &[("accept-encoding", "gzip")]).await;
    assert_eq!((never.header("content-encoding"), never.header("vary")), ("", "accept, x-goog-fieldmask"));
}

/// A8 #90: where nothing is left the rpc is not called.
#[tokio::test]
async fn no_encoding_is_an_error() {
    for accepted in ["identity;q=0", "*;q=0", "deflate, identity;q=0"] {
        let answer = get(AnswerOptions::default(), &long(), &[("accept-encoding", accepted)]).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (406, "NOT_ACCEPTABLE"), "{accepted}");
    }
}

/// A8 #90: pictures are left alone, and so is what the rpc encoded itself.
#[tokio::test]
async fn what_is_compressed_already_is_left_alone() {
    let text = "x".repeat(3000);
    for (uri, encoding) in [
        (format!("/v1/files/image-png?text={text}"), ""),
        (format!("/v1/files/text-plain?text={text}"), "gzip"),
        (format!("/v1/files/text-plain?text={text}&headers=content-encoding:br"), "br"),
    ] {
        let answer = get(AnswerOptions::default(), &uri, &[("accept-encoding", "gzip")]).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (200, encoding));
        assert_eq!(answer.body.len() == 3000, encoding != "gzip");
    }
}

/// A8 #90: of a stream each message can be read before the next one is there.
#[tokio::test(start_paused = true)]
async fn streams_are_compressed_message_by_message() {
    for encoding in ["gzip", "br", "zstd"] {
        let request = asking("/v1/events?to=2&wait=60", &[("accept-encoding", encoding)]);
        let begin = tokio::time::Instant::now();
        let response = with(AnswerOptions::default()).oneshot(request).await.expect("infallible");
        assert_eq!(response.headers()["content-encoding"], encoding);
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        for (message, seconds) in [(1, 60), (2, 120)] {
            bytes.extend(body.frame().await.expect("a frame").expect("no error").into_data().expect("data"));
            assert_eq!(begin.elapsed().as_secs(), seconds);
            let text = String::from_utf8(unpacked(encoding, &bytes)).expect("text");
            assert_eq!(text.lines().count(), message, "{encoding}: {text}");
        }
        bytes.extend(body.collect().await.expect("the end").to_bytes());
        assert_eq!(String::from_utf8_lossy(&unpacked(encoding, &bytes)).lines().count(), 2);
    }
}
