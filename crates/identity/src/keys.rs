//! The format of API keys.
//!
//! A key is a prefix that tells its kind, 43 base62 characters that hold 256 random bits, and 6 that hold their
//! CRC-32. The checksum finds typing errors without the database, and lets scanners tell a leaked key from noise.
//! Only the SHA-256 of a key is stored: with 256 bits of entropy, nothing slower is needed.

use std::fmt;

use agentrouter_envelope::{EnvelopeError, Secret, random_bytes};
use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::model::KeyKind;

/// The prefix of management keys.
const MANAGEMENT_PREFIX: &str = "ak-";
/// The prefix of gateway keys.
pub(crate) const GATEWAY_PREFIX: &str = "gk-";

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ENTROPY: usize = 32;
/// Base62 characters that hold 256 bits.
const BODY: usize = 43;
/// Base62 characters that hold 32 bits.
const CHECKSUM: usize = 6;
/// Characters of the body that are shown to recognise a key by. They leave 208 bits unknown.
const SHOWN: usize = 8;

/// SHA-256 of a token, by which keys are found and answers cached.
pub(crate) type TokenHash = [u8; 32];

/// A key that was just made. This is the only time its text is known.
pub(crate) struct NewKey {
    pub(crate) text: Secret,
    pub(crate) hash: TokenHash,
    pub(crate) shown_prefix: String,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("shown_prefix", &self.shown_prefix).finish_non_exhaustive()
    }
}

impl NewKey {
    /// Makes a key.
    pub(crate) fn generate(kind: KeyKind) -> Result<Self, EnvelopeError> {
        let entropy = Zeroizing::new(random_bytes::<ENTROPY>()?);
        let body = base62::<BODY>(entropy.as_slice());
        let checksum = base62::<CHECKSUM>(&crc32fast::hash(body.as_bytes()).to_be_bytes());
        let prefix = match kind {
            KeyKind::Management => MANAGEMENT_PREFIX,
            KeyKind::Gateway => GATEWAY_PREFIX,
        };
        let text = Secret::new(format!("{prefix}{}{}", *body, *checksum));
        let shown_prefix = text.expose().chars().take(prefix.len() + SHOWN).collect();
        Ok(Self { hash: hash(without_prefix(text.expose())), shown_prefix, text })
    }
}

/// The part of a management key that is shown to recognise it by. `token` is in the key format and without prefix.
pub(crate) fn shown_prefix(token: &str) -> String {
    format!("{MANAGEMENT_PREFIX}{}", token.chars().take(SHOWN).collect::<String>())
}

/// How a token looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As keys do, checksum included.
    Key,
    /// As keys do, but for the checksum: no such key was ever made.
    MistypedKey,
    /// Like something else, such as a bootstrap key that a person chose.
    Other,
}

/// The shape of a token without the prefix of management keys.
pub(crate) fn shape(token: &str) -> Shape {
    let is_base62 = token.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let Some((body, checksum)) = token.split_at_checked(BODY) else { return Shape::Other };
    if !is_base62 || checksum.len() != CHECKSUM {
        return Shape::Other;
    }
    let expected = base62::<CHECKSUM>(&crc32fast::hash(body.as_bytes()).to_be_bytes());
    if *expected == checksum { Shape::Key } else { Shape::MistypedKey }
}

/// Whether the text is a management key as this program makes them, with or without its prefix.
pub fn is_key_format(text: &str) -> bool {
    shape(without_prefix(text)) == Shape::Key
}

/// A new management key that is stored nowhere yet, for whoever presents it as a bootstrap key.
///
/// # Errors
/// Where the system gives no random bytes.
pub fn generate_key() -> Result<Secret, EnvelopeError> {
    NewKey::generate(KeyKind::Management).map(|key| key.text)
}

/// A token without the prefix of management keys. Like the enforcement layer, which lets it be doubled or missing,
/// this takes off up to two; the rest is what a hash is made of.
pub(crate) fn without_prefix(text: &str) -> &str {
    let once = text.strip_prefix(MANAGEMENT_PREFIX).unwrap_or(text);
    once.strip_prefix(MANAGEMENT_PREFIX).unwrap_or(once)
}

/// The hash of a token that [`without_prefix`] went over.
pub(crate) fn hash(token: &str) -> TokenHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

/// A big-endian number in exactly `N` base62 digits, which the caller chose to be enough.
fn base62<const N: usize>(number: &[u8]) -> Zeroizing<String> {
    let mut rest = Zeroizing::new(number.to_vec());
    let mut digits = Zeroizing::new([0_u8; N]);
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in rest.iter_mut() {
            let value = remainder << 8 | u32::from(*byte);
            // Both fit: the remainder is below 62, so the quotient is below 256.
            *byte = u8::try_from(value / 62).unwrap_or_default();
            remainder = value % 62;
        }
        *digit = usize::try_from(remainder)
            .ok()
            .and_then(|index| ALPHABET.get(index))
            .copied()
            .unwrap_or_default();
    }
    Zeroizing::new(digits.iter().copied().map(char::from).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_in_base62() {
        assert_eq!(*base62::<2>(&[0]), "00");
        assert_eq!(*base62::<2>(&[61]), "0z");
        assert_eq!(*base62::<2>(&[62]), "10");
        assert_eq!(*base62::<6>(&[255; 4]), "4gfFC3");
        // 2^256 - 1 needs the 43rd digit, and no 44th.
        assert_eq!(&base62::<44>(&[255; 32])[..2], "0y");
    }

    #[test]
    fn keys_have_the_documented_form() {
        let key = NewKey::generate(KeyKind::Management).unwrap();
        let text = key.text.expose();
        assert_eq!(text.len(), 3 + 43 + 6);
        assert!(text.starts_with("ak-"));
        assert_eq!(key.shown_prefix, text[..11]);
        assert_eq!(key.hash, hash(&text[3..]));
        assert_eq!(shape(&text[3..]), Shape::Key);

        let key = NewKey::generate(KeyKind::Gateway).unwrap();
        let text = key.text.expose();
        assert_eq!(text.len(), 3 + 43 + 6);
        assert!(text.starts_with("gk-"));
        assert_eq!(key.hash, hash(text), "the prefix of gateway keys belongs to the token");
        assert_eq!(shape(text), Shape::Other);
    }

    #[test]
    fn no_two_keys_are_equal() {
        let keys: HashSet<_> =
            (0..1000).map(|_| NewKey::generate(KeyKind::Management).unwrap().hash).collect();
        assert_eq!(keys.len(), 1000);
    }

    #[test]
    fn a_key_is_not_shown_by_debug() {
        let key = NewKey::generate(KeyKind::Management).unwrap();
        let shown = format!("{key:?}");
        assert!(!shown.contains(&key.text.expose()[12..]), "{shown}");
        assert!(!shown.contains("hash"), "{shown}");
    }

    #[test]
    fn the_prefix_may_be_missing_or_doubled() {
        let key = NewKey::generate(KeyKind::Management).unwrap();
        let text = key.text.expose();
        for form in [text, &text[3..], &format!("ak-{text}")] {
            assert!(is_key_format(form), "{form}");
            assert_eq!(hash(without_prefix(form)), key.hash);
        }
        assert!(!is_key_format(&format!("ak-ak-{text}")));
        for other in ["dev", "ak-dev", "", "ak-", NewKey::generate(KeyKind::Gateway).unwrap().text.expose()] {
            assert!(!is_key_format(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn one_wrong_character_is_found(position in 0_usize..49, replacement in "[0-9A-Za-z]") {
            let key = NewKey::generate(KeyKind::Management).unwrap();
            let body = &key.text.expose()[3..];
            let changed = format!("{}{replacement}{}", &body[..position], &body[position + 1..]);
            let expected = if changed == body { Shape::Key } else { Shape::MistypedKey };
            prop_assert_eq!(shape(&changed), expected);
        }

        #[test]
        fn any_text_has_a_shape(text in ".{0,60}") {
            prop_assert_ne!(shape(&text), Shape::Key);
            prop_assert!(!is_key_format(&text));
        }
    }
}
