//! Parser for `google.api.http` path templates.
//!
//! The grammar is the published one with one extension: `**` may stand before
//! the end, as in `/v1/{path=files/**}/revisions`. It may occur once only, so
//! that what follows it has a fixed length and a match stays linear.

use std::borrow::Cow;

use thiserror::Error;

use crate::escape;

/// A parsed path template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) segments: Vec<Segment>,
    /// The custom verb, as in `/v1/tokens/{id}:revoke`, normalised.
    pub(crate) verb: Option<Box<str>>,
    pub(crate) variables: Vec<Variable>,
}

/// What one position of a template matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Exactly this segment, after [`escape::normalize`].
    Literal(Box<str>),
    /// `*`: any one non-empty segment.
    One,
    /// `**`: any number of non-empty segments, also none.
    Many,
}

/// A `{field.path=pattern}` of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    /// The dotted path of the request field, as written.
    pub(crate) field_path: String,
    /// Index of the variable's first segment in [`Template::segments`].
    pub(crate) start: usize,
    /// Index after its last segment.
    pub(crate) end: usize,
}

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum TemplateError {
    #[error("must start with `/`")]
    NoLeadingSlash,
    #[error("has an empty segment at offset {0}")]
    EmptySegment(usize),
    #[error("has an empty verb")]
    EmptyVerb,
    #[error("has an unexpected `{found}` at offset {at}")]
    Unexpected { found: char, at: usize },
    #[error("ends inside a variable")]
    UnclosedVariable,
    #[error("has a variable inside a variable at offset {0}")]
    NestedVariable(usize),
    #[error("has a malformed field path at offset {0}")]
    BadFieldPath(usize),
    #[error("has a malformed percent escape in `{0}`")]
    BadEscape(String),
    #[error("binds `{0}` twice")]
    DuplicateVariable(String),
    #[error("has more than one `**`")]
    ManyTwice,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parser = Parser { text, at: 0, segments: Vec::new(), variables: Vec::new() };
        if !parser.eat('/') {
            return Err(TemplateError::NoLeadingSlash);
        }
        parser.segments(false)?;
        let verb = parser.verb()?;

        if parser.segments.iter().filter(|segment| **segment == Segment::Many).count() > 1 {
            return Err(TemplateError::ManyTwice);
        }
        for (index, variable) in parser.variables.iter().enumerate() {
            if parser.variables.iter().skip(index + 1).any(|other| other.field_path == variable.field_path) {
                return Err(TemplateError::DuplicateVariable(variable.field_path.clone()));
            }
        }
        Ok(Self { segments: parser.segments, verb, variables: parser.variables })
    }
}

impl Variable {
    /// Whether the variable stands for exactly one segment, which decides how
    /// its `%2F` are decoded.
    pub(crate) fn is_single(&self, template: &Template) -> bool {
        self.end - self.start == 1 && !matches!(template.segments.get(self.start), Some(Segment::Many) | None)
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    segments: Vec<Segment>,
    variables: Vec<Variable>,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    /// Takes the longest prefix whose characters all satisfy `accept`.
    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c| !accept(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn unexpected(&self) -> TemplateError {
        match self.peek() {
            Some('/') | None => TemplateError::EmptySegment(self.at),
            Some(found) => TemplateError::Unexpected { found, at: self.at },
        }
    }

    fn segments(&mut self, in_variable: bool) -> Result<(), TemplateError> {
        loop {
            self.segment(in_variable)?;
            if !self.eat('/') {
                return Ok(());
            }
        }
    }

    fn segment(&mut self, in_variable: bool) -> Result<(), TemplateError> {
        match self.peek() {
            Some('*') => {
                self.at += 1;
                let many = self.eat('*');
                self.segments.push(if many { Segment::Many } else { Segment::One });
                Ok(())
            }
            Some('{') if in_variable => Err(TemplateError::NestedVariable(self.at)),
            Some('{') => self.variable(),
            Some(_) => self.literal(),
            None => Err(self.unexpected()),
        }
    }

    fn variable(&mut self) -> Result<(), TemplateError> {
        self.at += 1;
        let path_at = self.at;
        let field_path = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        let is_identifier = |part: &str| !part.starts_with(|c: char| c.is_ascii_digit()) && !part.is_empty();
        if !field_path.split('.').all(is_identifier) {
            return Err(TemplateError::BadFieldPath(path_at));
        }

        let start = self.segments.len();
        if self.eat('=') {
            self.segments(true)?;
        } else {
            self.segments.push(Segment::One);
        }
        if !self.eat('}') {
            return Err(if self.peek().is_none() {
                TemplateError::UnclosedVariable
            } else {
                self.unexpected()
            });
        }
        self.variables.push(Variable { field_path: field_path.to_owned(), start, end: self.segments.len() });
        Ok(())
    }

    fn literal(&mut self) -> Result<(), TemplateError> {
        let mut text = self.take_while(is_literal_char);
        // A colon begins the verb only in the last segment of the template.
        if self.peek().is_none()
            && let Some(colon) = text.rfind(':')
        {
            self.at -= text.len() - colon;
            text = text.get(..colon).unwrap_or_default();
        }
        if text.is_empty() {
            return Err(self.unexpected());
        }
        self.segments.push(Segment::Literal(normalized(text)?));
        Ok(())
    }

    fn verb(&mut self) -> Result<Option<Box<str>>, TemplateError> {
        if self.peek().is_none() {
            return Ok(None);
        }
        if !self.eat(':') {
            return Err(self.unexpected());
        }
        let verb = self.take_while(|c| c != ':' && is_literal_char(c));
        match self.peek() {
            Some(found) => Err(TemplateError::Unexpected { found, at: self.at }),
            None if verb.is_empty() => Err(TemplateError::EmptyVerb),
            None => Ok(Some(normalized(verb)?)),
        }
    }
}

fn normalized(text: &str) -> Result<Box<str>, TemplateError> {
    if escape::decode(text, escape::Decode::All).is_err() {
        return Err(TemplateError::BadEscape(text.to_owned()));
    }
    Ok(match escape::normalize(text) {
        Cow::Borrowed(text) => text.into(),
        Cow::Owned(text) => text.into_boxed_str(),
    })
}

/// The characters a path segment may hold unescaped (RFC 3986 `pchar`), without
/// `*`, which is a wildcard here, and with `%`.
fn is_literal_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$&'()+,;=:@%".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn literal(text: &str) -> Segment {
        Segment::Literal(text.into())
    }

    fn variable(field_path: &str, start: usize, end: usize) -> Variable {
        Variable { field_path: field_path.to_owned(), start, end }
    }

    /// A1 #1, #3, #4: the whole grammar.
    #[test]
    fn parses_the_grammar() {
        use Segment::{Many, One};
        type Case = (&'static str, Vec<Segment>, Option<&'static str>, Vec<Variable>);

        let cases: &[Case] = &[
            ("/v1", vec![literal("v1")], None, vec![]),
            ("/v1/*/x/**", vec![literal("v1"), One, literal("x"), Many], None, vec![]),
            ("/v1/{id}", vec![literal("v1"), One], None, vec![variable("id", 1, 2)]),
            ("/v1/{a.b_c.d2}", vec![literal("v1"), One], None, vec![variable("a.b_c.d2", 1, 2)]),
            ("/{v=a/*/b/**}", vec![literal("a"), One, literal("b"), Many], None, vec![variable("v", 0, 4)]),
            (
                "/v1/{p=a/**}/rev",
                vec![literal("v1"), literal("a"), Many, literal("rev")],
                None,
                vec![variable("p", 1, 3)],
            ),
            ("/v1/tokens/{jti}:revoke", vec![literal("v1"), literal("tokens"), One], Some("revoke"), {
                vec![variable("jti", 2, 3)]
            }),
            ("/v1/users:batchGet", vec![literal("v1"), literal("users")], Some("batchGet"), vec![]),
            ("/v1/a:b/c", vec![literal("v1"), literal("a:b"), literal("c")], None, vec![]),
            ("/v1/a:b:c", vec![literal("v1"), literal("a:b")], Some("c"), vec![]),
            ("/v1/**:go", vec![literal("v1"), Many], Some("go"), vec![]),
            ("/v1/%75sers", vec![literal("v1"), literal("users")], None, vec![]),
            (
                "/{a}/{b=x/*}",
                vec![One, literal("x"), One],
                None,
                vec![variable("a", 0, 1), variable("b", 1, 3)],
            ),
        ];
        for (text, segments, verb, variables) in cases {
            let template = Template::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(&template.segments, segments, "{text}");
            assert_eq!(template.verb.as_deref(), *verb, "{text}");
            assert_eq!(&template.variables, variables, "{text}");
        }
    }

    /// A1 #1: a malformed template is refused, with its place.
    #[test]
    fn refuses_malformed_templates() {
        use TemplateError::*;
        let unexpected = |found, at| Unexpected { found, at };
        let cases = [
            ("", NoLeadingSlash),
            ("v1/x", NoLeadingSlash),
            ("/", EmptySegment(1)),
            ("/v1//x", EmptySegment(4)),
            ("/v1/", EmptySegment(4)),
            ("/v1/{", BadFieldPath(5)),
            ("/v1/{}", BadFieldPath(5)),
            ("/v1/{a..b}", BadFieldPath(5)),
            ("/v1/{1a}", BadFieldPath(5)),
            ("/v1/{a", UnclosedVariable),
            ("/v1/{a=x", UnclosedVariable),
            ("/v1/{a=}", unexpected('}', 7)),
            ("/v1/{a={b}}", NestedVariable(7)),
            ("/v1/{a}b", unexpected('b', 7)),
            ("/v1/a{b}", unexpected('{', 5)),
            ("/v1/a*", unexpected('*', 5)),
            ("/v1/***", unexpected('*', 6)),
            ("/v1/a}", unexpected('}', 5)),
            ("/v1/a?b", unexpected('?', 5)),
            ("/v1/a b", unexpected(' ', 5)),
            ("/v1/é", unexpected('é', 4)),
            ("/v1/{a}:", EmptyVerb),
            ("/v1/x:", EmptyVerb),
            ("/v1/:x", unexpected(':', 4)),
            ("/v1/{a}:b/c", unexpected('/', 9)),
            ("/v1/{a}:b:c", unexpected(':', 9)),
            ("/v1/%zz", BadEscape("%zz".into())),
            ("/v1/%4", BadEscape("%4".into())),
            ("/v1/{a}/{a}", DuplicateVariable("a".into())),
            ("/v1/**/x/**", ManyTwice),
        ];
        for (text, expected) in cases {
            assert_eq!(Template::parse(text), Err(expected), "{text}");
        }
    }

    proptest! {
        /// Any text is a template or an error, and a template's variables lie inside it.
        #[test]
        fn any_text_is_parsed(text in "(/[{}*=:a-z%.é0-9/]{0,24})|\\PC{0,12}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert!(!template.segments.is_empty());
                for variable in &template.variables {
                    prop_assert!(variable.start < variable.end && variable.end <= template.segments.len());
                }
            }
        }
    }
}
