//! The parts of a message that somebody wants to see, by the paths of a field mask.

use super::put;
use super::table::{MessageId, Shape, Tables, Type};
use super::wire::{Raw, Reader, WireError};
use crate::bind::MAX_PATH;

/// What a mask is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The message that it, or each value of it, is; none where there are no fields to choose from.
    pub(crate) message: Option<MessageId>,
    /// Whether it is a list or a map.
    pub(crate) is_many: bool,
}

impl Scope {
    /// A field of a message.
    pub(crate) fn of(shape: Shape) -> Self {
        let (kind, is_many) = match shape {
            Shape::Implicit(kind) | Shape::Explicit(kind) => (kind, false),
            Shape::Repeated(kind) | Shape::Map { value: kind, .. } => (kind, true),
        };
        let message = match kind {
            Type::Message(id) => Some(id),
            _ => None,
        };
        Self { message, is_many }
    }
}

/// The fields of a message that are selected, by their places and in that order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection(Vec<(usize, Extent)>);

/// How much of a field is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extent {
    All,
    /// Of the message that it is, or of every message in it.
    Part(Selection),
}

impl Extent {
    /// None where nothing is left out.
    pub(crate) fn part(&self) -> Option<&Selection> {
        match self {
            Self::All => None,
            Self::Part(part) => Some(part),
        }
    }
}

/// What a path selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Everything,
    /// A field, by the places from the outermost message down to it.
    Field(Vec<usize>),
}

impl Place {
    /// Resolves a dotted path, each part by either of its names. A path goes on into each value of a list or a map,
    /// with or without a `*` in between; at its end a `*` is all there is. None where there is no such field.
    pub(crate) fn resolve(tables: &Tables, scope: Scope, path: &str) -> Option<Self> {
        let (mut at, mut places) = (scope, Vec::new());
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            if name == "*" {
                match names.peek() {
                    None if at.is_many || at.message.is_some() || places.is_empty() => break,
                    Some(_) if at.is_many => at.is_many = false,
                    _ => return None,
                }
                continue;
            }
            // What has a JSON form of its own is there as a whole or not at all.
            let message = tables.message(at.message?).filter(|message| message.well_known.is_none())?;
            let place = message.find(name, 0).filter(|_| places.len() < MAX_PATH)?;
            places.push(place);
            at = Scope::of(message.fields.get(place)?.shape);
        }
        Some(if places.is_empty() { Self::Everything } else { Self::Field(places) })
    }
}

impl Selection {
    /// Selects a field, too.
    pub(crate) fn add(&mut self, places: &[usize]) {
        let Some((first, below)) = places.split_first() else { return };
        match self.0.binary_search_by_key(first, |(place, _)| *place) {
            Err(at) => {
                let mut extent = Extent::All;
                if !below.is_empty() {
                    let mut part = Self::default();
                    part.add(below);
                    extent = Extent::Part(part);
                }
                self.0.insert(at, (*first, extent));
            }
            Ok(at) => match self.0.get_mut(at) {
                Some((_, extent)) if below.is_empty() => *extent = Extent::All,
                Some((_, Extent::Part(part))) => part.add(below),
                _ => {}
            },
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much of the field at a place is selected; none where it is not.
    pub(crate) fn of(&self, place: usize) -> Option<&Extent> {
        let at = self.0.binary_search_by_key(&place, |(known, _)| *known).ok()?;
        self.0.get(at).map(|(_, extent)| extent)
    }

    /// Appends what is selected of a message on the wire. Fields that are not known are not selected either.
    pub(crate) fn prune(
        &self,
        tables: &Tables,
        id: MessageId,
        wire: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let Some(message) = tables.message(id) else { return Ok(()) };
        let (mut reader, mut hint) = (Reader::new(wire), 0);
        loop {
            let before = reader.rest();
            let Some((number, value)) = reader.field()? else { return Ok(()) };
            let Some(place) = message.position(number, hint) else { continue };
            hint = place;
            let (Some(field), Some(extent)) = (message.fields.get(place), self.of(place)) else { continue };
            match (extent, Scope::of(field.shape).message, value) {
                (Extent::Part(part), Some(inside), Raw::Bytes(wire)) => {
                    out.extend_from_slice(&field.tag);
                    if let Some(end) = &field.end {
                        part.prune(tables, inside, wire, out)?;
                        out.extend_from_slice(end);
                        continue;
                    }
                    let open = put::open(out);
                    match field.shape {
                        Shape::Map { .. } => part.prune_entry(tables, inside, wire, out)?,
                        _ => part.prune(tables, inside, wire, out)?,
                    }
                    put::close(out, open);
                }
                _ => out.extend_from_slice(between(before, &reader)),
            }
        }
    }

    /// Appends an entry of a map whose values are messages.
    fn prune_entry(
        &self,
        tables: &Tables,
        value: MessageId,
        wire: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let mut reader = Reader::new(wire);
        loop {
            let before = reader.rest();
            match reader.field()? {
                None => return Ok(()),
                Some((2, Raw::Bytes(wire))) => {
                    out.extend_from_slice(&put::tag(2, 2));
                    let open = put::open(out);
                    self.prune(tables, value, wire, out)?;
                    put::close(out, open);
                }
                Some(_) => out.extend_from_slice(between(before, &reader)),
            }
        }
    }
}

/// What was read since then.
fn between<'w>(before: &'w [u8], reader: &Reader<'w>) -> &'w [u8] {
    before.get(..before.len() - reader.rest().len()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(paths: &[&[usize]]) -> Selection {
        let mut selection = Selection::default();
        for path in paths {
            selection.add(path);
        }
        selection
    }

    /// A5 #71: the order of paths decides nothing, and a whole field wins over a part of it.
    #[test]
    fn paths_add_up() {
        let expected = selection(&[&[1, 2], &[1, 3], &[4]]);
        assert_eq!(selection(&[&[4, 9], &[1, 3], &[4], &[1, 2], &[4, 8]]), expected);
        assert_eq!(expected.of(4), Some(&Extent::All));
        assert_eq!(expected.of(1).and_then(Extent::part).and_then(|part| part.of(3)), Some(&Extent::All));
        assert_eq!((expected.of(0), expected.of(2), expected.of(5)), (None, None, None));
        assert_eq!(selection(&[&[]]), Selection::default());
    }
}
