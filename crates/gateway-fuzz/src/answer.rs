//! What has to be true of every answer.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::world::Answer;

/// What a request may cause beyond its own errors.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    /// It may end too late.
    pub(crate) has_deadline: bool,
    /// It has frames whose flags mean nothing. gRPC and Connect call that INTERNAL, though it is the client's fault.
    pub(crate) has_flags: bool,
    /// Its answer has a head only.
    pub(crate) is_head: bool,
}

/// How a call ended: gRPC's number or Connect's word for it.
#[derive(Debug)]
enum Ending {
    Fine,
    Number(i64),
    Word(String),
}

/// Panics where an answer blames the server, or is not in the form that it says it has. Tells whether all went well.
pub(crate) fn check(asked: Asked, answer: &Answer) -> bool {
    let status = answer.status.as_u16();
    let is_servers = match status {
        501 => false,
        504 => !asked.has_deadline,
        500 => !asked.has_flags,
        _ => status >= 500,
    };
    assert!(!is_servers, "{status} for a client's fault: {answer:?}");
    let ending = ending(asked, answer);
    let is_fine = answer.status.is_success() && matches!(ending, Ending::Fine | Ending::Number(0));
    let blamed = match ending {
        Ending::Fine => false,
        Ending::Number(4) => !asked.has_deadline,
        Ending::Number(13) => !asked.has_flags,
        Ending::Number(number) => !(0..=16).contains(&number) || [2, 14, 15].contains(&number),
        Ending::Word(word) => match &word[..] {
            "deadline_exceeded" => !asked.has_deadline,
            "internal" => !asked.has_flags,
            // Connect has no words for these.
            "unknown" => ![405, 415].contains(&status),
            word => ["unavailable", "data_loss", ""].contains(&word),
        },
    };
    assert!(!blamed, "a client's fault is called the server's: {answer:?}");
    is_fine
}

fn ending(asked: Asked, answer: &Answer) -> Ending {
    let content_type = answer.header("content-type");
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if asked.is_head {
        assert!(answer.body.is_empty(), "a body for HEAD: {answer:?}");
        return Ending::Fine;
    }
    match &media[..] {
        // What is no known type at all is refused with a status alone.
        _ if media.starts_with("application/grpc") && answer.status == 415 => Ending::Fine,
        _ if media.starts_with("application/grpc-web-text") => web(answer, &untexted(&answer.body)),
        _ if media.starts_with("application/grpc-web") => web(answer, &answer.body),
        _ if media.starts_with("application/grpc") => {
            let headers = [&answer.headers, &answer.trailers];
            let said: Vec<i64> = headers.into_iter().flat_map(statuses).collect();
            assert_eq!(said.len(), 1, "one status belongs here: {answer:?}");
            frames(&answer.body);
            Ending::Number(said[0])
        }
        _ if media.starts_with("application/connect+") => {
            assert!(answer.trailers.is_empty(), "Connect has no trailers: {answer:?}");
            let frames = frames(&answer.body);
            let (flags, last) = frames.last().expect("an end of the stream");
            assert_eq!(flags & 2, 2, "no end of the stream: {answer:?}");
            let end: Value = match flags & 1 {
                0 => serde_json::from_slice(last).expect("JSON"),
                _ => return Ending::Fine,
            };
            end["error"]["code"].as_str().map_or(Ending::Fine, |code| Ending::Word(code.to_owned()))
        }
        // The tests of compression read these.
        "application/json" | "application/x-ndjson" if answer.headers.contains_key("content-encoding") => {
            Ending::Fine
        }
        "application/json" => {
            let json: Value = serde_json::from_slice(&answer.body)
                .unwrap_or_else(|error| panic!("no JSON: {error}: {answer:?}"));
            match &json["code"] {
                _ if answer.status.is_success() => Ending::Fine,
                Value::String(word) => Ending::Word(word.clone()),
                Value::Number(number) => Ending::Number(number.as_i64().unwrap_or(-1)),
                _ => panic!("an error without a code: {answer:?}"),
            }
        }
        "application/x-ndjson" => {
            for line in answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let _: IgnoredAny = serde_json::from_slice(line).expect("a line of JSON");
            }
            Ending::Fine
        }
        _ => Ending::Fine,
    }
}

/// The end of a gRPC-Web answer, which is in its last frame or in its head.
fn web(answer: &Answer, body: &[u8]) -> Ending {
    assert!(answer.trailers.is_empty(), "gRPC-Web has no trailers: {answer:?}");
    let mut said: Vec<i64> = statuses(&answer.headers).collect();
    for (flags, message) in frames(body) {
        if flags & 0x80 != 0 {
            let text = String::from_utf8_lossy(message);
            let lines = text.split("\r\n").filter_map(|line| line.strip_prefix("grpc-status:"));
            said.extend(lines.filter_map(|number| number.trim().parse::<i64>().ok()));
        }
    }
    assert_eq!(said.len(), 1, "one status belongs here: {answer:?}");
    Ending::Number(said[0])
}

fn statuses(headers: &HeaderMap) -> impl Iterator<Item = i64> {
    headers
        .get_all("grpc-status")
        .into_iter()
        .map(|value| value.to_str().ok().and_then(|value| value.parse().ok()).unwrap_or(-1))
}

/// The frames of an answer: their flags and messages.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_first_chunk::<5>().expect("a whole head of a frame");
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let (message, rest) =
            rest.split_at_checked(usize::try_from(length).expect("a length")).expect("a whole frame");
        found.push((head[0], message));
        bytes = rest;
    }
    found
}

/// The bytes of gRPC-Web's text, each piece of which may be padded.
fn untexted(text: &[u8]) -> Vec<u8> {
    let groups = text.chunks(4).map(|group| BASE64_STANDARD.decode(group).expect("base64"));
    groups.collect::<Vec<_>>().concat()
}

/// Whether a body has a frame with a flag. Text may have any.
pub(crate) fn has_flags(content_type: &str, mut body: &[u8]) -> bool {
    if content_type.to_ascii_lowercase().contains("text") {
        return true;
    }
    while let Some((head, rest)) = body.split_first_chunk::<5>() {
        if head[0] != 0 {
            return true;
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        body = usize::try_from(length).ok().and_then(|length| rest.get(length..)).unwrap_or_default();
    }
    // A flag may be there before the rest of its frame is.
    body.first().is_some_and(|flags| *flags != 0)
}
