//! The base64 of gRPC-Web's text form: chunks of it, each of which may be padded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tonic::Status;

/// Bytes that make one group of base64.
const GROUP: usize = 4;

pub(super) fn encode(data: &[u8]) -> Bytes {
    STANDARD.encode(data).into()
}

/// Decodes what arrives in any chunks.
#[derive(Debug, Default)]
pub(super) struct Base64Stream {
    /// The beginning of a group.
    begun: Vec<u8>,
}

impl Base64Stream {
    pub(super) fn decode(&mut self, chunk: &[u8]) -> Result<Bytes, Status> {
        self.begun.extend_from_slice(chunk);
        let rest = self.begun.split_off(self.begun.len() / GROUP * GROUP);
        let whole = std::mem::replace(&mut self.begun, rest);
        let mut out = Vec::with_capacity(whole.len() / GROUP * 3);
        // Padding ends what was encoded at once, and more may follow.
        let ends_padded = |group: &[u8]| group.last() == Some(&b'=');
        for piece in whole.chunks(GROUP).collect::<Vec<_>>().split_inclusive(|group| ends_padded(group)) {
            STANDARD
                .decode_vec(piece.concat(), &mut out)
                .map_err(|_| Status::invalid_argument("the request is no base64"))?;
        }
        Ok(out.into())
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.begun.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A11 #111.
    #[test]
    fn text_survives_any_chunking() {
        let text: String = ["a", "bc", "def", "", "ghij"].map(|piece| STANDARD.encode(piece)).concat();
        for size in 1..text.len() {
            let mut stream = Base64Stream::default();
            let chunks = text.as_bytes().chunks(size);
            let decoded: Vec<u8> =
                chunks.flat_map(|chunk| stream.decode(chunk).expect("good base64")).collect();
            assert_eq!(decoded, b"abcdefghij", "in chunks of {size}");
            assert!(stream.is_at_end());
        }
        let mut stream = Base64Stream::default();
        assert!(stream.decode(b"a*==").is_err());
        stream.decode(b"YQ").expect("half a group");
        assert!(!stream.is_at_end());
    }
}
