//! Compressed bodies of requests, inflated no faster than they are read.

use std::error::Error;
use std::io::{self, BufReader, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame};

use crate::protocol::Encoding;

/// What is inflated at a time, in bytes.
const PIECE: usize = 16 << 10;

/// The bytes are not what the coding makes.
#[derive(Debug, thiserror::Error)]
#[error("the body is no {0} data")]
pub(crate) struct Corrupt(&'static str);

/// A body without its coding. Each piece is inflated when it is asked for, so that a reader with a limit never holds
/// more than the limit and one piece, whatever the input would become.
pub(crate) struct Inflating<B> {
    source: Pin<Box<B>>,
    encoding: Encoding,
    arrived: Arrived,
    /// Made with the first byte: a body of none is empty in every coding.
    reader: Option<Box<dyn Read + Send>>,
    ended: bool,
}

impl<B> Inflating<B> {
    pub(crate) fn new(source: B, encoding: Encoding) -> Self {
        let source = Box::pin(source);
        Self { source, encoding, arrived: Arrived::default(), reader: None, ended: false }
    }

    /// The next piece of what has arrived; `None` where there is too little of it.
    fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let mut piece = vec![0; PIECE];
        loop {
            match reader.read(&mut piece) {
                Ok(length) => {
                    piece.truncate(length);
                    return Ok(Some(piece.into()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn corrupt(&mut self, error: &io::Error) -> Corrupt {
        tracing::debug!(%error, encoding = self.encoding.name(), "a request body could not be inflated");
        self.ended = true;
        Corrupt(self.encoding.name())
    }
}

impl<B> Body for Inflating<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        while !this.ended {
            match this.piece() {
                Ok(Some(piece)) if piece.is_empty() => break,
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(this.corrupt(&error).into()))),
            }
            match ready!(this.source.as_mut().poll_frame(context)) {
                None if this.reader.is_none() => break,
                None => this.arrived.end(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if data.is_empty() {
                        continue;
                    }
                    this.arrived.push(data);
                    if this.reader.is_none() {
                        let source = BufReader::with_capacity(PIECE, this.arrived.clone());
                        match this.encoding.reader(source) {
                            Ok(reader) => this.reader = Some(reader),
                            Err(error) => return Poll::Ready(Some(Err(this.corrupt(&error).into()))),
                        }
                    }
                }
            }
        }
        this.ended = true;
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// What has arrived and was not read, shared with the decoder.
#[derive(Debug, Clone, Default)]
struct Arrived(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    data: Bytes,
    ended: bool,
}

impl Arrived {
    /// To be called where all was read.
    fn push(&self, data: Bytes) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).data = data;
    }

    fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
    }
}

impl Read for Arrived {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let length = queue.data.len().min(out.len());
        if length == 0 {
            return if queue.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        queue.data.split_to(length).copy_to_slice(out.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use proptest::prelude::*;

    use super::*;

    const ALL: [Encoding; 3] = [Encoding::Gzip, Encoding::Brotli, Encoding::Zstd];

    fn packed(encoding: Encoding, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encoding.compress(message, &mut out).expect("memory to write to");
        out
    }

    fn inflating(
        encoding: Encoding,
        bytes: &[u8],
        size: usize,
    ) -> Inflating<impl Body<Data = Bytes, Error = Infallible> + use<>> {
        let chunks: Vec<_> = bytes
            .chunks(size)
            .map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(chunk))))
            .collect();
        Inflating::new(StreamBody::new(stream::iter(chunks)), encoding)
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        futures::executor::block_on(future)
    }

    /// A8 #91: in whatever chunks a body arrives.
    #[test]
    fn bodies_survive_any_chunking() {
        let messages = proptest::collection::vec(any::<u8>(), 0..2_000);
        proptest!(|(message in messages, repeat in 1_usize..40, size in 1_usize..300)| {
            let message = message.repeat(repeat);
            for encoding in ALL {
                let body = inflating(encoding, &packed(encoding, &message), size);
                let whole = block_on(body.collect()).expect("what was just compressed").to_bytes();
                prop_assert_eq!(&whole, &message, "{:?}", encoding);
            }
        });
    }

    /// A8 #93: a body is inflated as far as it is read and no further.
    #[test]
    fn a_bomb_costs_what_is_read_of_it() {
        for encoding in ALL {
            let bytes = packed(encoding, &vec![0; 64 << 20]);
            let mut body = inflating(encoding, &bytes, usize::MAX);
            let frame = block_on(body.frame()).expect("a frame").expect("good data");
            assert!(frame.into_data().expect("data").len() <= PIECE, "{encoding:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_no_such_data_is_corrupt() {
        for encoding in ALL {
            let whole = packed(encoding, &b"some words, and more of them".repeat(9));
            for bytes in [&whole[..whole.len() - 3], b"{\"this\": \"is no compressed data\"}"] {
                let error = block_on(inflating(encoding, bytes, 7).collect()).expect_err("corrupt data");
                assert!(error.is::<Corrupt>(), "{encoding:?}: {error}");
            }
            let empty = block_on(inflating(encoding, b"", 7).collect()).expect("nothing");
            assert_eq!(empty.to_bytes().len(), 0, "{encoding:?}");
        }
    }
}
