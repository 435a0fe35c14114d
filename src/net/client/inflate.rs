//! Bodies that came compressed although they were not asked for so.

use std::io::{self, Write};

use bytes::buf::Writer;
use bytes::{Buf, BufMut, BytesMut};
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::reply::DRAIN;

/// What takes the compression off a body.
pub(super) struct Inflate {
    decoder: Decoder,
    /// What has arrived and was not inflated yet.
    pub(super) packed: BytesMut,
    is_empty: bool,
}

enum Decoder {
    Gzip(MultiGzDecoder<Writer<BytesMut>>),
    Zlib(ZlibDecoder<Writer<BytesMut>>),
}

// === impl Inflate ===

impl Inflate {
    /// The decoder for a body that came compressed although it was not asked for so.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let coding = headers.get(CONTENT_ENCODING)?.as_bytes();
        let sink = || BytesMut::new().writer();
        let decoder =
            if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
                Decoder::Gzip(MultiGzDecoder::new(sink()))
            } else if coding.eq_ignore_ascii_case(b"deflate") {
                Decoder::Zlib(ZlibDecoder::new(sink()))
            } else {
                return None;
            };
        Some(Self { decoder, packed: BytesMut::new(), is_empty: true })
    }

    /// Appends what has arrived, up to some 64 KiB: little can become a thousand times as much.
    pub(super) fn inflate(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        let before = into.len();
        while !self.packed.is_empty() && into.len() - before < DRAIN {
            let used = self.decoder.writer().write(&self.packed)?;
            if used == 0 {
                return Err(io::Error::other("something comes behind its end"));
            }
            self.is_empty = false;
            self.packed.advance(used);
            into.unsplit(self.decoder.plain().split());
        }
        if self.packed.is_empty() {
            self.decoder.writer().flush()?;
            into.unsplit(self.decoder.plain().split());
        }
        Ok(into.len() - before)
    }

    /// Nothing more comes: it must be whole, however the body was delimited.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let is_whole = match &mut self.decoder {
            _ if self.is_empty => true,
            Decoder::Gzip(decoder) => decoder.try_finish().is_ok(),
            // Behind its end it takes nothing more.
            Decoder::Zlib(decoder) => decoder.write(&[0]).is_ok_and(|used| used == 0),
        };
        if is_whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

// === impl Decoder ===

impl Decoder {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(decoder) => decoder,
            Self::Zlib(decoder) => decoder,
        }
    }

    /// What it has inflated.
    fn plain(&mut self) -> &mut BytesMut {
        match self {
            Self::Gzip(decoder) => decoder.get_mut().get_mut(),
            Self::Zlib(decoder) => decoder.get_mut().get_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use http::HeaderValue;

    use super::*;

    /// What a body of these pieces inflates to, and the most that came at once.
    fn inflated(coding: &'static str, pieces: &[&[u8]]) -> io::Result<(BytesMut, usize)> {
        let headers = [(CONTENT_ENCODING, HeaderValue::from_static(coding))];
        let mut inflate = Inflate::of(&headers.into_iter().collect()).unwrap();
        let (mut plain, mut most) = (BytesMut::new(), 0);
        for piece in pieces {
            inflate.packed.extend_from_slice(piece);
            while let more @ 1.. = inflate.inflate(&mut plain)? {
                most = most.max(more);
            }
        }
        inflate.finish().map(|()| (plain, most))
    }

    #[test]
    fn what_is_compressed_is_inflated_bit_by_bit_and_must_be_whole() {
        let zeros = vec![0; 16 << 20];
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&zeros).unwrap();
        zlib.write_all(&zeros).unwrap();
        for (coding, packed) in [("gzip", gzip.finish()), ("deflate", zlib.finish())] {
            let packed = packed.unwrap();
            let (plain, most) = inflated(coding, &[&packed]).unwrap();
            assert_eq!(plain, zeros, "{coding}");
            assert!(most < 4 * DRAIN, "{coding}: {most} bytes at once");
            let (left, right) = packed.split_at(packed.len() / 2);
            assert_eq!(inflated(coding, &[left, right]).unwrap().0, zeros);
            for lacking in [1, 4, 8, 20, packed.len() - 1] {
                let cut = &packed[..packed.len() - lacking];
                assert!(inflated(coding, &[cut]).is_err(), "{coding} without {lacking} bytes");
            }
            assert!(inflated(coding, &[]).unwrap().0.is_empty());
        }
    }

    #[test]
    fn gzip_may_come_in_several_members() {
        let member = |text: &str| {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(text.as_bytes()).unwrap();
            gzip.finish().unwrap()
        };
        let (first, second) = (member("one, "), member("two"));
        assert_eq!(&inflated("gzip", &[&first, &second]).unwrap().0[..], b"one, two");
        assert_eq!(&inflated("gzip", &[&[first, second].concat()]).unwrap().0[..], b"one, two");
    }
}
