//! The protobuf wire format, as far as reading it goes.

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("they end in the middle of a field")]
    Truncated,
    #[error("a varint is longer than ten bytes")]
    Varint,
    #[error("a tag has the field number 0 or an unknown wire type")]
    Tag,
    #[error("a group does not end as it began")]
    Group,
    #[error("a field has the wire type of another type")]
    Type,
    #[error("text is not UTF-8")]
    Utf8,
    #[error("messages are nested too deep")]
    Depth,
}

/// A field's value as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Raw<'w> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// Of length-delimited fields, and of groups without their tags.
    Bytes(&'w [u8]),
}

/// Reads fields one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'w> {
    rest: &'w [u8],
}

impl<'w> Reader<'w> {
    pub(crate) fn new(bytes: &'w [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is not read yet.
    pub(crate) fn rest(&self) -> &'w [u8] {
        self.rest
    }

    /// The number and the value of the next field; none at the end.
    pub(crate) fn field(&mut self) -> Result<Option<(u32, Raw<'w>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.tag()?;
        let value = match wire_type {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(self.fixed64()?),
            2 => Raw::Bytes(self.bytes()?),
            3 => Raw::Bytes(self.group(number)?),
            5 => Raw::Fixed32(self.fixed32()?),
            _ => return Err(WireError::Tag),
        };
        Ok(Some((number, value)))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        if let Some((byte, rest)) = self.rest.split_first()
            && *byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            // The tenth byte has room for one bit; what is above it is cut off, as everywhere.
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { WireError::Truncated } else { WireError::Varint })
    }

    pub(crate) fn fixed64(&mut self) -> Result<u64, WireError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    pub(crate) fn fixed32(&mut self) -> Result<u32, WireError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    fn bytes(&mut self) -> Result<&'w [u8], WireError> {
        let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn tag(&mut self) -> Result<(u32, u8), WireError> {
        let tag = u32::try_from(self.varint()?).map_err(|_| WireError::Tag)?;
        let number = tag >> 3;
        if number == 0 {
            return Err(WireError::Tag);
        }
        Ok((number, (tag & 7) as u8))
    }

    /// The fields of a group that has begun. Groups inside are passed over without recursion.
    fn group(&mut self, number: u32) -> Result<&'w [u8], WireError> {
        let start = self.rest;
        let mut open = vec![number];
        loop {
            let length = start.len() - self.rest.len();
            let (number, wire_type) = self.tag()?;
            match wire_type {
                0 => drop(self.varint()?),
                1 => drop(self.fixed64()?),
                2 => drop(self.bytes()?),
                3 => open.push(number),
                4 if open.pop() == Some(number) => {
                    if open.is_empty() {
                        return Ok(start.get(..length).unwrap_or_default());
                    }
                }
                5 => drop(self.fixed32()?),
                4 => return Err(WireError::Group),
                _ => return Err(WireError::Tag),
            }
        }
    }
}

/// The fields of a message as they stand, up to what is no field.
pub(crate) fn wire_fields(wire: &[u8]) -> impl Iterator<Item = (u32, Raw<'_>)> {
    let mut reader = Reader::new(wire);
    std::iter::from_fn(move || reader.field().ok().flatten())
}

/// The last value of a field, by the numbers from the message down to it; none where it is absent.
pub(crate) fn find<'w>(wire: &'w [u8], path: &[u32]) -> Option<Raw<'w>> {
    let (first, below) = path.split_first()?;
    let mut found = None;
    let mut reader = Reader::new(wire);
    while let Ok(Some((number, value))) = reader.field() {
        if number == *first {
            found = match (below, value) {
                ([], value) => Some(value),
                // Messages that follow each other are one, merged.
                (below, Raw::Bytes(inside)) => find(inside, below).or(found),
                _ => found,
            };
        }
    }
    found
}

/// The message in a field at the top of another, merged from all its parts.
pub(crate) fn inside(wire: &[u8], number: u32) -> Vec<u8> {
    let mut inside = Vec::new();
    let mut reader = Reader::new(wire);
    while let Ok(Some((found, value))) = reader.field() {
        if let (true, Raw::Bytes(bytes)) = (found == number, value) {
            inside.extend_from_slice(bytes);
        }
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<u32>, WireError> {
        let mut reader = Reader::new(bytes);
        let mut numbers = Vec::new();
        while let Some((number, _)) = reader.field()? {
            numbers.push(number);
        }
        Ok(numbers)
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert_eq!(fields(&[0x08, 0x01, 0x12, 0x00]), Ok(vec![1, 2]));
        assert_eq!(fields(&[0x08]), Err(WireError::Truncated));
        assert_eq!(fields(&[0x12, 0x05, 0x00]), Err(WireError::Truncated));
        assert_eq!(fields(&[0x0d, 0, 0, 0]), Err(WireError::Truncated));
        assert_eq!(fields(&[0x00, 0x00]), Err(WireError::Tag));
        assert_eq!(fields(&[0x0e]), Err(WireError::Tag));
        let endless = [&[0x08][..], &[0xff; 11]].concat();
        assert_eq!(fields(&endless), Err(WireError::Varint));
    }

    #[test]
    fn the_last_value_is_found_in_merged_messages() {
        // 1: { 2: 7 }, 1: { 3: 8 }, 1: { 2: 9 }
        let wire = [0x0a, 2, 0x10, 7, 0x0a, 2, 0x18, 8, 0x0a, 2, 0x10, 9];
        assert_eq!(find(&wire, &[1, 2]), Some(Raw::Varint(9)));
        assert_eq!(find(&wire, &[1, 3]), Some(Raw::Varint(8)));
        assert_eq!(find(&wire, &[1, 4]), None);
        assert_eq!(find(&wire, &[1]), Some(Raw::Bytes(&[0x10, 9])));
    }

    #[test]
    fn groups_end_where_they_began() {
        // Field 1 is a group with field 2, and a group 3 inside.
        assert_eq!(fields(&[0x0b, 0x10, 0x01, 0x1b, 0x1c, 0x0c, 0x20, 0x00]), Ok(vec![1, 4]));
        assert_eq!(fields(&[0x0b, 0x14]), Err(WireError::Group));
        assert_eq!(fields(&[0x0b]), Err(WireError::Truncated));
        assert_eq!(fields(&[0x0c]), Err(WireError::Tag));
    }
}
