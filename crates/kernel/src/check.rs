//! Field checks that collect every violation of a request before it is refused.

use std::collections::BTreeMap;

use crate::fault::{Fault, Violation};
use crate::id::{Id, Kind, NameOrId};

/// The longest display name, in characters.
pub const DISPLAY_NAME_MAX: usize = 255;
/// The longest description, in characters.
pub const DESCRIPTION_MAX: usize = 4096;

/// The violations of one request so far.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// No violations yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a violation.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(Violation { field: field.into(), description: description.into() });
    }

    /// Notes a violation where `holds` is false.
    pub fn require(&mut self, holds: bool, field: &str, description: &str) {
        if !holds {
            self.add(field, description);
        }
    }

    /// A new slug: 1 to 63 characters, lower-case letters, digits and inner hyphens, a letter first.
    pub fn slug(&mut self, field: &str, value: &str) {
        if value.is_empty() {
            self.add(field, "is required");
        } else if !is_slug(value) {
            self.add(
                field,
                "must be 1 to 63 lower-case letters, digits or hyphens, begin with a letter and not end with a hyphen",
            );
        }
    }

    /// The name of an existing resource, by slug or row id.
    pub fn name<K: Kind>(&mut self, field: &str, value: &str) -> NameOrId<K> {
        self.require(!value.is_empty(), field, "is required");
        NameOrId::parse(value)
    }

    /// A row id. Text that is no id of this kind is a violation, not a missing row.
    pub fn id<K: Kind>(&mut self, field: &str, value: &str) -> Option<Id<K>> {
        let id = Id::parse(value);
        if value.is_empty() {
            self.add(field, "is required");
        } else if id.is_none() {
            self.add(field, format!("must be a row id such as {}_01K9ZZZZZZZZZZZZZZZZZZZZZZ", K::PREFIX));
        }
        id
    }

    /// Text of a bounded length without control characters other than tab and line ends.
    pub fn text(&mut self, field: &str, value: &str, max: usize) {
        if value.chars().count() > max {
            self.add(field, format!("must have at most {max} characters"));
        }
        if value.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
            self.add(field, "must not contain control characters");
        }
    }

    /// Labels: at most 64, keys of 1 to 63 and values of at most 255 characters.
    pub fn labels(&mut self, field: &str, labels: &BTreeMap<String, String>) {
        self.require(labels.len() <= 64, field, "must have at most 64 entries");
        for (key, value) in labels {
            if key.is_empty() || key.chars().count() > 63 || key.chars().any(char::is_control) {
                self.add(
                    field,
                    format!("key {key:?} must have 1 to 63 characters and no control characters"),
                );
            }
            if value.chars().count() > 255 || value.chars().any(char::is_control) {
                self.add(
                    format!("{field}.{key}"),
                    "must have at most 255 characters and no control characters",
                );
            }
        }
    }

    /// An absolute http or https URL with a host and without user info, at most 2048 bytes.
    pub fn http_url(&mut self, field: &str, value: &str) {
        if value.is_empty() {
            return self.add(field, "is required");
        }
        let rest = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
        let Some(rest) = rest else {
            return self.add(field, "must be an http or https URL");
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            self.add(field, "must not contain a user name or password");
        } else if !is_authority(authority) {
            self.add(field, "must name a host, and a port from 1 to 65535 if any");
        }
        if value.len() > 2048 || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
            self.add(field, "must have at most 2048 bytes and no white space");
        }
    }

    /// How many violations there are so far.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was wrong so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// INVALID_ARGUMENT with every violation, if there was any.
    pub fn finish(self) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { Err(Fault::invalid(self.0)) }
    }
}

/// Whether the text is a slug.
pub fn is_slug(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(|&last| last != b'-')
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

fn is_authority(authority: &str) -> bool {
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let Some((address, rest)) = bracketed.split_once(']') else { return false };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        match rest.strip_prefix(':') {
            Some(port) => (address, Some(port)),
            None if rest.is_empty() => (address, None),
            None => return false,
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let port_is_valid = port.is_none_or(|port| {
        !port.is_empty()
            && port.bytes().all(|b| b.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let host_is_valid = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':'));
    port_is_valid && host_is_valid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs() {
        for good in ["a", "acme", "a-1", "a0", &"a".repeat(63)] {
            assert!(is_slug(good), "{good}");
        }
        for bad in ["", "A", "1a", "-a", "a-", "a_b", "ä", &"a".repeat(64), "cust_0"] {
            assert!(!is_slug(bad), "{bad}");
        }
    }

    #[test]
    fn urls() {
        let wrong = |url: &str| {
            let mut violations = Violations::new();
            violations.http_url("url", url);
            !violations.is_empty()
        };
        for good in
            ["https://a.example", "http://127.0.0.1:8080/v1?x=1", "https://[::1]:1/", "http://localhost"]
        {
            assert!(!wrong(good), "{good}");
        }
        for bad in [
            "",
            "ftp://a",
            "https://",
            "https://u:p@a",
            "https://a:0",
            "https://a:99999",
            "https://a b",
            "https://[::1",
            "https://a:+1",
        ] {
            assert!(wrong(bad), "{bad}");
        }
    }

    #[test]
    fn every_violation_is_kept() {
        let mut violations = Violations::new();
        violations.slug("customer_id", "");
        violations.text("display_name", &"x".repeat(300), DISPLAY_NAME_MAX);
        let labels = BTreeMap::from([(String::new(), "v".repeat(256))]);
        violations.labels("labels", &labels);
        let fault = violations.finish().unwrap_err();
        assert_eq!(fault.violations().len(), 4);
    }
}
