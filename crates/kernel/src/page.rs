//! Keyset pagination: page sizes, and page tokens that cannot be forged or reused for another list.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::check::Violations;
use crate::fault::Fault;

/// How many items a page may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize(i64);

impl PageSize {
    /// The most items of any page.
    pub const MAX: i32 = 1000;

    /// Reads a requested size: `default` where it is 0, clamped above the maximum, a violation where it
    /// is negative.
    pub fn new(field: &str, requested: i32, default: i32, violations: &mut Violations) -> Self {
        violations.require(requested >= 0, field, "must not be negative");
        let size = if requested == 0 { default } else { requested.clamp(1, Self::MAX) };
        Self(i64::from(size))
    }

    /// The number of items.
    pub fn get(self) -> usize {
        usize::try_from(self.0).unwrap_or_default()
    }

    /// The number of rows to ask for: one more, to know whether a page follows.
    pub fn limit(self) -> i64 {
        self.0 + 1
    }
}

/// One column of the row that a page ended with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CursorValue {
    /// An integer or a time.
    #[serde(rename = "i")]
    Integer(i64),
    /// A text.
    #[serde(rename = "t")]
    Text(String),
    /// A row id.
    #[serde(rename = "u")]
    Uuid(u128),
}

/// The sort key of the row that a page ended with, the row id last.
pub type PageCursor = Vec<CursorValue>;

/// What a page token is bound to. A token presented for anything else is refused.
#[derive(Debug, Clone, Copy)]
pub struct PageScope<'a> {
    /// Full name of the RPC.
    pub method: &'a str,
    /// What is listed, such as the customer's row id.
    pub parent: &'a str,
    /// The filter, and any other input that selects rows.
    pub filter: &'a str,
    /// The order.
    pub order_by: &'a str,
    /// The credential of the caller.
    pub caller: &'a str,
}

/// The key that authenticates page tokens, the same on every replica.
pub struct PageKey(hmac::Key);

const VERSION: u8 = 1;
const MAC_LENGTH: usize = 16;
/// Far above any honest token; it bounds the work done on a hostile one.
const TOKEN_MAX: usize = 8192;

impl PageKey {
    /// A key from 32 secret bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The token that continues a list after `cursor`.
    pub fn seal(&self, scope: PageScope<'_>, cursor: &PageCursor) -> Result<String, Fault> {
        let payload = serde_json::to_vec(cursor).map_err(Fault::internal)?;
        let mut token = Vec::with_capacity(1 + MAC_LENGTH + payload.len());
        token.push(VERSION);
        token.extend_from_slice(&self.mac(scope, &payload));
        token.extend_from_slice(&payload);
        Ok(URL_SAFE_NO_PAD.encode(token))
    }

    /// The cursor inside a token; none for the empty token, which starts the list.
    pub fn open(&self, scope: PageScope<'_>, token: &str) -> Result<Option<PageCursor>, Fault> {
        if token.is_empty() {
            return Ok(None);
        }
        self.open_present(scope, token).map(Some).ok_or_else(|| {
            Fault::invalid_field("page_token", "is not a token of this list; start again without one")
        })
    }

    fn open_present(&self, scope: PageScope<'_>, token: &str) -> Option<PageCursor> {
        let bytes = (token.len() <= TOKEN_MAX).then(|| URL_SAFE_NO_PAD.decode(token).ok())??;
        let (&version, rest) = bytes.split_first()?;
        let (mac, payload) = rest.split_at_checked(MAC_LENGTH)?;
        let expected = self.mac(scope, payload);
        let genuine = aws_lc_rs::constant_time::verify_slices_are_equal(mac, &expected).is_ok();
        if version != VERSION || !genuine {
            return None;
        }
        serde_json::from_slice(payload).ok()
    }

    fn mac(&self, scope: PageScope<'_>, payload: &[u8]) -> [u8; MAC_LENGTH] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [scope.method, scope.parent, scope.filter, scope.order_by, scope.caller] {
            // Lengths keep neighbouring parts apart.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.update(payload);
        let mut mac = [0; MAC_LENGTH];
        mac.copy_from_slice(&context.sign().as_ref()[..MAC_LENGTH]);
        mac
    }
}

impl fmt::Debug for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCOPE: PageScope<'static> =
        PageScope { method: "List", parent: "cust_1", filter: "a = 1", order_by: "", caller: "key_1" };

    fn key() -> PageKey {
        PageKey::new(&[7; 32])
    }

    fn cursor() -> PageCursor {
        vec![CursorValue::Text("acme".into()), CursorValue::Integer(-3), CursorValue::Uuid(u128::MAX)]
    }

    #[test]
    fn a_token_continues_its_own_list_only() {
        let token = key().seal(SCOPE, &cursor()).unwrap();
        assert_eq!(key().open(SCOPE, &token).unwrap(), Some(cursor()));
        for other in [
            PageScope { method: "ListOther", ..SCOPE },
            PageScope { parent: "cust_2", ..SCOPE },
            PageScope { filter: "", ..SCOPE },
            PageScope { order_by: "name", ..SCOPE },
            PageScope { caller: "key_2", ..SCOPE },
        ] {
            assert_eq!(key().open(other, &token).unwrap_err().violations()[0].field, "page_token");
        }
        assert!(PageKey::new(&[8; 32]).open(SCOPE, &token).is_err());
        assert_eq!(key().open(SCOPE, "").unwrap(), None);
    }

    proptest! {
        #[test]
        fn hostile_tokens_are_refused(token in "[A-Za-z0-9_-]{1,200}") {
            prop_assert!(key().open(SCOPE, &token).is_err());
        }

        #[test]
        fn a_changed_token_is_refused(position in 0usize..80, byte in proptest::char::range('A', 'Z')) {
            let token = key().seal(SCOPE, &cursor()).unwrap();
            let mut changed: Vec<char> = token.chars().collect();
            let position = position % changed.len();
            changed[position] = byte;
            let changed: String = changed.into_iter().collect();
            if changed != token {
                prop_assert!(key().open(SCOPE, &changed).is_err());
            }
        }
    }

    #[test]
    fn sizes() {
        let mut violations = Violations::new();
        assert_eq!(PageSize::new("page_size", 0, 50, &mut violations).get(), 50);
        assert_eq!(PageSize::new("page_size", 5000, 50, &mut violations).get(), 1000);
        assert_eq!(PageSize::new("page_size", 7, 50, &mut violations).limit(), 8);
        assert!(violations.is_empty());
        PageSize::new("page_size", -1, 50, &mut violations);
        assert!(!violations.is_empty());
    }
}
