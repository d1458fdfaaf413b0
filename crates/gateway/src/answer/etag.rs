//! Entity tags of answers, and what a client remembers of them (RFC 9110, 8.8 and 13.1.2).

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{self, HeaderMap, HeaderValue};

/// The bytes of a digest that go into a tag: enough that no two bodies have the same one.
const DIGEST: usize = 16;

/// `"tag"`, unless the tag is empty or holds what an entity tag cannot.
pub(crate) fn quoted(tag: &str) -> Option<HeaderValue> {
    let is_opaque = |byte: u8| byte == 0x21 || (0x23..=0x7e).contains(&byte);
    (!tag.is_empty() && tag.bytes().all(is_opaque))
        .then(|| HeaderValue::try_from(format!("\"{tag}\"")).ok())?
}

/// The tag of a body that says nothing of its version. Equal messages are equal text, so it is a strong one.
pub(crate) fn of_body(body: &[u8]) -> Option<HeaderValue> {
    let digest = digest(&SHA256, body);
    quoted(&URL_SAFE_NO_PAD.encode(digest.as_ref().get(..DIGEST)?))
}

/// Makes the tag of an answer weak: compressed, it is no longer the same bytes.
pub(crate) fn weaken(headers: &mut HeaderMap) {
    let weak = headers
        .get(header::ETAG)
        .filter(|etag| etag.as_bytes().starts_with(b"\""))
        .and_then(|etag| HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat()).ok());
    if let Some(weak) = weak {
        headers.insert(header::ETAG, weak);
    }
}

/// What `If-None-Match` says.
#[derive(Debug, Default)]
pub(crate) struct Known(Vec<HeaderValue>);

impl Known {
    pub(crate) fn of(request: &HeaderMap) -> Self {
        Self(request.get_all(header::IF_NONE_MATCH).iter().cloned().collect())
    }

    /// Whether the client has the answer of this tag already. Tags are compared weakly.
    pub(crate) fn has(&self, etag: Option<&HeaderValue>) -> bool {
        let Some(etag) = etag.map(|etag| opaque(etag.as_bytes())) else { return false };
        self.0.iter().any(|list| {
            let list = list.as_bytes().trim_ascii();
            list == b"*" || tags(list).any(|tag| tag == etag)
        })
    }
}

/// The tag without the mark of a weak one.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The tags of a list, quotes and all. A comma inside of a tag ends none.
fn tags(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let start = rest.iter().position(|byte| *byte == b'"')?;
        let tag = rest.get(start..)?;
        let end = tag.iter().skip(1).position(|byte| *byte == b'"')? + 2;
        rest = tag.get(end..)?;
        tag.get(..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A11 #113.
    #[test]
    fn tags_are_compared_weakly() {
        let etag = HeaderValue::from_static("\"a\"");
        for (list, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", W/\"a\"", true),
            ("\"x,\", \"a\"", true),
            (" * ", true),
            ("", false),
            ("a", false),
            ("\"b\"", false),
            ("\"ab\"", false),
            ("\"x,\"a\"", false),
            ("\"a", false),
        ] {
            let known = Known(vec![HeaderValue::from_static(list)]);
            assert_eq!(known.has(Some(&etag)), expected, "{list}");
            assert!(!known.has(None), "{list}");
        }
        assert!(!Known::default().has(Some(&etag)));
    }

    /// A11 #113.
    #[test]
    fn tags_of_bodies_tell_them_apart() {
        assert_eq!(of_body(b"a"), of_body(b"a"));
        assert_ne!(of_body(b"a"), of_body(b"b"));
        let mut headers = HeaderMap::from_iter([(header::ETAG, HeaderValue::from_static("\"a\""))]);
        weaken(&mut headers);
        weaken(&mut headers);
        assert_eq!(headers[header::ETAG], "W/\"a\"");
    }
}
