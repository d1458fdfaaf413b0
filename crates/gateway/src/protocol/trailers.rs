//! Trailing metadata: what a handler sends after its messages, and how a call's status is read from the end of an
//! answer and written there.

use bytes::Bytes;
use http::Extensions;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::envelope;
use crate::grpc::{DETAILS, MESSAGE, STATUS, percent_decoded, split_status};

/// The flag of the envelope that holds the trailers of gRPC-Web.
const TRAILERS: u8 = 0x80;
/// The longest block of trailers that every client reads: many allow a header block no more.
const BLOCK_MAX: usize = 8 << 10;
/// The characters of an error's message that are kept where it is too long.
const MESSAGE_MAX: usize = 512;
/// What a header costs beside its text, as HTTP/2 counts it.
const HEADER_OVERHEAD: usize = 32;

/// Trailing metadata of a call that succeeds, put among the extensions of a [`tonic::Response`].
///
/// tonic itself has no way to send it after a single message. Every protocol delivers it in its own way: as HTTP
/// trailers, in the last envelope, or among the headers.
#[derive(Debug, Clone, Default)]
pub struct Trailers(pub MetadataMap);

/// Takes out what a handler wants to be sent at the end.
pub(crate) fn take(extensions: &mut Extensions) -> HeaderMap {
    let Some(Trailers(metadata)) = extensions.remove() else { return HeaderMap::new() };
    let mut trailers = metadata.into_headers();
    // What the protocol itself says there, and what belongs to no trailer.
    for name in [STATUS, MESSAGE, DETAILS, header::CONTENT_TYPE, header::CONTENT_LENGTH, header::TE] {
        trailers.remove(name);
    }
    trailers
}

/// The status that trailers tell: their metadata where the call succeeded.
pub(super) fn outcome(trailers: HeaderMap) -> Result<HeaderMap, Status> {
    told(trailers).unwrap_or_else(|| Err(without_status()))
}

/// As [`outcome`]; `None` where no status is told.
pub(super) fn told(mut trailers: HeaderMap) -> Option<Result<HeaderMap, Status>> {
    let (code, message, details) = split_status(&mut trailers)?;
    if code == Code::Ok {
        return Some(Ok(trailers));
    }
    let metadata = MetadataMap::from_headers(trailers);
    Some(Err(Status::with_details_and_metadata(code, message, details.into(), metadata)))
}

/// The backend broke off.
pub(super) fn without_status() -> Status {
    tracing::error!("an answer of an rpc ended without a status");
    Status::internal("the service broke off its answer")
}

/// The trailers that tell a status.
pub(super) fn of_status(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if let Err(error) = status.add_header(&mut trailers) {
        tracing::error!(%error, "a status cannot be written as trailers");
        trailers.insert(STATUS, HeaderValue::from(i32::from(status.code())));
    }
    trailers
}

/// Cuts a block of trailers down to what clients take: without a status they would see nothing but a broken stream.
pub(super) fn guard(trailers: &mut HeaderMap) {
    if trailers.len() <= 1 || length(trailers) <= BLOCK_MAX {
        return;
    }
    if trailers.remove(DETAILS).is_some() {
        tracing::warn!("the details of an error are too long for trailers and were left out");
    }
    if length(trailers) > BLOCK_MAX
        && let Some(message) = trailers.get(MESSAGE)
    {
        let message: String = percent_decoded(message.as_bytes()).chars().take(MESSAGE_MAX).collect();
        if let Some(short) = of_status(&Status::unknown(message)).remove(MESSAGE) {
            trailers.insert(MESSAGE, short);
        }
    }
}

fn length(block: &HeaderMap) -> usize {
    block.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD).sum()
}

/// The trailers as the last envelope of gRPC-Web.
pub(super) fn web_envelope(trailers: &HeaderMap) -> Bytes {
    let mut out = Vec::with_capacity(64);
    let written = envelope::append::<Status>(&mut out, TRAILERS, |out| {
        for (name, value) in trailers {
            line(out, name, value);
        }
        Ok(())
    });
    if let Err(error) = written {
        tracing::error!(%error, "trailers do not fit into an envelope");
    }
    out.into()
}

fn line(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(details: usize, message: usize) -> HeaderMap {
        let details = Bytes::from(vec![7; details]);
        let status = Status::with_details(Code::NotFound, "é".repeat(message), details);
        let mut trailers = of_status(&status);
        trailers.append("x-mine", HeaderValue::from_static("kept"));
        guard(&mut trailers);
        trailers
    }

    /// A6 #77.
    #[test]
    fn long_details_never_break_the_client() {
        let short = status(1000, 10);
        assert!(short.contains_key(DETAILS));
        for (details, message) in [(9000, 10), (9000, 9000), (0, 9000)] {
            let cut = status(details, message);
            assert!(length(&cut) <= BLOCK_MAX);
            assert_eq!(cut.get(STATUS).expect("a status"), "5");
            assert_eq!(cut.get("x-mine").expect("metadata"), "kept");
            assert!(!cut.contains_key(DETAILS));
            let status = outcome(cut).expect_err("an error");
            assert!(status.message().chars().all(|c| c == 'é'), "{}", status.message());
            assert_eq!(status.message().chars().count(), message.min(MESSAGE_MAX));
        }
    }

    /// A6 #77, A11 #111.
    #[test]
    fn a_status_survives_trailers() {
        let mut metadata = MetadataMap::new();
        metadata.append("x-two", "1".parse().expect("a value"));
        metadata.append("x-two", "2".parse().expect("a value"));
        let sent = Status::with_details_and_metadata(
            Code::Aborted,
            "50 % ☃",
            Bytes::from_static(b"\0\x01"),
            metadata,
        );
        let got = outcome(of_status(&sent)).expect_err("an error");
        assert_eq!((got.code(), got.message(), got.details()), (sent.code(), "50 % ☃", &b"\0\x01"[..]));
        assert_eq!(got.metadata().get_all("x-two").iter().collect::<Vec<_>>(), ["1", "2"]);

        let lines = web_envelope(&HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]));
        assert_eq!(&lines[..], b"\x80\0\0\0\x10grpc-status: 0\r\n");
        assert_eq!(outcome(HeaderMap::new()).expect_err("no status").code(), Code::Internal);
    }
}
