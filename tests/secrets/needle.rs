//! Finds a secret wherever it stands, as it is or encoded.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A secret, or the part of it that is never shown.
pub(crate) struct Needle {
    what: String,
    forms: Vec<String>,
}

impl Needle {
    /// A key or a token, without the part that people recognise it by.
    pub(crate) fn of_text(what: &str, secret: &str) -> Self {
        if let Some(encoded) = secret.strip_prefix("whsec_") {
            // Any form of the bytes is as good as this one.
            return Self::of_bytes(what, &STANDARD.decode(encoded).unwrap());
        }
        let hidden = match secret.rsplit_once('.') {
            // What a token says is no secret; its signature is what makes it one.
            Some((_, signature)) => signature,
            None if secret.starts_with("ak-") || secret.starts_with("gk-") => &secret[11..],
            None => secret,
        };
        Self::of_bytes(what, hidden.as_bytes())
    }

    pub(crate) fn of_bytes(what: &str, secret: &[u8]) -> Self {
        assert!(secret.len() >= 16, "{what} is too short to be found by");
        let mut forms = vec![latin1(secret), hex(secret), hex(secret).to_uppercase()];
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            // In base64 a text looks different at each place modulo three.
            for place in 0..3 {
                let encoded = engine.encode([vec![0; place], secret.to_vec()].concat());
                let whole = (place * 8).div_ceil(6)..(place + secret.len()) * 8 / 6;
                forms.push(encoded[whole].to_owned());
            }
        }
        forms.dedup();
        Self { what: what.to_owned(), forms }
    }

    /// What was found, if it was.
    pub(crate) fn find(&self, haystack: &Haystack) -> Option<&str> {
        self.forms.iter().any(|form| haystack.0.contains(form)).then_some(&self.what)
    }
}

/// Where secrets are looked for.
pub(crate) struct Haystack(String);

impl Haystack {
    /// Bytes, and the bytes that texts in them stand for by hexadecimal digits after `\x`.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let text = latin1(bytes);
        let decoded: String = text.split("\\x").skip(1).map(unhex).collect();
        Self(text + &decoded)
    }
}

/// The bytes of the digits that a text begins with.
fn unhex(text: &str) -> String {
    let digits: Vec<u32> = text.chars().map_while(|digit| digit.to_digit(16)).collect();
    digits.chunks_exact(2).filter_map(|pair| char::from_u32(pair[0] * 16 + pair[1])).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A character for each byte, so that any bytes can be searched as text.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

#[test]
fn every_encoding_is_found() {
    let secret = "ak-shown678-hidden-ÿ-1234567890";
    let needle = Needle::of_text("key", secret);
    let digits = hex(secret.as_bytes());
    let mut haystacks = vec![format!("x{secret}y"), digits.to_uppercase(), digits];
    let twice = hex(URL_SAFE_NO_PAD.encode(secret).as_bytes());
    haystacks.push(format!(r#"{{"blob": "\\x00{twice}"}}"#));
    for before in ["", "a", "ab", "abc"] {
        let wrapped = format!("{before}{secret}{before}");
        haystacks.extend([STANDARD_NO_PAD.encode(&wrapped), URL_SAFE_NO_PAD.encode(&wrapped)]);
    }
    for haystack in haystacks {
        assert_eq!(needle.find(&Haystack::new(haystack.as_bytes())), Some("key"), "{haystack}");
    }
    for harmless in ["", "ak-shown678", "hidden"] {
        assert_eq!(needle.find(&Haystack::new(harmless.as_bytes())), None, "{harmless}");
    }
}
