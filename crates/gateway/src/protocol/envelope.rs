//! The envelope of gRPC, gRPC-Web and Connect streams: flags, length, message.

use bytes::{Buf as _, Bytes, BytesMut};
use tonic::Status;

/// Flags and length in front of every message.
pub(super) const PREFIX: usize = 5;
/// The message is compressed.
pub(super) const COMPRESSED: u8 = 0b1;

/// One message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) flags: u8,
    /// The message with its prefix.
    pub(super) whole: Bytes,
}

impl Envelope {
    pub(super) fn message(&self) -> Bytes {
        self.whole.slice(PREFIX.min(self.whole.len())..)
    }
}

/// Cuts what arrives in any chunks into envelopes. A message that lies within one chunk is not copied, and no more is
/// held than has arrived, whatever length was declared.
#[derive(Debug)]
pub(super) struct Splitter {
    limit: usize,
    /// Arrived and not looked at.
    rest: Bytes,
    /// The beginning of an envelope whose end has not arrived.
    partial: BytesMut,
}

impl Splitter {
    /// Refuses messages above `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, rest: Bytes::new(), partial: BytesMut::new() }
    }

    /// Takes in what follows. To be called where [`Self::next`] gave none.
    pub(super) fn push(&mut self, data: Bytes) {
        if self.rest.is_empty() {
            self.rest = data;
        } else {
            self.rest = [&*self.rest, &*data].concat().into();
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Envelope>, Status> {
        if self.partial.is_empty() {
            let end = self.end(&self.rest)?;
            if let Some((flags, end)) = end
                && end <= self.rest.len()
            {
                return Ok(Some(Envelope { flags, whole: self.rest.split_to(end) }));
            }
        }
        self.fill(PREFIX);
        let Some((flags, end)) = self.end(&self.partial)? else { return Ok(None) };
        self.fill(end);
        if self.partial.len() < end {
            return Ok(None);
        }
        Ok(Some(Envelope { flags, whole: std::mem::take(&mut self.partial).freeze() }))
    }

    /// Whether nothing is left of a message that was not given out.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.partial.is_empty()
    }

    /// What has not arrived of the message that begins here, also where it was refused.
    pub(super) fn missing(&self) -> usize {
        let begun = if self.partial.is_empty() { &*self.rest } else { &*self.partial };
        prefix(begun)
            .map_or(0, |(_, length)| (PREFIX + length).saturating_sub(self.partial.len() + self.rest.len()))
    }

    fn fill(&mut self, length: usize) {
        let missing = length.saturating_sub(self.partial.len()).min(self.rest.len());
        self.partial.extend_from_slice(&self.rest.split_to(missing));
    }

    /// Flags and whole length of the envelope that begins here.
    fn end(&self, begun: &[u8]) -> Result<Option<(u8, usize)>, Status> {
        let Some((flags, length)) = prefix(begun) else { return Ok(None) };
        check_length(length, self.limit)?;
        Ok(Some((flags, PREFIX + length)))
    }
}

/// Reads envelopes without cutting them out: tells what is wrong with a stream that is passed on as it is.
#[derive(Debug)]
pub(super) struct Scanner {
    limit: usize,
    prefix: [u8; PREFIX],
    /// How much of the prefix has been read.
    begun: usize,
    /// What is to come of the message.
    left: usize,
}

impl Scanner {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, prefix: [0; PREFIX], begun: 0, left: 0 }
    }

    /// Reads a chunk; hands the flags of every message that begins in it to `check`.
    pub(super) fn scan(
        &mut self,
        mut chunk: &[u8],
        check: impl Fn(u8) -> Result<(), Status>,
    ) -> Result<(), Status> {
        while !chunk.is_empty() {
            let skipped = self.left.min(chunk.len());
            self.left -= skipped;
            chunk.advance(skipped);
            for place in self.prefix.iter_mut().skip(self.begun) {
                if let Some((byte, tail)) = chunk.split_first() {
                    *place = *byte;
                    chunk = tail;
                    self.begun += 1;
                }
            }
            if self.begun == PREFIX
                && let Some((flags, length)) = prefix(&self.prefix)
            {
                self.begun = 0;
                self.left = length;
                // What this chunk has of the message, in case that it is refused.
                let refused = check(flags).and_then(|()| check_length(length, self.limit));
                refused.inspect_err(|_| self.left = length.saturating_sub(chunk.len()))?;
            }
        }
        Ok(())
    }

    /// What has not arrived of the last message, also where it was refused.
    pub(super) fn missing(&self) -> usize {
        self.left
    }

    /// Whether the last message that began has ended.
    pub(super) fn is_at_end(&self) -> bool {
        self.begun == 0 && self.left == 0
    }
}

fn prefix(bytes: &[u8]) -> Option<(u8, usize)> {
    let &[flags, a, b, c, d] = bytes.first_chunk::<PREFIX>()?;
    Some((flags, usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX)))
}

pub(super) fn check_length(length: usize, limit: usize) -> Result<(), Status> {
    if length > limit {
        return Err(Status::resource_exhausted(format!("a message is larger than {limit} bytes")));
    }
    Ok(())
}

/// The bytes ended within a message.
pub(super) fn cut_off() -> Status {
    Status::invalid_argument("the last message is cut off")
}

/// Refuses flags that mean nothing, and compression where no encoding was named.
pub(super) fn check_flags(flags: u8, may_be_compressed: bool) -> Result<(), Status> {
    match flags {
        0 => Ok(()),
        COMPRESSED if may_be_compressed => Ok(()),
        COMPRESSED => Err(Status::internal("a message is marked as compressed, and no encoding was named")),
        _ => Err(Status::internal(format!("a message has flags that mean nothing: {flags:#010b}"))),
    }
}

/// Appends an envelope whose message `write` appends.
pub(super) fn append<E>(
    out: &mut Vec<u8>,
    flags: u8,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E>
where
    E: From<Status>,
{
    let start = out.len();
    out.extend_from_slice(&[flags, 0, 0, 0, 0]);
    write(out)?;
    let length = prefix_for(flags, out.len() - start - PREFIX)?;
    if let Some(place) = out.get_mut(start..start + PREFIX) {
        place.copy_from_slice(&length);
    }
    Ok(())
}

/// The prefix of a message.
pub(super) fn prefix_for(flags: u8, length: usize) -> Result<[u8; PREFIX], Status> {
    let length = u32::try_from(length)
        .map_err(|_| Status::resource_exhausted("a message does not fit into one envelope"))?;
    let [a, b, c, d] = length.to_be_bytes();
    Ok([flags, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    fn read(splitter: &mut Splitter) -> Vec<Envelope> {
        std::iter::from_fn(|| splitter.next().expect("good envelopes")).collect()
    }

    fn stream(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages {
            append::<Status>(&mut out, 0, |out| {
                out.extend_from_slice(message);
                Ok(())
            })
            .expect("short messages");
        }
        out
    }

    /// A9 #98: whatever the chunks are, the messages are the same.
    #[test]
    fn messages_survive_any_chunking() {
        let messages = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6);
        proptest!(|(messages in messages, size in 1_usize..50)| {
            let bytes = stream(&messages);
            let (mut splitter, mut scanner) = (Splitter::new(40), Scanner::new(40));
            let mut found = Vec::new();
            for chunk in bytes.chunks(size) {
                splitter.push(Bytes::copy_from_slice(chunk));
                found.extend(read(&mut splitter).iter().map(|envelope| envelope.message().to_vec()));
                scanner.scan(chunk, |flags| check_flags(flags, false)).expect("good envelopes");
            }
            prop_assert!(splitter.is_empty() && scanner.is_at_end());
            prop_assert_eq!(found, messages);
        });
    }

    /// A message that came in one piece is handed on in that piece.
    #[test]
    fn whole_messages_are_not_copied() {
        let bytes = Bytes::from(stream(&[b"one".to_vec(), b"two".to_vec()]));
        let mut splitter = Splitter::new(3);
        splitter.push(bytes.clone());
        let found = read(&mut splitter);
        let places: Vec<_> = found.iter().map(|envelope| envelope.whole.as_ptr()).collect();
        assert_eq!(places, [bytes.as_ptr(), bytes[8..].as_ptr()]);
    }

    /// A9 #98: a length is refused before the message has come, and costs no memory.
    #[test]
    fn declared_lengths_are_not_believed() {
        let mut splitter = Splitter::new(1 << 20);
        splitter.push(Bytes::from_static(b"\0\0\x10\0\x01"));
        assert_eq!(splitter.next().expect_err("above the limit").code(), Code::ResourceExhausted);
        assert_eq!(splitter.missing(), 0x10_0001);

        let mut splitter = Splitter::new(usize::MAX);
        splitter.push(Bytes::from_static(b"\0\xff\xff\xff\xffabc"));
        assert_eq!(splitter.next().expect("a beginning"), None);
        assert!(splitter.partial.capacity() < 1024 && !splitter.is_empty());

        let mut scanner = Scanner::new(4);
        let refused = scanner.scan(b"\0\0\0\0\x05", |_| Ok(())).expect_err("above the limit");
        assert_eq!((refused.code(), scanner.missing()), (Code::ResourceExhausted, 5));
    }

    /// A8 #92, A9 #98.
    #[test]
    fn flags_are_checked() {
        assert!(check_flags(0, false).is_ok() && check_flags(1, true).is_ok());
        for (flags, may_be_compressed) in [(1, false), (2, true), (0x80, true), (0x81, true)] {
            let refused = check_flags(flags, may_be_compressed).expect_err("bad flags");
            assert_eq!(refused.code(), Code::Internal, "{flags}");
        }
    }

    /// A9 #98.
    #[test]
    fn a_stream_that_ends_within_a_message_is_noticed() {
        for bytes in [&b"\0\0"[..], b"\0\0\0\0\x02a", b"\0\0\0\0\0\0"] {
            let (mut splitter, mut scanner) = (Splitter::new(9), Scanner::new(9));
            splitter.push(Bytes::from_static(bytes));
            while splitter.next().expect("good envelopes").is_some() {}
            scanner.scan(bytes, |_| Ok(())).expect("good envelopes");
            assert!(!splitter.is_empty() && !scanner.is_at_end(), "{bytes:?}");
        }
    }
}
