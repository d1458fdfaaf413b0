//! The first bytes of a connection: whether there are any in time, and what they speak.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// What an HTTP/2 client sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How much is read of a request before HTTP takes over.
const CHUNK: usize = 1024;
/// How long a connection may stay silent once the server stops: for those whose first bytes are on their way.
const LAST_CALL: Duration = Duration::from_millis(500);

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// Reads the beginning of a request, the whole preface where it is HTTP/2. None where the connection ended instead.
pub(crate) async fn read<IO: AsyncRead + Unpin>(io: &mut IO) -> Option<(Version, Bytes)> {
    let mut begun = BytesMut::with_capacity(CHUNK);
    loop {
        if !matches!(io.read_buf(&mut begun).await, Ok(1..)) {
            return None;
        }
        let version = if begun.starts_with(PREFACE) {
            Version::Http2
        } else if PREFACE.starts_with(&begun) {
            continue;
        } else {
            Version::Http1
        };
        return Some((version, begun.freeze()));
    }
}

/// Waits for something at most so long, and hardly at all once the server stops. None where it did not come in time.
pub(crate) async fn in_time<F: Future>(
    limit: Duration,
    drain: &CancellationToken,
    awaited: F,
) -> Option<F::Output> {
    let too_late = async {
        if timeout(limit, drain.cancelled()).await.is_ok() {
            sleep(LAST_CALL).await;
        }
    };
    tokio::select! {
        biased;
        came = awaited => Some(came),
        () = too_late => None,
    }
}

/// A stream whose first bytes were read already, and are read again.
pub(crate) struct Opened<IO> {
    begun: Bytes,
    io: IO,
}

impl<IO> Opened<IO> {
    pub(crate) fn new(begun: Bytes, io: IO) -> Self {
        Self { begun, io }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Opened<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.begun.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let length = self.begun.len().min(buf.remaining());
        buf.put_slice(self.begun.get(..length).unwrap_or_default());
        self.begun.advance(length);
        if self.begun.is_empty() {
            // The buffer is let go now, and not with the connection.
            self.begun = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Opened<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// What is read of a connection on which these arrive one after the other.
    async fn opened(chunks: &[&[u8]]) -> Option<(Version, Vec<u8>)> {
        let (mut client, mut server) = tokio::io::duplex(7);
        let sent = async move {
            for chunk in chunks {
                client.write_all(chunk).await.expect("it is sent");
            }
        };
        let read = async {
            let (version, begun) = read(&mut server).await?;
            let mut opened = Opened::new(begun, server);
            let mut all = Vec::new();
            opened.read_to_end(&mut all).await.expect("it reads");
            Some((version, all))
        };
        tokio::join!(sent, read).1
    }

    // A9 #94: the first bytes decide, however they are cut, and none of them is lost.
    #[tokio::test]
    async fn the_first_bytes_tell_the_version() {
        assert_eq!(
            opened(&[b"PRI * HT", b"TP/2.0\r\n\r\nSM\r\n\r\n", b"frames"]).await,
            Some((Version::Http2, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nframes".to_vec()))
        );
        for text in ["GET / HTTP/1.1\r\n", "P", "PRI", "PRI * HTTP/1.1\r\n\r\n", "PUT /"] {
            let expected =
                (!PREFACE.starts_with(text.as_bytes())).then(|| (Version::Http1, text.as_bytes().to_vec()));
            assert_eq!(opened(&[text.as_bytes()]).await, expected, "{text}");
        }
        assert_eq!(opened(&[]).await, None);
    }
}
