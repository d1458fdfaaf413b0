//! Which protocol a request speaks, by its content type.

use http::header::{self, HeaderMap, HeaderValue};

use crate::body::is_utf8;

/// How messages are laid out on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Grpc,
    GrpcWeb,
    /// gRPC-Web in base64.
    GrpcWebText,
    /// Connect without envelopes, for unary rpcs only.
    ConnectUnary,
    /// Connect with envelopes, for every other rpc.
    ConnectStream,
}

/// How one message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Proto,
    Json,
}

/// A content type: the protocol where it names one, and the codec where it is one of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentType {
    pub(super) wire: Option<Wire>,
    pub(super) codec: Option<Codec>,
}

impl ContentType {
    const NONE: Self = Self { wire: None, codec: None };

    /// The content type of a request. More than one is none.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(header::CONTENT_TYPE).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().map_or(Self::NONE, Self::parse),
            _ => Self::NONE,
        }
    }

    fn parse(text: &str) -> Self {
        // The usual ones are not taken apart.
        match text {
            "application/grpc" => return Self { wire: Some(Wire::Grpc), codec: Some(Codec::Proto) },
            "application/json" => return Self { wire: Some(Wire::ConnectUnary), codec: Some(Codec::Json) },
            _ => {}
        }
        let (media, parameters) = text.split_once(';').unwrap_or((text, ""));
        let media = media.trim().to_ascii_lowercase();
        let Some(subtype) = media.strip_prefix("application/") else { return Self::NONE };
        let (family, codec) = match subtype.split_once('+') {
            Some((family, codec)) => (family, Some(codec)),
            None => (subtype, None),
        };
        let (wire, codec) = match (family, codec) {
            ("grpc", codec) => (Wire::Grpc, codec.unwrap_or("proto")),
            ("grpc-web", codec) => (Wire::GrpcWeb, codec.unwrap_or("proto")),
            ("grpc-web-text", codec) => (Wire::GrpcWebText, codec.unwrap_or("proto")),
            ("connect", Some(codec)) => (Wire::ConnectStream, codec),
            ("proto" | "json", None) => (Wire::ConnectUnary, family),
            _ => return Self::NONE,
        };
        let codec = match codec {
            "proto" => Some(Codec::Proto),
            "json" if is_utf8(parameters) => Some(Codec::Json),
            _ => None,
        };
        Self { wire: Some(wire), codec }
    }
}

/// Whether the body is one message in protobuf: a type that nobody but Connect's clients uses.
pub(super) fn is_proto(headers: &HeaderMap) -> bool {
    ContentType::of(headers) == ContentType { wire: Some(Wire::ConnectUnary), codec: Some(Codec::Proto) }
}

impl Wire {
    pub(super) fn is_connect(self) -> bool {
        matches!(self, Self::ConnectUnary | Self::ConnectStream)
    }

    /// The content type of the answer: the one asked for, without its parameters.
    pub(super) fn answer_type(self, codec: Codec, headers: &HeaderMap) -> HeaderValue {
        match headers.get(header::CONTENT_TYPE) {
            Some(asked) if !asked.as_bytes().contains(&b';') => asked.clone(),
            _ => HeaderValue::from_static(self.content_type(codec)),
        }
    }

    const fn content_type(self, codec: Codec) -> &'static str {
        match (self, codec) {
            (Self::Grpc, Codec::Proto) => "application/grpc+proto",
            (Self::Grpc, Codec::Json) => "application/grpc+json",
            (Self::GrpcWeb, Codec::Proto) => "application/grpc-web+proto",
            (Self::GrpcWeb, Codec::Json) => "application/grpc-web+json",
            (Self::GrpcWebText, Codec::Proto) => "application/grpc-web-text+proto",
            (Self::GrpcWebText, Codec::Json) => "application/grpc-web-text+json",
            (Self::ConnectUnary, Codec::Proto) => "application/proto",
            (Self::ConnectUnary, Codec::Json) => "application/json",
            (Self::ConnectStream, Codec::Proto) => "application/connect+proto",
            (Self::ConnectStream, Codec::Json) => "application/connect+json",
        }
    }
}

impl Codec {
    /// The content type of a Connect answer to GET.
    pub(super) fn unary_type(self) -> HeaderValue {
        HeaderValue::from_static(Wire::ConnectUnary.content_type(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &'static str) -> (Option<Wire>, Option<Codec>) {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(text))]);
        let found = ContentType::of(&headers);
        (found.wire, found.codec)
    }

    /// A9 #94, #95.
    #[test]
    fn content_types_name_protocol_and_codec() {
        use {Codec::*, Wire::*};
        for (text, wire, codec) in [
            ("application/grpc", Some(Grpc), Some(Proto)),
            ("application/grpc+proto", Some(Grpc), Some(Proto)),
            ("Application/gRPC+JSON; charset=utf-8", Some(Grpc), Some(Json)),
            ("application/grpc-web", Some(GrpcWeb), Some(Proto)),
            ("application/grpc-web+json", Some(GrpcWeb), Some(Json)),
            ("application/grpc-web-text", Some(GrpcWebText), Some(Proto)),
            ("application/grpc-web-text+proto", Some(GrpcWebText), Some(Proto)),
            ("application/proto", Some(ConnectUnary), Some(Proto)),
            ("application/json;charset=\"UTF-8\"", Some(ConnectUnary), Some(Json)),
            ("application/connect+proto", Some(ConnectStream), Some(Proto)),
            ("application/connect+json", Some(ConnectStream), Some(Json)),
            ("application/grpc+foo", Some(Grpc), None),
            ("application/connect+proto+x", Some(ConnectStream), None),
            ("application/json; charset=latin1", Some(ConnectUnary), None),
            ("application/connect", None, None),
            ("application/grpcweb", None, None),
            ("application/foo", None, None),
            ("image/jpeg", None, None),
            ("", None, None),
        ] {
            assert_eq!(parsed(text), (wire, codec), "{text}");
        }
    }
}
