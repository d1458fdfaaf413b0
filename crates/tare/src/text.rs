//! Lines of text for terminals: what others wrote made harmless, widths as terminals count them, and tones that become
//! colours where there are some.

use std::fmt;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Text of others on one line, without power over the terminal or over the order of what stands on it.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_invisible(c) { ' ' } else { c }).collect()
}

/// Characters that move, hide or reverse others.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// How many columns a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// What a piece of text says, beyond its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    #[default]
    Normal,
    Heading,
    Good,
    Busy,
    Bad,
    Faint,
}

impl Tone {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Normal => None,
            Self::Heading => Some("1"),
            Self::Good => Some("32"),
            Self::Busy => Some("33"),
            Self::Bad => Some("31"),
            Self::Faint => Some("2"),
        }
    }
}

/// Text of one tone. It is harmless however it came to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) text: String,
    pub(crate) tone: Tone,
}

impl Span {
    pub(crate) fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: plain(text.as_ref()), tone }
    }
}

impl<T: AsRef<str>> From<T> for Span {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Normal)
    }
}

/// A line. As text it has no colours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Line(Vec<Span>);

impl Line {
    pub(crate) fn new(text: impl Into<Span>) -> Self {
        Self(vec![text.into()])
    }

    /// The same line with more text.
    #[must_use]
    pub(crate) fn and(mut self, text: impl Into<Span>) -> Self {
        self.push(text);
        self
    }

    pub(crate) fn push(&mut self, text: impl Into<Span>) {
        self.0.push(text.into());
    }

    /// Adds all of another line.
    pub(crate) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// For a terminal with colours, at most this wide.
    pub(crate) fn coloured(&self, columns: usize) -> String {
        let mut left = columns;
        let mut line = String::new();
        for span in &self.0 {
            let text = cut(&span.text, left);
            left = left.saturating_sub(width(text));
            match span.tone.code() {
                Some(code) if !text.trim().is_empty() => {
                    line.push_str("\u{1b}[");
                    line.push_str(code);
                    line.push('m');
                    line.push_str(text);
                    line.push_str("\u{1b}[0m");
                }
                _ => line.push_str(text),
            }
        }
        line
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = self.0.iter().map(|span| span.text.as_str()).collect();
        f.write_str(text.trim_end())
    }
}

/// As much of a text as fits.
fn cut(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or_default();
        if used > columns {
            return text.get(..at).unwrap_or_default();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_stays_on_its_line() {
        assert_eq!(plain("bad\n\u{1b}[2Jnews"), "bad  [2Jnews");
        assert_eq!(plain("a\u{202e}b\u{2028}c\u{feff}\u{e0041}\u{9b}d"), "a b c   d");
        assert_eq!(plain("naïve 日本語"), "naïve 日本語");
    }

    #[test]
    fn colours_stand_around_text_only_and_count_for_nothing() {
        let line = Line::new("state ").and(Span::new("stuck", Tone::Bad)).and(Span::new("  ", Tone::Bad));
        assert_eq!(line.to_string(), "state stuck");
        assert_eq!(line.coloured(80), "state \u{1b}[31mstuck\u{1b}[0m  ");
        assert_eq!(line.coloured(8), "state \u{1b}[31mst\u{1b}[0m");
        assert_eq!(line.coloured(6), "state ");
    }

    #[test]
    fn wide_characters_are_cut_whole() {
        assert_eq!(cut("日本語", 4), "日本");
        assert_eq!(cut("日本語", 5), "日本");
        assert_eq!((width("日本語"), width("abc")), (6, 3));
    }
}
