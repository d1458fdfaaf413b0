//! Bodies of the type `multipart/form-data` (RFC 7578): taken apart, and each part bound to the field of its name. The
//! body has arrived within its limit, so no part is larger than that.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use multer::Multipart;

use crate::body::is_utf8;
use crate::content;
use crate::failure::{Problem, Violations};
use crate::json::{Tables, Type, put};
use crate::query::{Named, Source};
use crate::rule::{HTTP_BODY, Route};

const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

/// One part.
#[derive(Debug)]
pub(crate) struct Part {
    name: String,
    /// Whether it has the name of a file.
    is_file: bool,
    /// Whether it stands for no file.
    is_none: bool,
    content_type: Option<HeaderValue>,
    /// Whether its data is not what it stands for.
    is_encoded: bool,
    data: Bytes,
}

/// All parts in their order, or what is wrong with the body.
pub(crate) type Parts = Result<Vec<Part>, (Problem, String)>;

/// The bytes in all of them.
pub(crate) fn len(parts: &Parts) -> usize {
    parts.iter().flatten().map(|part| part.data.len()).sum()
}

/// Takes a body apart that has this type.
pub(crate) async fn read(body: Bytes, content_type: Option<&HeaderValue>, max_parts: usize) -> Parts {
    let boundary = content_type.and_then(|one| multer::parse_boundary(one.to_str().ok()?).ok());
    let boundary = boundary.filter(|boundary| !boundary.is_empty());
    let Some(boundary) = boundary else { return Err(malformed("its type names no boundary")) };
    let mut parts = Vec::new();
    if body.is_empty() {
        return Ok(parts);
    }
    let mut source = Multipart::new(stream::iter([Ok::<_, Infallible>(body)]), boundary);
    loop {
        let part = match next(&mut source).await {
            Ok(None) => return Ok(parts),
            Ok(Some(part)) => part,
            Err(wrong) => return Err(malformed(&format!("part [{}] {wrong}", parts.len()))),
        };
        if parts.len() == max_parts {
            return Err((Problem::TooManyParameters, format!("has more than {max_parts} parts")));
        }
        parts.push(part);
    }
}

fn malformed(what: &str) -> (Problem, String) {
    (Problem::MalformedForm, format!("is a malformed form: {what}"))
}

/// The next part. The error completes "part ...".
async fn next(source: &mut Multipart<'_>) -> Result<Option<Part>, &'static str> {
    const BROKEN: &str = "is broken or has no end";
    let Some(mut field) = source.next_field().await.map_err(|_| BROKEN)? else { return Ok(None) };
    let name = field.name().ok_or("has no name")?.to_owned();
    let is_file = field.file_name().is_some();
    let is_unnamed = field.file_name() == Some("");
    let content_type = field.headers().get(header::CONTENT_TYPE).cloned();
    let is_encoded = is_encoded(field.headers());
    let mut data = field.chunk().await.map_err(|_| BROKEN)?.unwrap_or_default();
    // What has arrived is one piece.
    while let Some(more) = field.chunk().await.map_err(|_| BROKEN)? {
        data = [data, more].concat().into();
    }
    // So browsers send a file that nobody chose.
    let is_none = is_unnamed && data.is_empty();
    Ok(Some(Part { name, is_file, is_none, content_type, is_encoded, data }))
}

/// No browser does that, and RFC 7578 has given it up (4.7).
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get(TRANSFER_ENCODING).is_some_and(|encoding| {
        let plain = [&b"7bit"[..], b"8bit", b"binary"];
        !plain.iter().any(|plain| plain.eq_ignore_ascii_case(encoding.as_bytes().trim_ascii()))
    })
}

/// Appends what the parts say to the request message. Returns the places of the fields of the body that they name.
pub(crate) fn bind(
    route: &Route,
    tables: &Tables,
    parts: &Parts,
    out: &mut Vec<u8>,
    violations: &mut Violations,
) -> Vec<usize> {
    let parts = match parts {
        Ok(parts) => parts.as_slice(),
        Err((problem, description)) => {
            violations.push("", *problem, description.as_str());
            &[]
        }
    };
    let mut named = Named::new(route, tables, Source::Form, out.len());
    for part in parts {
        if let Err((problem, description)) = part.bind(&mut named, tables, out) {
            violations.push(&part.name, problem, description);
        }
    }
    named.into_members()
}

impl Part {
    fn bind(
        &self,
        named: &mut Named<'_>,
        tables: &Tables,
        out: &mut Vec<u8>,
    ) -> Result<(), (Problem, String)> {
        let wrong = |description: &str| Err((Problem::InvalidValue, description.to_owned()));
        let Some(leaf) = named.leaf(&self.name)? else { return Ok(()) };
        if self.is_none {
            return Ok(());
        }
        if self.is_encoded {
            return wrong("has a transfer encoding, and is to be sent as it is");
        }
        let message = match leaf.kind {
            Some(Type::Message(id)) => tables.message(id),
            _ => None,
        };
        if message.is_some_and(|message| *message.name == *HTTP_BODY) {
            let content_type = self.content_type.as_ref();
            if content_type.is_some_and(|one| one.to_str().is_err()) {
                return wrong("has a content type that is no text");
            }
            return named.give(&leaf, out, |out| {
                let place = put::open(out);
                content::http_body(out, content_type, &self.data);
                put::close(out, place);
                Ok(())
            });
        }
        if leaf.kind == Some(Type::Bytes) && self.is_binary() {
            return named.give(&leaf, out, |out| {
                put::bytes(out, &self.data);
                Ok(())
            });
        }
        let kind = named.text_kind(&leaf, &self.name)?;
        if self.is_file {
            let description = "is no `bytes` and no `google.api.HttpBody`, which a file needs".to_owned();
            return Err((Problem::NotBindable, description));
        }
        let (_, parameters) = self.media_type();
        match std::str::from_utf8(&self.data) {
            Ok(text) if is_utf8(parameters) => named.text(&leaf, kind, text, out),
            _ => wrong("must be text in UTF-8"),
        }
    }

    /// Whether it is the bytes of a file, and no text that stands for them.
    fn is_binary(&self) -> bool {
        let (media, _) = self.media_type();
        self.is_file || !(media.is_empty() || media.eq_ignore_ascii_case("text/plain"))
    }

    /// The type and its parameters.
    fn media_type(&self) -> (&str, &str) {
        let text = self.content_type.as_ref().and_then(|one| one.to_str().ok()).unwrap_or_default();
        let (media, parameters) = text.split_once(';').unwrap_or((text, ""));
        (media.trim(), parameters)
    }
}
