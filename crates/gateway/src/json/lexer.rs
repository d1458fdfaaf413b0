//! JSON text in tokens, strictly by RFC 8259.

use std::borrow::Cow;

/// Text that is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// The byte where it goes wrong.
    pub(crate) at: usize,
    /// What is wrong there.
    pub(crate) what: &'static str,
}

type Result<T> = std::result::Result<T, Malformed>;

/// Reads one token after the other.
#[derive(Debug, Clone)]
pub(crate) struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self::new_at(text, 0)
    }

    /// In the middle of a text.
    pub(crate) fn new_at(text: &'t str, at: usize) -> Self {
        Self { text, at }
    }

    /// Where the next token begins, once it was looked at.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn text(&self) -> &'t str {
        self.text
    }

    /// The first byte of the next token.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// After the value: nothing but white space.
    pub(crate) fn end(&mut self) -> Result<()> {
        if self.peek().is_some() { self.fail("there is more after the value") } else { Ok(()) }
    }

    /// Steps over the `{` or `[` that was seen.
    pub(crate) fn enter(&mut self) {
        self.at += 1;
    }

    /// The place and the name of the next member of an object; none at its end.
    pub(crate) fn member(&mut self, first: &mut bool) -> Result<Option<(usize, Cow<'t, str>)>> {
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b',') if !*first => {
                self.at += 1;
                if self.peek() != Some(b'"') {
                    return self.fail("a member name was expected");
                }
            }
            Some(b'"') if *first => {}
            _ if *first => return self.fail("a member name or `}` was expected"),
            _ => return self.fail("`,` or `}` was expected"),
        }
        *first = false;
        let at = self.at;
        let name = self.string()?;
        if self.peek() != Some(b':') {
            return self.fail("`:` was expected");
        }
        self.at += 1;
        Ok(Some((at, name)))
    }

    /// Whether there is another element in an array.
    pub(crate) fn element(&mut self, first: &mut bool) -> Result<bool> {
        match self.peek() {
            Some(b']') => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !*first => self.at += 1,
            _ if *first => {}
            _ => return self.fail("`,` or `]` was expected"),
        }
        *first = false;
        Ok(true)
    }

    /// One of `true`, `false` and `null`.
    pub(crate) fn word(&mut self, word: &'static str) -> Result<()> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return self.fail("a value was expected");
        }
        self.at += word.len();
        Ok(())
    }

    /// A number as it is written.
    pub(crate) fn number(&mut self) -> Result<&'t str> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.fail("a digit was expected"),
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    /// A string, borrowed where nothing in it is escaped.
    pub(crate) fn string(&mut self) -> Result<Cow<'t, str>> {
        let start = self.at + 1;
        self.at = start;
        self.plain()?;
        if self.byte() == Some(b'"') {
            let text = self.text.get(start..self.at).unwrap_or_default();
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        let plain = self.text.get(start..self.at).unwrap_or_default();
        // One escape is seldom the last of a text.
        let mut text = String::with_capacity(plain.len() + 64);
        text.push_str(plain);
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => text.push(self.escape()?),
                _ => {
                    let start = self.at;
                    self.plain()?;
                    text.push_str(self.text.get(start..self.at).unwrap_or_default());
                }
            }
        }
    }

    /// Passes over a value of any kind, which has to be JSON all the same.
    pub(crate) fn skip(&mut self) -> Result<()> {
        // What is open, innermost last: objects are true.
        let mut open: Vec<bool> = Vec::new();
        let mut first;
        loop {
            let is_open = match self.peek() {
                Some(b'{') => Some(true),
                Some(b'[') => Some(false),
                Some(b'"') => self.pass_string().map(|()| None)?,
                Some(b't') => self.word("true").map(|()| None)?,
                Some(b'f') => self.word("false").map(|()| None)?,
                Some(b'n') => self.word("null").map(|()| None)?,
                Some(b'-' | b'0'..=b'9') => self.number().map(|_| None)?,
                _ => return self.fail("a value was expected"),
            };
            first = is_open.is_some();
            if let Some(kind) = is_open {
                open.push(kind);
                self.enter();
            }
            // Ends all that ends here, and goes on to the next value.
            loop {
                let goes_on = match open.last() {
                    None => return Ok(()),
                    Some(true) => self.member(&mut first)?.is_some(),
                    Some(false) => self.element(&mut first)?,
                };
                if goes_on {
                    break;
                }
                open.pop();
                first = false;
            }
        }
    }

    fn pass_string(&mut self) -> Result<()> {
        self.at += 1;
        loop {
            self.plain()?;
            if self.byte() != Some(b'\\') {
                self.at += 1;
                return Ok(());
            }
            self.escape()?;
        }
    }

    /// Goes on to the next quote or backslash.
    fn plain(&mut self) -> Result<()> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        // Eight bytes at a time, as long as none of them is special.
        let mut skipped = 0;
        for chunk in rest.as_chunks::<8>().0 {
            if is_special(u64::from_le_bytes(*chunk)) {
                break;
            }
            skipped += 8;
        }
        let tail = rest.get(skipped..).unwrap_or_default();
        let length = tail.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        self.at += skipped + length.unwrap_or(tail.len());
        match self.byte() {
            Some(b'"' | b'\\') => Ok(()),
            Some(_) => self.fail("a control character must be escaped"),
            None => self.fail("the string does not end"),
        }
    }

    /// The character that an escape stands for.
    fn escape(&mut self) -> Result<char> {
        let start = self.at;
        self.at += 1;
        let escaped = self.byte();
        self.at += 1;
        Ok(match escaped {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let unit = self.hex(start)?;
                let code = match unit {
                    0xd800..=0xdbff => {
                        let is_pair =
                            self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(b"\\u"));
                        if !is_pair {
                            return lone_surrogate(start);
                        }
                        self.at += 2;
                        let low = self.hex(start)?;
                        if !(0xdc00..=0xdfff).contains(&low) {
                            return lone_surrogate(start);
                        }
                        0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
                    }
                    other => other,
                };
                match char::from_u32(code) {
                    Some(char) => char,
                    None => return lone_surrogate(start),
                }
            }
            _ => return Err(Malformed { at: start, what: "there is no such escape" }),
        })
    }

    fn hex(&mut self, start: usize) -> Result<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        self.at += 4;
        let value =
            digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?));
        value
            .filter(|_| digits.len() == 4)
            .ok_or(Malformed { at: start, what: "`\\u` needs four hexadecimal digits" })
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<()> {
        let start = self.at;
        self.digits();
        if self.at == start { self.fail("a digit was expected") } else { Ok(()) }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn fail<T>(&self, what: &'static str) -> Result<T> {
        let what = if self.at < self.text.len() { what } else { "the text ends too early" };
        Err(Malformed { at: self.at, what })
    }
}

fn lone_surrogate<T>(at: usize) -> Result<T> {
    Err(Malformed { at, what: "half of a surrogate pair is no character" })
}

/// Whether any of eight bytes is a quote, a backslash or a control character. It may be mistaken about bytes behind
/// such a one, and about none before it.
fn is_special(bytes: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    let has_zero = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes & HIGHS;
    let control = bytes.wrapping_sub(ONES * 0x20) & !bytes & HIGHS;
    (control | has_zero(bytes ^ (ONES * 0x22)) | has_zero(bytes ^ (ONES * 0x5c))) != 0
}

/// Whether a text stands in JSON as it is.
pub(super) fn is_plain(text: &str) -> bool {
    let (chunks, rest) = text.as_bytes().as_chunks::<8>();
    chunks.iter().all(|chunk| !is_special(u64::from_le_bytes(*chunk)))
        && !rest.iter().any(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))
}

/// A place in a text that moves on: what is asked in the order of the text is counted once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    at: usize,
    line: usize,
    column: usize,
}

impl Default for Place {
    fn default() -> Self {
        Self { at: 0, line: 1, column: 1 }
    }
}

impl Place {
    /// The line and the column of a byte, as [`position`] has them.
    pub(crate) fn move_to(&mut self, text: &str, at: usize) -> (usize, usize) {
        if at < self.at {
            *self = Self::default();
        }
        for byte in text.as_bytes().get(self.at..at).unwrap_or_default() {
            if *byte == b'\n' {
                (self.line, self.column) = (self.line + 1, 1);
            } else if *byte & 0xc0 != 0x80 {
                // Bytes that go on with a character are not counted.
                self.column += 1;
            }
        }
        self.at = at.min(text.len());
        (self.line, self.column)
    }
}

/// The line and the column of a byte, both from 1 on; a column is a character.
pub(crate) fn position(text: &str, at: usize) -> (usize, usize) {
    Place::default().move_to(text, at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_json(text: &str) -> bool {
        let mut lexer = Lexer::new(text);
        lexer.skip().and_then(|()| lexer.end()).is_ok()
    }

    /// A3 #49.
    #[test]
    fn what_is_no_json_is_refused_where_it_goes_wrong() {
        for (text, at) in [
            ("", 0),
            ("tru", 0),
            ("[1,]", 3),
            ("[1 2]", 3),
            ("{\"a\" 1}", 5),
            ("{\"a\":1,}", 7),
            ("{a:1}", 1),
            ("01", 1),
            ("-", 1),
            ("1.", 2),
            ("1e", 2),
            ("\"\\x\"", 1),
            ("\"\\u12\"", 1),
            ("\"\\ud800\\u0041\"", 1),
            ("\"\\udc00\"", 1),
            ("\"a", 2),
            ("\"a\u{1}\"", 2),
            ("[}", 1),
            ("1 1", 2),
        ] {
            let mut lexer = Lexer::new(text);
            let outcome = lexer.skip().and_then(|()| lexer.end());
            assert_eq!(outcome.map_err(|malformed| malformed.at), Err(at), "{text}");
        }
    }

    #[test]
    fn strings_are_unescaped() {
        let text = r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 plain and long enough""#;
        assert_eq!(Lexer::new(text).string().unwrap(), "\"\\/\u{8}\u{c}\n\r\té😀 plain and long enough");
        assert!(matches!(Lexer::new("\"é and more than eight\"").string(), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn positions_count_characters() {
        assert_eq!(position("ab", 1), (1, 2));
        assert_eq!(position("é\nüx", 5), (2, 2));
        let mut place = Place::default();
        for (at, expected) in [(2, (1, 2)), (3, (2, 1)), (5, (2, 2)), (3, (2, 1)), (6, (2, 3)), (99, (2, 3))]
        {
            assert_eq!(place.move_to("é\nüx", at), expected, "{at}");
        }
    }

    proptest! {
        #[test]
        fn it_knows_json_as_serde_does(text in "[\\[\\]{},:\"\\\\ntfrue0-9.eE+ \\-a-d]{0,24}") {
            prop_assert_eq!(is_json(&text), serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn strings_are_those_of_serde(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let mut lexer = Lexer::new(&json);
            prop_assert_eq!(lexer.string().unwrap(), text);
            prop_assert!(lexer.end().is_ok());
        }
    }
}
