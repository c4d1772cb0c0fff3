//! SPDY/3.1's frames: what older clients of exec, attach and port-forward speak, and what newer ones tunnel in a WebSocket.
//!
//! Used by `connection`. Invariant: a frame larger than its limit, or headers that inflate to more than theirs, end the
//! connection before they are held in memory. All header blocks of a direction share one compression state, so each is
//! inflated, even of frames that mean nothing here (settings, window updates: Kubernetes' clients keep no windows).

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::dictionary;

const MAX_CONTROL_BYTES: usize = 64 << 10;
const MAX_DATA_BYTES: usize = 1 << 20;
const MAX_HEADERS_BYTES: usize = 64 << 10;
const VERSION: u16 = 3;
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

pub(super) type Headers = Vec<(String, String)>;

#[derive(Debug, thiserror::Error)]
pub(super) enum SpdyError {
    #[error("reading from the client: {0}")]
    Io(#[from] std::io::Error),
    #[error("SPDY frame of {size} bytes; at most {limit} are taken")]
    Size { size: usize, limit: usize },
    #[error("SPDY version {0} is not spoken here")]
    Version(u16),
    #[error("malformed SPDY {0}")]
    Malformed(&'static str),
}

/// What a client sends that means something here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Open { id: u32, fin: bool, headers: Headers },
    Data { id: u32, fin: bool, data: Bytes },
    Reset { id: u32 },
    Ping { id: u32 },
    GoAway,
    Ignored,
}

/// The client's frames, one after the other.
pub(super) struct FrameReader<R> {
    io: R,
    inflate: Decompress,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(io: R) -> Self {
        Self { io, inflate: Decompress::new(true) }
    }

    /// `None` at the end of the connection.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        let mut head = [0; 8];
        if self.io.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        self.io.read_exact(&mut head[1..]).await?;
        let size = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
        let is_control = head[0] & 0x80 != 0;
        let limit = if is_control { MAX_CONTROL_BYTES } else { MAX_DATA_BYTES };
        if size > limit {
            return Err(SpdyError::Size { size, limit });
        }
        let mut body = vec![0; size];
        self.io.read_exact(&mut body).await?;
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let fin = head[4] & FIN != 0;
        if !is_control {
            return Ok(Some(Frame::Data { id: first & 0x7fff_ffff, fin, data: body.into() }));
        }
        let version = u16::from_be_bytes([head[0] & 0x7f, head[1]]);
        if version != VERSION {
            return Err(SpdyError::Version(version));
        }
        self.control(u16::from_be_bytes([head[2], head[3]]), fin, &body).map(Some)
    }

    fn control(&mut self, kind: u16, fin: bool, body: &[u8]) -> Result<Frame, SpdyError> {
        let word = |at: usize| -> Result<u32, SpdyError> {
            let bytes = body.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            bytes.map(u32::from_be_bytes).ok_or(SpdyError::Malformed("control frame"))
        };
        Ok(match kind {
            SYN_STREAM => {
                let id = word(0)? & 0x7fff_ffff;
                let block = body.get(10..).ok_or(SpdyError::Malformed("SYN_STREAM"))?;
                Frame::Open { id, fin, headers: parse_headers(&inflate(&mut self.inflate, block)?)? }
            }
            SYN_REPLY | HEADERS => {
                inflate(&mut self.inflate, body.get(4..).ok_or(SpdyError::Malformed("HEADERS"))?)?;
                Frame::Ignored
            }
            RST_STREAM => Frame::Reset { id: word(0)? & 0x7fff_ffff },
            PING => Frame::Ping { id: word(0)? },
            GOAWAY => Frame::GoAway,
            _ => Frame::Ignored,
        })
    }
}

fn inflate(state: &mut Decompress, block: &[u8]) -> Result<Vec<u8>, SpdyError> {
    const BROKEN: SpdyError = SpdyError::Malformed("header compression");
    let mut out = Vec::with_capacity(4096);
    let mut rest = block;
    loop {
        let (taken, made) = (state.total_in(), out.len());
        let result = state.decompress_vec(rest, &mut out, FlushDecompress::Sync);
        let taken = usize::try_from(state.total_in() - taken).unwrap_or(rest.len()).min(rest.len());
        rest = &rest[taken..];
        match result {
            Err(error) if error.needs_dictionary().is_some() => {
                state.set_dictionary(dictionary::bytes()).map_err(|_| BROKEN)?;
                continue;
            }
            Err(_) | Ok(Status::StreamEnd) => return Err(BROKEN),
            Ok(Status::Ok | Status::BufError) => {}
        }
        if rest.is_empty() && out.len() < out.capacity() {
            return Ok(out);
        }
        if taken == 0 && made == out.len() && out.len() < out.capacity() {
            return Err(BROKEN);
        }
        if out.len() >= MAX_HEADERS_BYTES {
            return Err(SpdyError::Size { size: out.len(), limit: MAX_HEADERS_BYTES });
        }
        out.reserve(4096);
    }
}

/// Count, then each name and value with its length before it. Names in lower case.
fn parse_headers(block: &[u8]) -> Result<Headers, SpdyError> {
    const BROKEN: SpdyError = SpdyError::Malformed("headers");
    let mut rest = block;
    let number = |rest: &mut &[u8]| -> Result<usize, SpdyError> {
        let (bytes, after) = rest.split_first_chunk::<4>().ok_or(BROKEN)?;
        *rest = after;
        usize::try_from(u32::from_be_bytes(*bytes)).map_err(|_| BROKEN)
    };
    let mut headers = Vec::new();
    for _ in 0..number(&mut rest)? {
        let text = |rest: &mut &[u8]| -> Result<String, SpdyError> {
            let length = number(rest)?;
            let (bytes, after) = rest.split_at_checked(length).ok_or(BROKEN)?;
            *rest = after;
            Ok(String::from_utf8_lossy(bytes).into_owned())
        };
        let name = text(&mut rest)?.to_ascii_lowercase();
        headers.push((name, text(&mut rest)?));
    }
    Ok(headers)
}

/// Makes the server's frames.
pub(super) struct FrameWriter {
    deflate: Compress,
}

impl FrameWriter {
    pub(super) fn new() -> Result<Self, SpdyError> {
        let mut deflate = Compress::new(Compression::fast(), true);
        deflate.set_dictionary(dictionary::bytes()).map_err(|_| SpdyError::Malformed("header compression"))?;
        Ok(Self { deflate })
    }

    /// The answer that opens a stream: no headers of its own.
    pub(super) fn reply(&mut self, id: u32) -> Result<Bytes, SpdyError> {
        let mut body = id.to_be_bytes().to_vec();
        body.extend_from_slice(&self.block(&0u32.to_be_bytes())?);
        Ok(control(SYN_REPLY, 0, &body))
    }

    fn block(&mut self, plain: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut out = Vec::with_capacity(plain.len() + 64);
        let before = self.deflate.total_in();
        loop {
            let taken = usize::try_from(self.deflate.total_in() - before).unwrap_or(plain.len());
            self.deflate
                .compress_vec(&plain[taken..], &mut out, FlushCompress::Sync)
                .map_err(|_| SpdyError::Malformed("header compression"))?;
            if out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(256);
        }
    }

    pub(super) fn data(id: u32, fin: bool, data: &[u8]) -> Bytes {
        let mut frame = BytesMut::with_capacity(data.len() + 8);
        frame.put_u32(id & 0x7fff_ffff);
        frame.put_u32(u32::from(fin) << 24 | u32::try_from(data.len()).unwrap_or_default() & 0x00ff_ffff);
        frame.put_slice(data);
        frame.freeze()
    }

    pub(super) fn pong(id: u32) -> Bytes {
        control(PING, 0, &id.to_be_bytes())
    }

    pub(super) fn reset(id: u32, status: u32) -> Bytes {
        control(RST_STREAM, 0, &[id.to_be_bytes(), status.to_be_bytes()].concat())
    }

    pub(super) fn go_away(last: u32) -> Bytes {
        control(GOAWAY, 0, &[last.to_be_bytes(), 0u32.to_be_bytes()].concat())
    }
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(body.len() + 8);
    frame.put_u16(0x8000 | VERSION);
    frame.put_u16(kind);
    frame.put_u32(u32::from(flags) << 24 | u32::try_from(body.len()).unwrap_or_default() & 0x00ff_ffff);
    frame.put_slice(body);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's SYN_STREAM with these headers, compressed in the client's own state.
    fn open(writer: &mut FrameWriter, id: u32, headers: &[(&str, &str)]) -> Bytes {
        let mut plain = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut body = id.to_be_bytes().to_vec();
        body.extend_from_slice(&[0; 6]);
        body.extend_from_slice(&writer.block(&plain).unwrap());
        control(SYN_STREAM, 0, &body)
    }

    #[tokio::test]
    async fn streams_open_with_their_headers_and_carry_data_both_ways() {
        let mut client = FrameWriter::new().unwrap();
        let bytes = [
            open(&mut client, 1, &[("StreamType", "error"), ("port", "80")]),
            open(&mut client, 3, &[("streamtype", "data"), ("port", "80")]),
            FrameWriter::data(3, true, b"hello"),
            FrameWriter::reset(1, 5),
            FrameWriter::pong(7),
        ]
        .concat();
        let mut reader = FrameReader::new(bytes.as_slice());
        let headers =
            |kind: &str| vec![("streamtype".to_owned(), kind.to_owned()), ("port".to_owned(), "80".to_owned())];
        let mut expect = Vec::new();
        while let Some(frame) = reader.next().await.unwrap() {
            expect.push(frame);
        }
        assert_eq!(
            expect,
            [
                Frame::Open { id: 1, fin: false, headers: headers("error") },
                Frame::Open { id: 3, fin: false, headers: headers("data") },
                Frame::Data { id: 3, fin: true, data: Bytes::from_static(b"hello") },
                Frame::Reset { id: 1 },
                Frame::Ping { id: 7 },
            ]
        );
        let mut replies = FrameWriter::new().unwrap();
        let bytes = [replies.reply(1).unwrap(), replies.reply(3).unwrap()].concat();
        let mut reader = FrameReader::new(bytes.as_slice());
        assert_eq!(reader.next().await.unwrap(), Some(Frame::Ignored));
        assert_eq!(reader.next().await.unwrap(), Some(Frame::Ignored));
    }

    #[tokio::test]
    async fn hostile_frames_end_in_an_error() {
        let mut bomb = FrameWriter::new().unwrap();
        let huge = "x".repeat(1 << 20);
        let cases: [Bytes; 5] = [
            Bytes::from_static(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]),
            Bytes::from_static(&[0x80, 9, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]),
            control(SYN_STREAM, 0, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
            control(RST_STREAM, 0, &[0, 0]),
            open(&mut bomb, 1, &[("a", &huge)]),
        ];
        for bytes in cases {
            assert!(FrameReader::new(bytes.as_ref()).next().await.is_err(), "{bytes:?}");
        }
    }
}
