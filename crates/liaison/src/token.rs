//! The token that a worker calls with: kept from eyes, and read for how long it is good.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use tonic::metadata::{Ascii, MetadataValue};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A bearer token: wiped when dropped, and never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Token(String);

impl Token {
    /// Takes a token over, without the white space around it (files end with a line end).
    pub fn new(text: impl Into<String>) -> Self {
        let mut text = text.into();
        let token = Self(text.trim().to_owned());
        text.zeroize();
        token
    }

    /// The text, for the one file that it is kept in.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    pub(crate) fn header(&self) -> Option<MetadataValue<Ascii>> {
        let printable = !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_graphic());
        let mut text = format!("Bearer {}", self.0);
        let header = printable.then(|| MetadataValue::try_from(&text).ok()).flatten();
        text.zeroize();
        header.map(|mut header| {
            header.set_sensitive(true);
            header
        })
    }

    /// What the token says of itself, unverified: enough to renew it in time. None where it is no JWT.
    pub(crate) fn claims(&self) -> Option<Claims> {
        let text = self.0.strip_prefix("ak-").unwrap_or(&self.0);
        let text = text.strip_prefix("ak-").unwrap_or(text);
        let mut parts = text.split('.');
        let (Some(_), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: Claims = serde_json::from_slice(&payload).ok()?;
        (claims.exp > claims.iat).then_some(claims)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What a workspace token says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Claims {
    /// When it was issued, in seconds since 1970.
    pub(crate) iat: i64,
    /// When it ends, likewise.
    pub(crate) exp: i64,
    /// The customer.
    #[serde(default)]
    pub(crate) cust: String,
    /// The workspace.
    #[serde(default)]
    pub(crate) ws: String,
}

impl Claims {
    /// From when on it should be renewed: a third of its life is left then.
    pub(crate) fn renew_from(&self) -> i64 {
        self.exp.saturating_sub(self.exp.saturating_sub(self.iat) / 3)
    }

    /// Whether it takes the place of another one: of the same workspace, and issued later.
    pub(crate) fn succeeds(&self, other: &Self) -> bool {
        self.cust == other.cust && self.ws == other.ws && self.iat > other.iat
    }
}

#[cfg(test)]
pub(crate) fn unsigned(claims: &serde_json::Value) -> Token {
    Token::new(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_tells_how_long_it_is_good() {
        let token = unsigned(&json!({"iat": 1_000, "exp": 4_000, "cust": "c", "ws": "w", "jti": "x"}));
        let claims = token.claims().expect("it is a JWT");
        assert_eq!((claims.iat, claims.exp, claims.renew_from()), (1_000, 4_000, 3_000));
        assert_eq!((claims.cust.as_str(), claims.ws.as_str()), ("c", "w"));
        assert!(Token::new(format!("ak-ak-{}", token.expose())).claims().is_some());
    }

    #[test]
    fn what_is_no_token_of_that_kind_tells_nothing() {
        for text in ["", "secret", "a.b.c", "a.e30.c", "ak-0123456789", "a.b.c.d"] {
            assert_eq!(Token::new(text).claims(), None, "{text}");
        }
        assert_eq!(unsigned(&json!({"iat": 5, "exp": 5})).claims(), None);
    }

    #[test]
    fn only_a_later_token_of_the_same_workspace_succeeds() {
        let claims = |iat, ws: &str| Claims { iat, exp: iat + 10, cust: "c".to_owned(), ws: ws.to_owned() };
        assert!(claims(2, "w").succeeds(&claims(1, "w")));
        assert!(!claims(1, "w").succeeds(&claims(1, "w")));
        assert!(!claims(2, "v").succeeds(&claims(1, "w")));
    }
}
