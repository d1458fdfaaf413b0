//! The answer of a server that may break off, or speak something else than gRPC.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::Response;
use http::header::{self, HeaderName};
use http_body::Frame;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::grpc::{PREFIX, STATUS};
use crate::headers;

/// What is said of this hop's bytes, not of the messages in them.
const OF_THIS_HOP: [HeaderName; 3] = [
    header::CONTENT_LENGTH,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
];

/// The answer as a backend in process would give it: whole uncompressed messages, or an error in their place.
pub(super) fn checked(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    headers::drop_connection(&mut parts.headers);
    for name in OF_THIS_HOP {
        parts.headers.remove(name);
    }
    Response::from_parts(parts, Body::new(Checked { body, place: Place::default(), ended: false }))
}

/// Where in its frames an answer is.
#[derive(Debug, Default)]
struct Place {
    /// The bytes of a prefix that have arrived so far.
    prefix: [u8; PREFIX],
    prefix_length: usize,
    /// What is still to come of the message behind the last prefix.
    left: usize,
}

impl Place {
    fn is_between_messages(&self) -> bool {
        self.prefix_length == 0 && self.left == 0
    }

    fn advance(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(data.len());
                self.left -= passed;
                data.advance(passed);
                continue;
            }
            if let Some(byte) = self.prefix.get_mut(self.prefix_length) {
                *byte = data.get_u8();
                self.prefix_length += 1;
            }
            if self.prefix_length == PREFIX {
                let [flag, length @ ..] = self.prefix;
                if flag != 0 {
                    return Err(broken("it compressed a message unasked, or sent no gRPC"));
                }
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.prefix_length = 0;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Checked {
    body: Body,
    place: Place,
    ended: bool,
}

impl Checked {
    fn check(&mut self, frame: Result<Frame<Bytes>, Status>) -> Result<Frame<Bytes>, Status> {
        let frame = frame.map_err(|status| broken_off(&status))?;
        if let Some(data) = frame.data_ref() {
            self.place.advance(data)?;
        }
        match frame.trailers_ref().map(|trailers| trailers.get(STATUS)) {
            Some(None) => Err(broken("it ended without a status")),
            Some(Some(status)) if status == "0" && !self.place.is_between_messages() => {
                Err(broken("its last message is cut off"))
            }
            _ => Ok(frame),
        }
    }
}

impl http_body::Body for Checked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
            self.ended = true;
            let cut = (!self.place.is_between_messages()).then(|| Err(broken("its last message is cut off")));
            return Poll::Ready(cut);
        };
        let frame = self.check(frame);
        self.ended = frame.is_err();
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.place.is_between_messages() && self.body.is_end_stream())
    }
}

fn broken(what: &str) -> Status {
    tracing::error!(error = what, "the upstream's answer is no gRPC");
    Status::internal("the service sent an answer that cannot be read")
}

/// The connection or the stream broke. Where HTTP/2 gives a reason, it decides the code.
fn broken_off(status: &Status) -> Status {
    tracing::warn!(error = status as &dyn std::error::Error, "the upstream broke off its answer");
    let code = match status.code() {
        Code::Unknown => Code::Unavailable,
        code => code,
    };
    Status::new(code, "the service broke off its answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A6 #81.
    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let bytes = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x01d";
        for size in 1..=bytes.len() {
            let mut place = Place::default();
            let mut between = Vec::new();
            for (index, chunk) in bytes.chunks(size).enumerate() {
                place.advance(chunk).expect("good frames");
                between.push(((index + 1) * size, place.is_between_messages()));
            }
            for (end, is_between) in between {
                let ends_a_message = [8, 13].contains(&end) || end >= bytes.len();
                assert_eq!(is_between, ends_a_message, "{end} of chunks of {size}");
            }
        }
        assert_eq!(Place::default().advance(b"<html").expect_err("no gRPC").code(), Code::Internal);
        assert!(Place::default().advance(b"\x01\0\0\0\0").is_err());
    }
}
