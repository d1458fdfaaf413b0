//! The query of a Connect call by GET.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use tonic::Status;

use crate::escape::{self, Decode};
use crate::protocol::classify::Codec;
use crate::protocol::compression::Encoding;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A message from a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) codec: Codec,
    pub(super) encoding: Option<Encoding>,
    pub(super) message: Bytes,
}

/// Why a query is no call.
#[derive(Debug)]
pub(super) enum QueryError {
    /// The codec is not spoken: the counterpart of a content type that is not.
    UnknownCodec,
    Status(Status),
}

impl From<Status> for QueryError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Query {
    pub(super) fn parse(query: &str) -> Result<Self, QueryError> {
        let (mut codec, mut encoding, mut message, mut is_base64) = (None, None, None, false);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "connect" if value != "v1" => return Err(invalid("`connect` must be `v1`").into()),
                "encoding" => codec = Some(value),
                "compression" => encoding = Encoding::parse(value)?,
                "message" => message = Some(value),
                "base64" => is_base64 = value == "1",
                // Whatever else is there is left to the handler.
                _ => {}
            }
        }
        let codec = match codec {
            Some("proto") => Codec::Proto,
            Some("json") => Codec::Json,
            Some(_) => return Err(QueryError::UnknownCodec),
            None => return Err(invalid("`encoding` is missing").into()),
        };
        let message = message.ok_or_else(|| invalid("`message` is missing"))?;
        let message = escape::decode_bytes(message, Decode::Form)
            .map_err(|error| invalid(&format!("`message` {}", error.description())))?;
        let message = if is_base64 {
            // Both alphabets are read: the other one is easily sent by mistake, and means nothing else. A plus is
            // a space in a query.
            let safe = |byte: &u8| match byte {
                b'+' | b' ' => b'-',
                b'/' => b'_',
                other => *other,
            };
            let text: Vec<u8> = message.iter().map(safe).collect();
            BASE64.decode(text).map_err(|_| invalid("`message` is no base64"))?.into()
        } else {
            Bytes::from(message.into_owned())
        };
        Ok(Self { codec, encoding, message })
    }
}

fn invalid(problem: &str) -> Status {
    Status::invalid_argument(format!("the query parameter {problem}"))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    /// A11 #109.
    #[test]
    fn messages_come_from_the_query() {
        let json = |message: &'static str| Query {
            codec: Codec::Json,
            encoding: None,
            message: Bytes::from_static(message.as_bytes()),
        };
        let proto = |message: &'static [u8]| Query {
            codec: Codec::Proto,
            encoding: None,
            message: Bytes::from_static(message),
        };
        for (query, expected) in [
            ("connect=v1&encoding=json&message=%7B%22a%22%3A+%22%2B%22%7D", json(r#"{"a": "+"}"#)),
            ("message={}&encoding=json", json("{}")),
            ("encoding=proto&message=%08%ff%01&x=1", proto(b"\x08\xff\x01")),
            ("encoding=proto&message=", proto(b"")),
            ("encoding=proto&base64=1&message=CP8B", proto(b"\x08\xff\x01")),
            ("encoding=proto&base64=1&message=-_8", proto(b"\xfb\xff")),
            ("encoding=proto&base64=1&message=%2B%2F8%3D", proto(b"\xfb\xff")),
            (
                "encoding=json&compression=gzip&base64=1&message=e30",
                Query { encoding: Some(Encoding::Gzip), ..json("{}") },
            ),
        ] {
            assert_eq!(Query::parse(query).expect(query), expected, "{query}");
        }
        for (query, code) in [
            ("connect=v2&encoding=json&message={}", Code::InvalidArgument),
            ("encoding=json", Code::InvalidArgument),
            ("message={}", Code::InvalidArgument),
            ("", Code::InvalidArgument),
            ("encoding=json&message=%zz", Code::InvalidArgument),
            ("encoding=proto&base64=1&message=*", Code::InvalidArgument),
            ("encoding=json&compression=foo&message={}", Code::Unimplemented),
        ] {
            match Query::parse(query).expect_err(query) {
                QueryError::Status(status) => assert_eq!(status.code(), code, "{query}"),
                QueryError::UnknownCodec => panic!("{query}"),
            }
        }
        assert!(matches!(Query::parse("encoding=foo&message="), Err(QueryError::UnknownCodec)));
    }
}
