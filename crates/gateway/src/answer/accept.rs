//! What a client accepts, by the lists of `Accept` and `Accept-Encoding` with their weights.

use std::borrow::Cow;
use std::cmp::Reverse;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::protocol::Encoding;

/// The error type that clients name beside the one of what they ask for.
const PROBLEM: &str = "application/problem+json";
const JSON: &str = "application/json";
/// The weight of what is named without one, in thousandths.
const FULL: u16 = 1000;

/// One item of a list: its name in lower case and its weight in thousandths.
type Item<'h> = (Cow<'h, str>, u16);

fn items<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<Item<'h>> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .filter_map(|item| {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let name = name.trim();
            let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
            let name = if is_lower { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase()) };
            (!name.is_empty()).then(|| (name, quality(parameters)))
        })
        .collect()
}

/// The `q` of an item of an `Accept` header in thousandths; what cannot be read counts full.
pub(crate) fn quality(parameters: &str) -> u16 {
    let q = parameters.split(';').find_map(|parameter| {
        parameter.trim().strip_prefix(['q', 'Q']).and_then(|rest| rest.strip_prefix('='))
    });
    let thousandths = q.and_then(|q| {
        let (whole, fraction) = q.trim().split_once('.').unwrap_or((q.trim(), ""));
        let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
        Some(whole.parse::<u16>().ok()?.min(1) * 1000 + digits.parse::<u16>().ok()?)
    });
    thousandths.unwrap_or(1000).min(1000)
}

/// The media types that a client takes.
#[derive(Debug)]
pub(crate) struct Accept {
    answers: Answers,
    /// Whether errors are wanted as RFC 9457 has them.
    pub(crate) is_problem: bool,
}

/// The media types of answers to calls that succeed.
#[derive(Debug)]
enum Answers {
    All,
    /// JSON and nothing else, which most clients ask for.
    Json,
    Weighed(Vec<(Box<str>, u16)>),
}

impl Accept {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(header::ACCEPT).iter();
        let simple = match (values.next().map(HeaderValue::as_bytes), values.next()) {
            (None | Some(b"*/*"), None) => Some(Answers::All),
            (Some(value), None) if value == JSON.as_bytes() => Some(Answers::Json),
            _ => None,
        };
        if let Some(answers) = simple {
            return Self { answers, is_problem: false };
        }
        let mut answers = items(headers, &header::ACCEPT);
        let named = |wanted: &str| answers.iter().find(|(name, _)| name == wanted).map(|(_, weight)| *weight);
        // Errors have a type of their own, so that a client may name both and mean both.
        let is_problem =
            named(PROBLEM).is_some_and(|problem| problem > 0 && problem >= named(JSON).unwrap_or(0));
        answers.retain(|(name, _)| name != PROBLEM);
        let answers: Vec<_> = answers.into_iter().map(|(name, weight)| (Box::from(name), weight)).collect();
        let answers = if answers.is_empty() { Answers::All } else { Answers::Weighed(answers) };
        Self { answers, is_problem }
    }

    /// The best of these types, the first of equals; `None` where the client takes none of them. What a client names
    /// itself is better than what only a wildcard of it matches, and of that what it names first.
    pub(crate) fn best<T: Copy>(&self, offers: &[(T, &'static str)]) -> Option<(T, &'static str)> {
        let items = match &self.answers {
            Answers::All => return offers.first().copied(),
            Answers::Json => return offers.iter().find(|(_, name)| *name == JSON).copied(),
            Answers::Weighed(items) => items,
        };
        let mut best = None;
        for offer in offers {
            let Some(rank) = rank(items, offer.1) else { continue };
            if best.as_ref().is_none_or(|(highest, _)| rank > *highest) {
                best = Some((rank, *offer));
            }
        }
        best.map(|(_, offer)| offer)
    }
}

/// Weight, exactness and place of the item that says most of a type.
fn rank(items: &[(Box<str>, u16)], offer: &str) -> Option<(u16, u8, Reverse<usize>)> {
    let (group, _) = offer.split_once('/')?;
    let exactness = |name: &str| match name {
        "*/*" => Some(0),
        name if name == offer => Some(2),
        name => name.strip_suffix("/*").filter(|name| *name == group).map(|_| 1),
    };
    let matching = items
        .iter()
        .enumerate()
        .filter_map(|(place, (name, weight))| Some((exactness(name)?, Reverse(place), *weight)));
    let (exactness, place, weight) = matching.max()?;
    (weight > 0).then_some((weight, exactness, place))
}

/// How a body may be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Codings {
    /// The encoding that the client likes best.
    pub(crate) best: Option<Encoding>,
    /// Whether the client takes a body as it is.
    pub(crate) identity: bool,
}

impl Codings {
    /// Reads `Accept-Encoding`.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        if !headers.contains_key(header::ACCEPT_ENCODING) {
            return Self { best: None, identity: true };
        }
        let items = items(headers, &header::ACCEPT_ENCODING);
        let named = |wanted: &str| items.iter().find(|(name, _)| name == wanted).map(|(_, weight)| *weight);
        let others = named("*");
        let identity = named("identity");
        let mut best: Option<(u16, Encoding)> = None;
        // In the order of the client, and whatever is left for a wildcard in ours.
        let listed = items.iter().filter_map(|(name, weight)| Some((*weight, Encoding::named(name)?)));
        let unlisted = Encoding::ALL.into_iter().filter(|encoding| named(encoding.name()).is_none());
        for (weight, encoding) in
            listed.chain(unlisted.filter_map(|encoding| others.map(|weight| (weight, encoding))))
        {
            if weight > best.map_or(0, |(highest, _)| highest) {
                best = Some((weight, encoding));
            }
        }
        Self {
            best: best.filter(|(weight, _)| *weight >= identity.unwrap_or(0)).map(|(_, encoding)| encoding),
            identity: identity.or(others.filter(|weight| *weight == 0)).unwrap_or(FULL) > 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &'static str) -> Accept {
        Accept::of(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(text))]))
    }

    /// A9 #99.
    #[test]
    fn types_are_weighed() {
        let offers = [(1, JSON), (2, "application/x-protobuf"), (3, "text/event-stream")];
        for (text, expected) in [
            ("", Some(1)),
            ("*/*", Some(1)),
            ("application/*", Some(1)),
            ("Application/JSON; charset=utf-8", Some(1)),
            ("text/*;q=0.2, application/json;q=0.1", Some(3)),
            ("text/event-stream, */*", Some(3)),
            ("application/json;q=0, */*", Some(2)),
            ("application/json;q=0.4, application/x-protobuf;q=0.5, */*;q=0.1", Some(2)),
            ("text/event-stream, application/x-protobuf", Some(3)),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Some(1)),
            ("application/problem+json", Some(1)),
            ("text/html", None),
            ("application/json;q=0", None),
            ("*/*;q=0", None),
        ] {
            assert_eq!(accept(text).best(&offers).map(|(offer, _)| offer), expected, "{text}");
        }
    }

    /// A6 #74.
    #[test]
    fn errors_have_a_type_of_their_own() {
        for (text, expected) in [
            ("*/*", false),
            ("application/json", false),
            ("application/problem+json", true),
            ("application/json, application/problem+json", true),
            ("application/json, application/problem+json;q=0.9", false),
            ("application/problem+json;q=0", false),
        ] {
            assert_eq!(accept(text).is_problem, expected, "{text}");
        }
    }

    /// A8 #90.
    #[test]
    fn encodings_are_weighed() {
        let (gzip, br) = (Some(Encoding::Gzip), Some(Encoding::Brotli));
        for (text, best, identity) in [
            ("", None, true),
            ("deflate", None, true),
            ("gzip, deflate, br", gzip, true),
            ("gzip;q=0.5, br;q=0.8", br, true),
            ("*", gzip, true),
            ("gzip;q=0, *", br, true),
            ("gzip;q=0.5, identity", None, true),
            ("identity;q=0, gzip;q=0.1", gzip, false),
            ("identity;q=0", None, false),
            ("*;q=0", None, false),
            ("*;q=0, identity", None, true),
            ("br, *;q=0", br, false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(text))]);
            assert_eq!(Codings::of(&headers), Codings { best, identity }, "{text}");
        }
    }
}
