//! Compression of single messages, and of the bodies of Connect's unary calls.

use std::io::{self, BufRead, Read, Write};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use tonic::Status;

use super::envelope::check_length;
use crate::answer::quality;

/// The encodings that are spoken, in the words of headers.
pub(crate) const SPOKEN: HeaderValue = HeaderValue::from_static("gzip, br, zstd");
/// The effort for answers: they are compressed once and read once.
const BROTLI_QUALITY: u32 = 4;
const BROTLI_WINDOW: u32 = 20;
const BUFFER: usize = 4096;
/// The window that every decoder of zstd has to support (RFC 8878), and the most memory that a frame may ask for.
const ZSTD_WINDOW: u32 = 23;
const ZSTD_LEVEL: i32 = 3;
/// Compressed data grows in steps; no more is taken at first, however small the input is.
const FIRST_GUESS: usize = 64 << 10;

/// A content coding other than `identity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Brotli,
    Zstd,
}

impl Encoding {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    pub(crate) const ALL: [Self; 3] = [Self::Gzip, Self::Brotli, Self::Zstd];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| name == encoding.name())
    }

    /// What an encoding is that a client names; the inner `None` for `identity`.
    pub(super) fn parse(name: &str) -> Result<Option<Self>, Status> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(None),
            name => Self::named(name).map(Some).ok_or_else(unknown),
        }
    }

    /// The encoding a client's messages are in.
    pub(crate) fn of_request(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Status> {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => Self::parse(value.to_str().map_err(|_| unknown())?),
            _ => Err(unknown()),
        }
    }

    /// The encoding a client likes best of those that are spoken; the first of equals.
    pub(super) fn accepted(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let mut best = None;
        for item in values.flat_map(|value| value.split(',')) {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let quality = quality(parameters);
            if quality > best.map_or(0, |(quality, _)| quality)
                && let Some(encoding) = Self::named(&name.trim().to_ascii_lowercase())
            {
                best = Some((quality, encoding));
            }
        }
        best.map(|(_, encoding)| encoding)
    }

    /// Appends the compressed message.
    pub(crate) fn compress(self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
        let written = match self {
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
                encoder.write_all(message).and_then(|()| encoder.finish().map(drop))
            }
            Self::Brotli => {
                let mut encoder = brotli::CompressorWriter::new(out, BUFFER, BROTLI_QUALITY, BROTLI_WINDOW);
                encoder.write_all(message).and_then(|()| encoder.flush())
            }
            Self::Zstd => zstd::stream::write::Encoder::new(out, ZSTD_LEVEL).and_then(|mut encoder| {
                encoder.write_all(message)?;
                encoder.finish().map(drop)
            }),
        };
        written.map_err(|error| {
            tracing::error!(%error, encoding = self.name(), "a message could not be compressed");
            Status::internal("the answer could not be compressed")
        })
    }

    /// Appends the message; refuses one above `limit` bytes as soon as it gets there. Nothing stays nothing: that is
    /// how an empty message is sent.
    pub(super) fn decompress(self, message: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Status> {
        if message.is_empty() {
            return Ok(());
        }
        out.reserve((message.len() * 4).min(limit).min(FIRST_GUESS));
        let read = self.reader(message).and_then(|reader| bounded(reader, limit, out));
        let length = read.map_err(|error| {
            tracing::debug!(%error, encoding = self.name(), "a message could not be decompressed");
            Status::invalid_argument(format!("a message is no {} data", self.name()))
        })?;
        check_length(length, limit)
    }

    /// Reads what the bytes of a source were before they were compressed.
    pub(crate) fn reader<'r>(
        self,
        source: impl BufRead + Send + 'r,
    ) -> io::Result<Box<dyn Read + Send + 'r>> {
        Ok(match self {
            // Several members in a row are one message, by RFC 1952.
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            Self::Brotli => Box::new(brotli::Decompressor::new(source, BUFFER)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                Box::new(decoder)
            }
        })
    }
}

/// Compresses piece by piece into memory.
pub(crate) enum Compressor {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Compressor {
    pub(crate) fn new(encoding: Encoding) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Gzip => {
                Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()))
            }
            Encoding::Brotli => {
                let writer = brotli::CompressorWriter::new(Vec::new(), BUFFER, BROTLI_QUALITY, BROTLI_WINDOW);
                Self::Brotli(Box::new(writer))
            }
            Encoding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?),
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(encoder) => encoder,
            Self::Brotli(encoder) => encoder,
            Self::Zstd(encoder) => encoder,
        }
    }

    /// What is compressed so far; after a flush that is everything.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        })
    }

    /// The rest, and the end.
    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Write for Compressor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }
}

/// Reads to the end, or to one byte above the limit.
fn bounded(reader: impl Read, limit: usize, out: &mut Vec<u8>) -> io::Result<usize> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(most).read_to_end(out)
}

fn unknown() -> Status {
    Status::unimplemented("the encoding of the messages is not supported: gzip, br, zstd and identity are")
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    const ALL: [Encoding; 3] = Encoding::ALL;

    /// A8 #92.
    #[test]
    fn messages_survive_each_encoding() {
        for encoding in ALL {
            for message in [&b"a"[..], &b"abc".repeat(50_000)] {
                let (mut packed, mut unpacked) = (b"before".to_vec(), b"before".to_vec());
                encoding.compress(message, &mut packed).expect("memory to write to");
                encoding
                    .decompress(&packed[6..], message.len(), &mut unpacked)
                    .expect("what was just compressed");
                assert_eq!(unpacked[6..], *message, "{encoding:?}");
                assert!(message.len() < 9 || packed.len() < message.len() / 10, "{encoding:?}");
            }
            let mut empty = Vec::new();
            encoding.decompress(b"", 0, &mut empty).expect("an empty message");
            assert!(empty.is_empty());
        }
    }

    /// A8 #93: 16 MiB of zeros cost what the limit allows.
    #[test]
    fn bombs_are_refused_while_they_inflate() {
        let zeros = vec![0; 16 << 20];
        for encoding in ALL {
            let (mut packed, mut unpacked) = (Vec::new(), Vec::new());
            encoding.compress(&zeros, &mut packed).expect("memory to write to");
            let refused = encoding.decompress(&packed, 10_000, &mut unpacked).expect_err("a bomb");
            assert_eq!(refused.code(), Code::ResourceExhausted, "{encoding:?}");
            assert!(unpacked.capacity() < 100_000, "{encoding:?} took {}", unpacked.capacity());
        }
    }

    #[test]
    fn what_is_no_compressed_data_is_refused() {
        for encoding in ALL {
            let mut packed = Vec::new();
            encoding.compress(&b"abc".repeat(100), &mut packed).expect("memory to write to");
            packed.truncate(packed.len() - 1);
            for bytes in [&b"plain text, plain text"[..], &packed] {
                let refused = encoding.decompress(bytes, 1000, &mut Vec::new()).expect_err("no data");
                assert_eq!(refused.code(), Code::InvalidArgument, "{encoding:?}");
            }
        }
    }

    /// A8 #90, #92.
    #[test]
    fn the_encoding_is_negotiated() {
        const NAME: HeaderName = HeaderName::from_static("grpc-accept-encoding");
        for (text, expected) in [
            ("", None),
            ("identity", None),
            ("deflate, snappy", None),
            ("identity,deflate,gzip", Some(Encoding::Gzip)),
            ("zstd, gzip", Some(Encoding::Zstd)),
            ("gzip;q=0.5, BR;q=0.9, zstd;q=0.9", Some(Encoding::Brotli)),
            ("gzip;q=0, br;q=0", None),
        ] {
            let headers = HeaderMap::from_iter([(NAME, HeaderValue::from_static(text))]);
            assert_eq!(Encoding::accepted(&headers, &NAME), expected, "{text}");
        }
        let refused = Encoding::parse("foo").expect_err("an unknown encoding");
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().contains("gzip, br, zstd"), "{refused}");
    }
}
