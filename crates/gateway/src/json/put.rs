//! Writing the protobuf wire format.

/// Where the length of something stands that is being written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open(usize);

/// Begins something length-delimited: one byte is left for its length, which is enough most of the time.
pub(crate) fn open(out: &mut Vec<u8>) -> Open {
    out.push(0);
    Open(out.len())
}

/// Ends it. Returns where its content begins, which moves where the length takes more than a byte.
pub(crate) fn close(out: &mut Vec<u8>, open: Open) -> usize {
    let (start, length) = (open.0, out.len().saturating_sub(open.0));
    let (bytes, count) = varint_bytes(u64::try_from(length).unwrap_or(u64::MAX));
    let moved = start + count - 1;
    if count > 1 {
        out.resize(out.len() + count - 1, 0);
        out.copy_within(start..start + length, moved);
    }
    if let (Some(place), Some(bytes)) = (out.get_mut(start - 1..moved), bytes.get(..count)) {
        place.copy_from_slice(bytes);
    }
    moved
}

pub(crate) fn varint(out: &mut Vec<u8>, value: u64) {
    if let Ok(byte) = u8::try_from(value)
        && byte < 0x80
    {
        out.push(byte);
        return;
    }
    let (bytes, count) = varint_bytes(value);
    out.extend(bytes.iter().take(count));
}

/// Text or bytes with their length in front.
pub(crate) fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint(out, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    out.extend_from_slice(bytes);
}

/// The tag of a field.
pub(crate) fn tag(number: u32, wire_type: u8) -> Box<[u8]> {
    let mut out = Vec::new();
    varint(&mut out, u64::from(number) << 3 | u64::from(wire_type));
    out.into()
}

fn varint_bytes(mut value: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut count = 0;
    for byte in &mut bytes {
        count += 1;
        let low = value.to_le_bytes()[0];
        value >>= 7;
        if value == 0 {
            *byte = low;
            break;
        }
        *byte = low | 0x80;
    }
    (bytes, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_any_size_fit() {
        for length in [0, 1, 127, 128, 300, 16_383, 16_384, 3_000_000] {
            let mut out = vec![7];
            let place = open(&mut out);
            out.resize(out.len() + length, 9);
            let start = close(&mut out, place);
            let mut expected = vec![7];
            prost::encoding::encode_varint(length as u64, &mut expected);
            assert_eq!(start, expected.len(), "{length}");
            expected.resize(expected.len() + length, 9);
            assert_eq!(out, expected, "{length}");
        }
    }

    #[test]
    fn varints_are_those_of_prost() {
        for value in [0, 1, 127, 128, 255, 256, 16_384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            varint(&mut ours, value);
            prost::encoding::encode_varint(value, &mut theirs);
            assert_eq!(ours, theirs, "{value}");
        }
    }
}
