//! Streams on the wire: multiplexed output, lines of JSON, and bytes from blocking writers.

use std::io::{self, Write};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use engine::{Channel, Frame};
use futures_util::{Stream, StreamExt};
use http::{StatusCode, header};
use tokio::sync::mpsc;

use crate::error::ApiError;

/// Chunks between a producer and a slow client.
const BUFFERED: usize = 16;

/// Docker's frame: stream type, three zeros, length in big endian, payload.
pub(crate) fn multiplex(channel: Channel, data: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + data.len());
    frame.put_u8(match channel {
        Channel::Stdout => 1,
        Channel::Stderr => 2,
    });
    frame.put_bytes(0, 3);
    frame.put_u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
    frame.put_slice(data);
    frame.freeze()
}

/// A frame as it goes to the client: raw with a terminal, framed without.
pub(crate) fn encode(frame: &Frame, tty: bool) -> Bytes {
    if tty { frame.data.clone() } else { multiplex(frame.channel, &frame.data) }
}

/// The content type of an output stream.
pub(crate) fn content_type(tty: bool) -> &'static str {
    if tty { "application/vnd.docker.raw-stream" } else { "application/vnd.docker.multiplexed-stream" }
}

/// A streamed answer; headers are sent at once.
pub(crate) fn body(
    content_type: &str,
    stream: impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static,
) -> Response {
    let headers = [(header::CONTENT_TYPE, content_type.to_owned())];
    (StatusCode::OK, headers, Body::from_stream(stream)).into_response()
}

/// Lines of JSON from a channel, one value a line.
pub(crate) fn json_lines(mut receiver: mpsc::Receiver<String>) -> Response {
    let lines = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    body("application/json", lines.map(|line| Ok(Bytes::from(line + "\r\n"))))
}

/// A channel for [`json_lines`].
pub(crate) fn line_channel() -> (mpsc::Sender<String>, mpsc::Receiver<String>) {
    mpsc::channel(1024)
}

/// A blocking writer whose bytes are the body. Writing fails when the client is gone.
pub(crate) struct BodyWriter(mpsc::Sender<Result<Bytes, io::Error>>);

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone");
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a blocking writer and streams what it writes. A failure in the middle breaks the body off, so that the
/// client does not take a part for the whole.
pub(crate) fn blocking_body(
    content_type: &str,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ApiError> + Send + 'static,
) -> Response {
    let (sender, mut receiver) = mpsc::channel(BUFFERED);
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(64 << 10, BodyWriter(sender.clone()));
        let written = write(&mut out).and_then(|()| out.flush().map_err(ApiError::internal));
        if let Err(error) = written {
            let _ = sender.blocking_send(Err(io::Error::other(error.message)));
        }
    });
    body(content_type, futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)))
}

/// A request body as a blocking reader.
pub(crate) fn blocking_reader(body: Body) -> impl io::Read + Send {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, io::Error>>(BUFFERED);
    tokio::spawn(async move {
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            if sender.send(chunk.map_err(io::Error::other)).await.is_err() {
                return;
            }
        }
    });
    Reader { receiver, rest: Bytes::new() }
}

struct Reader {
    receiver: mpsc::Receiver<Result<Bytes, io::Error>>,
    rest: Bytes,
}

impl io::Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let n = self.rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_dockers_eight_byte_header() {
        assert_eq!(&multiplex(Channel::Stdout, b"hi")[..], b"\x01\0\0\0\0\0\0\x02hi");
        assert_eq!(&multiplex(Channel::Stderr, &[b'x'; 258])[..8], b"\x02\0\0\0\0\0\x01\x02");
    }
}
