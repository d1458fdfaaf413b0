//! List filters (a subset of AIP-160) and orders (AIP-132), parsed against the fields of one list.

use crate::fault::Fault;
use crate::time::Timestamp;

/// What a field of a list holds, and with it which operators it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// Text: `=`, `!=`, and `:` for "contains" (case matters).
    Text,
    /// A time in RFC 3339: all comparisons.
    Time,
    /// A row id in text form, with this prefix: `=` and `!=`.
    Id(&'static str),
    /// One of these names, each with the text that is stored for it: `=` and `!=`.
    Enum(&'static [(&'static str, &'static str)]),
    /// A map of labels, reached as `labels.<key>`: `=`, `!=`, and `:` with `*` for "has the key".
    Labels,
}

/// A field that a list can be filtered or ordered by.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The name in the API.
    pub name: &'static str,
    /// The column that holds it.
    pub column: &'static str,
    /// What it holds.
    pub kind: FieldKind,
    /// Whether `order_by` may name it. Its column must not be null then.
    pub sortable: bool,
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Has,
}

/// The right-hand side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// Compared with a text column.
    Text(String),
    /// Compared with a time column.
    Time(Timestamp),
    /// Compared with a row id column. None is an id of another kind: it equals no row.
    Id(Option<u128>),
    /// A label and its value; no value asks whether the label is there.
    Label(String, Option<String>),
}

/// A parsed filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// All of them hold. Without any, every row matches.
    All(Vec<Filter>),
    /// One of them holds.
    Any(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// A comparison of a column.
    Compare(&'static str, Operator, Operand),
}

/// One part of an order: a column, and whether it descends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderBy {
    /// The column.
    pub column: &'static str,
    /// Whether large values come first.
    pub descending: bool,
    /// What the column holds.
    pub kind: FieldKind,
}

const LENGTH_MAX: usize = 4096;
const DEPTH_MAX: usize = 32;

impl Filter {
    /// The filter that matches every row.
    pub const fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Parses a filter. `AND` binds looser than `OR`, as AIP-160 has it.
    ///
    /// # Errors
    /// INVALID_ARGUMENT on the field `filter`, with the position (counted in characters from 1).
    pub fn parse(text: &str, fields: &[Field]) -> Result<Self, Fault> {
        if text.len() > LENGTH_MAX {
            return Err(Fault::invalid_field("filter", format!("must have at most {LENGTH_MAX} bytes")));
        }
        if text.trim().is_empty() {
            return Ok(Self::everything());
        }
        let mut parser = Parser { text, position: 0, fields, depth: 0 };
        parser.expression().and_then(|filter| parser.end().map(|()| filter)).map_err(|problem| {
            let position = text.get(..problem.position).map_or(0, |before| before.chars().count()) + 1;
            Fault::invalid_field("filter", format!("{} at position {position}", problem.what))
        })
    }
}

/// Parses an order such as `display_name desc, created_at`.
///
/// # Errors
/// INVALID_ARGUMENT on the field `order_by`.
pub fn parse_order(text: &str, fields: &[Field]) -> Result<Vec<OrderBy>, Fault> {
    let wrong = |what: String| Fault::invalid_field("order_by", what);
    let mut order: Vec<OrderBy> = Vec::new();
    if text.trim().is_empty() {
        return Ok(order);
    }
    let mut position = 1;
    for part in text.split(',') {
        let mut words = part.split_whitespace();
        let (name, direction) = (words.next().unwrap_or_default(), words.next());
        let field = fields.iter().find(|field| field.name == name && field.sortable);
        let descending = match (direction, words.next()) {
            (None | Some("asc"), None) => false,
            (Some("desc"), None) => true,
            _ => {
                return Err(wrong(format!("expected `asc` or `desc` after {name:?} at position {position}")));
            }
        };
        let Some(field) = field else {
            return Err(wrong(format!("{name:?} is not a field to order by, at position {position}")));
        };
        if order.iter().any(|earlier| earlier.column == field.column) {
            return Err(wrong(format!("{name:?} is named twice, at position {position}")));
        }
        order.push(OrderBy { column: field.column, descending, kind: field.kind });
        position += part.chars().count() + 1;
    }
    Ok(order)
}

struct Problem {
    position: usize,
    what: String,
}

struct Parser<'a> {
    text: &'a str,
    position: usize,
    fields: &'a [Field],
    depth: usize,
}

impl<'a> Parser<'a> {
    fn expression(&mut self) -> Result<Filter, Problem> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.problem("too many parentheses"));
        }
        let mut all = vec![self.factor()?];
        while self.keyword("AND") {
            all.push(self.factor()?);
        }
        self.depth -= 1;
        Ok(one_or(all, Filter::All))
    }

    fn factor(&mut self) -> Result<Filter, Problem> {
        let mut any = vec![self.term()?];
        while self.keyword("OR") {
            any.push(self.term()?);
        }
        Ok(one_or(any, Filter::Any))
    }

    fn term(&mut self) -> Result<Filter, Problem> {
        if self.keyword("NOT") {
            return Ok(Filter::Not(Box::new(self.simple()?)));
        }
        self.simple()
    }

    fn simple(&mut self) -> Result<Filter, Problem> {
        if self.symbol("(") {
            let inner = self.expression()?;
            return if self.symbol(")") { Ok(inner) } else { Err(self.problem("expected `)`")) };
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Filter, Problem> {
        self.skip_space();
        let start = self.position;
        let path = self.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/'));
        if path.is_empty() {
            return Err(self.problem("expected a field"));
        }
        let (name, key) = path.split_once('.').map_or((path, None), |(name, key)| (name, Some(key)));
        let field = self.fields.iter().find(|field| field.name == name);
        let Some(field) = field.filter(|field| (field.kind == FieldKind::Labels) == key.is_some()) else {
            return Err(Problem { position: start, what: format!("{path:?} is not a field to filter by") });
        };
        let operator_position = {
            self.skip_space();
            self.position
        };
        let operator = self.operator()?;
        let value_position = {
            self.skip_space();
            self.position
        };
        let value = self.value()?;
        let wrong_value = |what: &str| Problem { position: value_position, what: what.to_owned() };
        let wrong_operator =
            || Problem { position: operator_position, what: format!("{name:?} does not take this operator") };
        let is_equality = matches!(operator, Operator::Equal | Operator::NotEqual);
        let operand = match field.kind {
            FieldKind::Text if is_equality || operator == Operator::Has => Operand::Text(value),
            FieldKind::Id(prefix) if is_equality => {
                Operand::Id(crate::id::parse_prefixed(prefix, &value).map(|uuid| uuid.as_u128()))
            }
            FieldKind::Enum(names) if is_equality => {
                let stored = names.iter().find(|(name, _)| *name == value).map(|(_, stored)| *stored);
                let stored = stored.ok_or_else(|| {
                    let names = names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                    wrong_value(&format!("expected one of {names}"))
                })?;
                Operand::Text(stored.to_owned())
            }
            FieldKind::Time if operator != Operator::Has => Operand::Time(
                Timestamp::parse(&value)
                    .ok_or_else(|| wrong_value("expected a time such as \"2026-01-31T00:00:00Z\""))?,
            ),
            FieldKind::Labels if is_equality => {
                Operand::Label(key.unwrap_or_default().to_owned(), Some(value))
            }
            FieldKind::Labels if operator == Operator::Has && value == "*" => {
                Operand::Label(key.unwrap_or_default().to_owned(), None)
            }
            FieldKind::Labels if operator == Operator::Has => return Err(wrong_value("expected `*`")),
            _ => return Err(wrong_operator()),
        };
        Ok(Filter::Compare(field.column, operator, operand))
    }

    fn operator(&mut self) -> Result<Operator, Problem> {
        // Longer ones first: `<=` begins with `<`.
        for (symbol, operator) in [
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("=", Operator::Equal),
            ("<", Operator::Less),
            (">", Operator::Greater),
            (":", Operator::Has),
        ] {
            if self.symbol(symbol) {
                return Ok(operator);
            }
        }
        Err(self.problem("expected one of = != < <= > >= :"))
    }

    fn value(&mut self) -> Result<String, Problem> {
        let Some(quote) = self.rest().chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            let bare = self.take_while(|c| !c.is_whitespace() && !matches!(c, '(' | ')' | '"' | '\''));
            return if bare.is_empty() { Err(self.problem("expected a value")) } else { Ok(bare.to_owned()) };
        };
        let start = self.position;
        let mut value = String::new();
        let mut characters = self.rest().char_indices().skip(1);
        while let Some((index, character)) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some((_, escaped @ ('\\' | '"' | '\''))) => value.push(escaped),
                    _ => {
                        return Err(Problem {
                            position: start + index,
                            what: "expected \\\\, \\\" or \\'".to_owned(),
                        });
                    }
                },
                _ if character == quote => {
                    self.position = start + index + 1;
                    return Ok(value);
                }
                _ => value.push(character),
            }
        }
        Err(Problem { position: start, what: "the quote is not closed".to_owned() })
    }

    fn end(&mut self) -> Result<(), Problem> {
        self.skip_space();
        if self.rest().is_empty() { Ok(()) } else { Err(self.problem("expected `AND`, `OR` or the end")) }
    }

    fn keyword(&mut self, word: &str) -> bool {
        self.skip_space();
        let Some(after) = self.rest().strip_prefix(word) else { return false };
        let ends = after.chars().next().is_none_or(|c| c.is_whitespace() || c == '(');
        if ends {
            self.position += word.len();
        }
        ends
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(symbol);
        if found {
            self.position += symbol.len();
        }
        found
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.position += length;
        &rest[..length]
    }

    fn skip_space(&mut self) {
        self.take_while(char::is_whitespace);
    }

    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn problem(&self, what: &str) -> Problem {
        Problem { position: self.position, what: what.to_owned() }
    }
}

fn one_or(mut parts: Vec<Filter>, join: impl FnOnce(Vec<Filter>) -> Filter) -> Filter {
    match parts.len() {
        1 => parts.swap_remove(0),
        _ => join(parts),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIELDS: &[Field] = &[
        Field { name: "name", column: "t.name", kind: FieldKind::Text, sortable: true },
        Field { name: "created_at", column: "t.created_at", kind: FieldKind::Time, sortable: true },
        Field { name: "labels", column: "t.labels", kind: FieldKind::Labels, sortable: false },
        Field { name: "state", column: "t.state", kind: FieldKind::Enum(STATES), sortable: false },
    ];

    const STATES: &[(&str, &str)] = &[("STATE_ACTIVE", "active"), ("STATE_STUCK", "stuck")];

    fn name(operator: Operator, value: &str) -> Filter {
        Filter::Compare("t.name", operator, Operand::Text(value.into()))
    }

    #[test]
    fn or_binds_tighter_than_and() {
        let parsed = Filter::parse(r#"name = a AND name = b OR NOT name : "c d""#, FIELDS).unwrap();
        let right =
            Filter::Any(vec![name(Operator::Equal, "b"), Filter::Not(Box::new(name(Operator::Has, "c d")))]);
        assert_eq!(parsed, Filter::All(vec![name(Operator::Equal, "a"), right]));
    }

    #[test]
    fn times_labels_and_quotes() {
        let parsed =
            Filter::parse(r#"(created_at>=2026-01-31T00:00:00Z AND labels.team="a\"b")"#, FIELDS).unwrap();
        assert_eq!(
            parsed,
            Filter::All(vec![
                Filter::Compare(
                    "t.created_at",
                    Operator::GreaterOrEqual,
                    Operand::Time(Timestamp::from_secs(1_769_817_600))
                ),
                Filter::Compare(
                    "t.labels",
                    Operator::Equal,
                    Operand::Label("team".into(), Some("a\"b".into()))
                ),
            ])
        );
    }

    #[test]
    fn names_of_enums_stand_for_what_is_stored() {
        let parsed = Filter::parse("state != STATE_STUCK", FIELDS).unwrap();
        assert_eq!(parsed, Filter::Compare("t.state", Operator::NotEqual, Operand::Text("stuck".into())));
        let fault = Filter::parse("state = stuck", FIELDS).unwrap_err();
        assert_eq!(
            fault.violations()[0].description,
            "expected one of STATE_ACTIVE, STATE_STUCK at position 9"
        );
    }

    #[test]
    fn errors_tell_the_position() {
        for (text, position) in [
            ("nope = 1", 1),
            ("name = a AND nope = 1", 14),
            ("name ~ a", 6),
            ("name = \"a", 8),
            ("(name = a", 10),
            ("name = a b", 10),
            ("name < a", 6),
            ("created_at > soon", 14),
            ("labels = a", 1),
            ("name.x = a", 1),
            ("state = active", 9),
            ("state : STATE_ACTIVE", 7),
        ] {
            let fault = Filter::parse(text, FIELDS).unwrap_err();
            let description = &fault.violations()[0].description;
            assert!(description.ends_with(&format!("at position {position}")), "{text}: {description}");
        }
    }

    #[test]
    fn orders() {
        let order = parse_order("name desc, created_at", FIELDS).unwrap();
        assert_eq!(
            order.iter().map(|part| (part.column, part.descending)).collect::<Vec<_>>(),
            [("t.name", true), ("t.created_at", false)]
        );
        assert_eq!(parse_order(" ", FIELDS).unwrap(), []);
        for bad in ["labels", "name up", "name,name", "name desc x", ","] {
            assert!(parse_order(bad, FIELDS).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".{0,60}") {
            let _ = Filter::parse(&text, FIELDS);
            let _ = parse_order(&text, FIELDS);
        }

        #[test]
        fn nothing_built_from_tokens_panics(tokens in prop::collection::vec(prop::sample::select(vec!["name", "=", "a", "(", ")", "AND", "OR", "NOT", ":", "\"", "labels.x", "é"]), 0..40)) {
            let _ = Filter::parse(&tokens.join(" "), FIELDS);
            let _ = Filter::parse(&tokens.concat(), FIELDS);
        }
    }
}
