//! Maps from JSON text to the wire.

use std::ops::Range;

use super::lexer::{Lexer, Malformed};
use super::put;
use super::read::{Given, Reader};
use super::table::{FieldTable, Type};
use crate::failure::{Problem, quoted};

impl Reader<'_, '_, '_> {
    pub(super) fn map(
        &mut self,
        field: &FieldTable,
        key: Type,
        value: Type,
        depth: u32,
    ) -> Result<(), Malformed> {
        if self.is_too_deep(depth)? {
            return Ok(());
        }
        self.lexer.enter();
        let (key_tag, value_tag) = ([1 << 3 | key.wire_type()], [2 << 3 | value.wire_type()]);
        // Where the keys stand, and where they came from.
        let mut keys: Vec<(Range<usize>, usize)> = Vec::new();
        let mut first = true;
        while let Some((at, name)) = self.lexer.member(&mut first)? {
            let before = self.violations.len();
            let start = self.out.len();
            self.out.extend_from_slice(&field.tag);
            let entry = put::open(self.out);
            let content = self.out.len();
            self.out.extend_from_slice(&key_tag);
            let key_start = self.out.len();
            if let Err(wrong) = self.scalars.map_key(self.out, key, &name) {
                let description = self.scalars.describe(wrong, key, &name);
                self.report(at, Problem::InvalidValue, format!("has a wrong key: it {description}"));
            }
            let key_length = self.out.len() - key_start;
            self.out.extend_from_slice(&value_tag);
            let value_at = self.at();
            // The entry is one level, the message in it the next.
            match self.value(value, depth + 1)? {
                Given::Value => {
                    let moved = put::close(self.out, entry) - content;
                    keys.push((key_start + moved..key_start + moved + key_length, at));
                }
                Given::Null => {
                    self.report(value_at, Problem::InvalidValue, "must not be null");
                    self.out.truncate(start);
                }
                Given::Nothing => self.out.truncate(start),
            }
            if self.violations.len() > before {
                self.violations.prefix(before, format_args!("[{}]", quoted(&name)));
            }
        }
        self.refuse_repeated(keys);
        Ok(())
    }

    fn refuse_repeated(&mut self, mut keys: Vec<(Range<usize>, usize)>) {
        let out = &*self.out;
        let key = |range: &Range<usize>| out.get(range.clone()).unwrap_or_default();
        keys.sort_by(|(one, first), (other, second)| key(one).cmp(key(other)).then(first.cmp(second)));
        let mut repeated: Vec<usize> = keys
            .windows(2)
            .filter_map(|pair| match pair {
                [(one, _), (other, at)] if key(one) == key(other) => Some(*at),
                _ => None,
            })
            .collect();
        repeated.sort_unstable();
        for at in repeated {
            let before = self.violations.len();
            self.report(at, Problem::DuplicateField, "is given more than once");
            let name = Lexer::new_at(self.lexer.text(), at).string().unwrap_or_default();
            self.violations.prefix(before, format_args!("[{}]", quoted(&name)));
        }
    }
}
