//! Field paths of a request message: looked up once, appended to the wire.

use std::convert::Infallible;

use smallvec::{SmallVec, smallvec};

use crate::json::{self, FieldTable, MessageId, Tables, Type, put};

/// Longest dotted path a query parameter or a mask may have. Far more than any sensible
/// message needs, and less than what a decoder refuses as too deep.
pub(crate) const MAX_PATH: usize = 32;

/// The fields from a request message down to one of its leaves, by the message
/// and the place of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldPath(Fields);

/// Most paths are short.
type Fields = SmallVec<[(MessageId, usize); 2]>;

/// Why a dotted path names no field that text can be put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathError {
    Unknown,
    /// A part before the last is not a singular message.
    NoParent,
    TooLong,
}

impl FieldPath {
    /// Resolves a dotted path, each part by either of its names.
    pub(crate) fn resolve(tables: &Tables, root: MessageId, path: &str) -> Result<Self, PathError> {
        Self::go_on(tables, SmallVec::new(), Some(root), path)
    }

    /// Resolves one below the message that the leaf is.
    pub(crate) fn resolve_below(self, tables: &Tables, path: &str) -> Result<Self, PathError> {
        let root = self.leaf(tables).and_then(|field| field.message().filter(|_| field.is_singular()));
        Self::go_on(tables, self.0, root, path)
    }

    fn go_on(
        tables: &Tables,
        mut fields: Fields,
        mut at: Option<MessageId>,
        path: &str,
    ) -> Result<Self, PathError> {
        for name in path.split('.') {
            if fields.len() == MAX_PATH {
                return Err(PathError::TooLong);
            }
            let id = at.ok_or(PathError::NoParent)?;
            let message = tables.message(id).ok_or(PathError::Unknown)?;
            let place = message.find(name, 0).ok_or(PathError::Unknown)?;
            fields.push((id, place));
            at = message.fields.get(place).and_then(|field| match field.kind() {
                Some(Type::Message(inside)) if field.is_singular() => Some(inside),
                _ => None,
            });
            at =
                at.filter(|inside| tables.message(*inside).is_some_and(|inside| inside.well_known.is_none()));
        }
        Ok(Self(fields))
    }

    /// A field of a message.
    pub(crate) fn of(message: MessageId, place: usize) -> Self {
        Self(smallvec![(message, place)])
    }

    /// The fields, the leaf last.
    pub(crate) fn fields<'t>(&self, tables: &'t Tables) -> impl DoubleEndedIterator<Item = &'t FieldTable> {
        self.0.iter().filter_map(|(id, place)| tables.message(*id)?.fields.get(*place))
    }

    pub(crate) fn leaf<'t>(&self, tables: &'t Tables) -> Option<&'t FieldTable> {
        self.fields(tables).next_back()
    }

    /// Whether the first field of the path is at this place of the request.
    pub(crate) fn is_within(&self, place: usize) -> bool {
        self.0.first().is_some_and(|(_, first)| *first == place)
    }

    /// The place of the field at this depth; the first is at 0.
    pub(crate) fn place(&self, depth: usize) -> Option<usize> {
        self.0.get(depth).map(|(_, place)| *place)
    }

    /// The place of the second field, where there are exactly two.
    pub(crate) fn only_below_first(&self) -> Option<usize> {
        match self.0.as_slice() {
            [_, (_, place)] => Some(*place),
            _ => None,
        }
    }

    /// Whether one is the other, or lies within it.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(one, other)| one == other)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Another member of a oneof on the way that the message holds already.
    pub(crate) fn rival<'t>(&self, tables: &'t Tables, wire: &[u8]) -> Option<&'t FieldTable> {
        if wire.is_empty() {
            return None;
        }
        let mut numbers: SmallVec<[u32; 8]> = SmallVec::new();
        for (id, place) in &self.0 {
            let message = tables.message(*id)?;
            let field = message.fields.get(*place)?;
            if field.oneof.is_some() {
                let others = message.fields.iter();
                for other in others.filter(|other| other.oneof == field.oneof && other.number != field.number)
                {
                    numbers.push(other.number);
                    if json::find(wire, &numbers).is_some() {
                        return Some(other);
                    }
                    numbers.pop();
                }
            }
            numbers.push(field.number);
        }
        None
    }

    /// The leaf's value in a message, where it is set.
    pub(crate) fn get<'w>(&self, tables: &Tables, wire: &'w [u8]) -> Option<json::Raw<'w>> {
        if wire.is_empty() {
            return None;
        }
        let numbers: SmallVec<[u32; 8]> = self.fields(tables).map(|field| field.number).collect();
        json::find(wire, &numbers)
    }

    /// Appends a message that has nothing but the leaf, with what `value`
    /// appends after its tag: merged with what is there, that sets it or, where
    /// it is repeated, adds to it.
    pub(crate) fn append<E>(
        &self,
        tables: &Tables,
        out: &mut Vec<u8>,
        value: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = out.len();
        let mut open = Vec::new();
        let mut fields = self.fields(tables).peekable();
        while let Some(field) = fields.next() {
            out.extend_from_slice(&field.tag);
            if fields.peek().is_some() {
                open.push(match &field.end {
                    None => Inside::Length(put::open(out)),
                    Some(end) => Inside::Group(end),
                });
            }
        }
        if let Err(error) = value(out) {
            out.truncate(start);
            return Err(error);
        }
        for inside in open.into_iter().rev() {
            match inside {
                Inside::Length(place) => drop(put::close(out, place)),
                Inside::Group(end) => out.extend_from_slice(end),
            }
        }
        Ok(())
    }

    /// Appends the message that the leaf is, whose content `value` appends.
    pub(crate) fn append_message(
        &self,
        tables: &Tables,
        out: &mut Vec<u8>,
        value: impl FnOnce(&mut Vec<u8>),
    ) {
        let appended = self.append(tables, out, |out| {
            let place = put::open(out);
            value(out);
            put::close(out, place);
            Ok::<_, Infallible>(())
        });
        match appended {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    /// The names in the proto file, joined with dots.
    pub(crate) fn name(&self, tables: &Tables) -> String {
        self.fields(tables).map(|field| &*field.name).collect::<Vec<_>>().join(".")
    }
}

/// How a message on the way to the leaf ends.
enum Inside<'t> {
    Length(put::Open),
    Group(&'t [u8]),
}
