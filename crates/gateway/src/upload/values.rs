//! Cuts a body into JSON values while it arrives: the elements of an array, or values that follow each other, as lines
//! do. Where one begins and ends is all that is looked at; each is read by itself afterwards.

use bytes::{Buf as _, Bytes, BytesMut};

/// Why there is no next value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    TooLarge,
    Malformed(&'static str),
}

/// What is expected where no value is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the beginning, where an array may begin.
    Begin,
    /// Behind `[`.
    First,
    /// Behind the comma of an array.
    Element,
    /// Behind the `]` of an array.
    End,
    /// Between values that follow each other.
    Between,
}

/// The values of one body.
#[derive(Debug)]
pub(super) struct Values {
    /// The longest value, in bytes.
    limit: usize,
    /// What has arrived from the beginning of the next value on.
    arrived: BytesMut,
    place: Place,
    value: Option<Scan>,
}

impl Values {
    /// An array, or values that follow each other.
    pub(super) fn json(limit: usize) -> Self {
        Self { limit, arrived: BytesMut::new(), place: Place::Begin, value: None }
    }

    /// Values that follow each other, arrays or not.
    pub(super) fn lines(limit: usize) -> Self {
        Self { place: Place::Between, ..Self::json(limit) }
    }

    /// Takes in what follows. To be called where [`Self::next`] gave none, so that never more than a value and a chunk
    /// is held.
    pub(super) fn push(&mut self, data: &[u8]) {
        self.arrived.extend_from_slice(data);
    }

    /// The next value of what has arrived.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Wrong> {
        loop {
            if let Some(scan) = &mut self.value {
                let is_element = self.place == Place::Element;
                let Some(end) = scan.end(&self.arrived, is_element) else {
                    return if self.arrived.len() > self.limit { Err(Wrong::TooLarge) } else { Ok(None) };
                };
                if end > self.limit {
                    return Err(Wrong::TooLarge);
                }
                let value = self.arrived.split_to(end).freeze();
                self.value = None;
                if is_element {
                    self.place = match self.arrived.first() {
                        Some(b']') => Place::End,
                        _ => Place::Element,
                    };
                    self.arrived.advance(1);
                }
                return Ok(Some(value));
            }
            let blank = self.arrived.iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
            self.arrived.advance(blank);
            let Some(first) = self.arrived.first().copied() else { return Ok(None) };
            match (self.place, first) {
                (Place::Begin, b'[') => {
                    self.place = Place::First;
                    self.arrived.advance(1);
                }
                (Place::First, b']') => {
                    self.place = Place::End;
                    self.arrived.advance(1);
                }
                (Place::First | Place::Element, b',' | b']') => {
                    return Err(Wrong::Malformed("a value was expected"));
                }
                (Place::End, _) => return Err(Wrong::Malformed("there is more after the array")),
                (Place::First | Place::Element, _) => {
                    self.place = Place::Element;
                    self.value = Some(Scan::default());
                }
                (Place::Begin | Place::Between, _) => {
                    self.place = Place::Between;
                    self.value = Some(Scan::default());
                }
            }
        }
    }

    /// As [`Self::next`], where nothing follows any more.
    pub(super) fn last(&mut self) -> Result<Option<Bytes>, Wrong> {
        if let Some(value) = self.next()? {
            return Ok(Some(value));
        }
        match self.place {
            Place::First | Place::Element => Err(Wrong::Malformed("the array does not end")),
            // A value without a line end, or the beginning of one: whoever reads it will tell.
            Place::Between if self.value.take().is_some() => Ok(Some(self.arrived.split().freeze())),
            Place::Begin | Place::Between | Place::End => Ok(None),
        }
    }
}

/// The search for the end of a value.
#[derive(Debug, Default)]
struct Scan {
    /// How far it got.
    at: usize,
    /// Objects and arrays that are open.
    depth: usize,
    is_text: bool,
    is_escaped: bool,
}

impl Scan {
    /// Behind the last byte of the value; of an element that is where a comma or bracket follows.
    fn end(&mut self, arrived: &[u8], is_element: bool) -> Option<usize> {
        for byte in arrived.get(self.at..).unwrap_or_default() {
            if self.is_text {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => {
                        self.is_text = false;
                        if self.depth == 0 && !is_element {
                            self.at += 1;
                            return Some(self.at);
                        }
                    }
                    _ => {}
                }
            } else {
                match byte {
                    b',' | b']' if self.depth == 0 && is_element => return Some(self.at),
                    b' ' | b'\t' | b'\r' | b'\n' if self.depth == 0 && !is_element => return Some(self.at),
                    b'"' => self.is_text = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 && !is_element {
                            self.at += 1;
                            return Some(self.at);
                        }
                    }
                    _ => {}
                }
            }
            self.at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(mut values: Values, body: &str, size: usize) -> Result<Vec<String>, Wrong> {
        let mut found = Vec::new();
        let text = |value: Bytes| String::from_utf8(value.to_vec()).expect("it was text").trim().to_owned();
        for chunk in body.as_bytes().chunks(size) {
            values.push(chunk);
            while let Some(value) = values.next()? {
                found.push(text(value));
            }
        }
        while let Some(value) = values.last()? {
            found.push(text(value));
        }
        Ok(found)
    }

    /// A10 #107: an array, lines, and values without lines between them.
    #[test]
    fn values_are_found_in_any_chunking() {
        let cases: [(&str, &[&str]); 12] = [
            ("", &[]),
            (" \n", &[]),
            ("[]", &[]),
            (" [ ] \n", &[]),
            ("[1, \"a,]\\\"\", {\"b\":[2,3]} ,[4]]", &["1", "\"a,]\\\"\"", "{\"b\":[2,3]}", "[4]"]),
            ("{\"a\":1}\n\n{\"b\":\"}\\\\\"}\r\n", &["{\"a\":1}", "{\"b\":\"}\\\\\"}"]),
            ("{\"a\":1}{\"b\":2}", &["{\"a\":1}", "{\"b\":2}"]),
            ("{\n \"a\": 1\n}\n", &["{\n \"a\": 1\n}"]),
            ("1 2\n\"a b\"\ntrue", &["1", "2", "\"a b\"", "true"]),
            ("{\"a\":", &["{\"a\":"]),
            ("}\n1", &["}", "1"]),
            ("\"\\\"[", &["\"\\\"["]),
        ];
        for (body, expected) in cases {
            for size in 1..body.len().max(2) {
                let found = cut(Values::json(100), body, size);
                assert_eq!(
                    found.as_deref(),
                    Ok(&*expected.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()),
                    "{body}"
                );
            }
        }
        assert_eq!(
            cut(Values::lines(100), "[1]\n[2,\n3]", 3),
            Ok(vec!["[1]".to_owned(), "[2,\n3]".to_owned()])
        );
    }

    /// A10 #107.
    #[test]
    fn faulty_arrays_are_malformed() {
        for body in ["[", "[1", "[1,", "[1,]", "[,1]", "[1,,2]", "[1] 2", "[\"a]", "[{]"] {
            let wrong = cut(Values::json(100), body, 2).expect_err(body);
            assert!(matches!(wrong, Wrong::Malformed(_)), "{body}: {wrong:?}");
        }
    }

    /// A10 #107: a value above the limit is refused before it has come, and many below it are not.
    #[test]
    fn each_value_has_the_limit() {
        let mut values = Values::json(10);
        values.push(b"{\"a\":\"0123");
        assert_eq!(values.next(), Ok(None));
        values.push(b"4");
        assert_eq!(values.next(), Err(Wrong::TooLarge));

        for body in ["[1234567890,1234567890]", "1234567890\n1234567890", "\n\n \n 1234567890            1"] {
            for size in 1..body.len() {
                assert_eq!(
                    cut(Values::json(10), body, size).map(|found| found.len()),
                    Ok(2),
                    "{body} {size}"
                );
            }
        }
        for body in ["[12345678901]", "12345678901", "\"1234567890\""] {
            assert_eq!(cut(Values::json(10), body, body.len()), Err(Wrong::TooLarge), "{body}");
        }
    }

    proptest! {
        /// A10 #107, A9 #103: whatever comes, it ends, and no chunking makes a difference.
        #[test]
        fn chunks_make_no_difference(body in "[\\[\\]{}\",\\\\ \n1a]{0,40}", size in 1_usize..9) {
            prop_assert_eq!(cut(Values::json(20), &body, size).ok(), cut(Values::json(20), &body, 1).ok());
            prop_assert_eq!(cut(Values::lines(20), &body, size).ok(), cut(Values::lines(20), &body, 1).ok());
        }
    }
}
