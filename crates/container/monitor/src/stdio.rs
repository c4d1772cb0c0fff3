//! The streams of an attached process, on the engine's side.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
};

use crate::protocol::{self, HEADER, Kind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StdStream {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub stream: StdStream,
    pub data: Bytes,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// An attached client. Dropping both halves detaches; the process goes on.
#[derive(Debug)]
pub struct Attached {
    /// `Some` when stdin was asked for and the process has one. `shutdown()` is the half-close.
    pub stdin: Option<StdinWriter>,
    /// Ends when the process has exited and all its output was delivered.
    pub output: OutputStream,
}

/// Implements [`AsyncWrite`]; dropped, it leaves the process's input open as long as the output is attached.
#[derive(Debug)]
pub struct StdinWriter {
    socket: OwnedWriteHalf,
    /// A frame that was accepted and is not sent yet.
    pending: BytesMut,
    ended: bool,
}

/// One frame carries at most this much input.
const STDIN_FRAME: usize = 32 << 10;

impl StdinWriter {
    pub(crate) fn new(socket: OwnedWriteHalf) -> Self {
        StdinWriter { socket, pending: BytesMut::new(), ended: false }
    }

    fn queue(&mut self, kind: Kind, payload: &[u8]) {
        self.pending.extend_from_slice(&protocol::header(kind, payload.len()));
        self.pending.extend_from_slice(payload);
    }

    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.pending))?;
            self.pending.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StdinWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_pending(cx))?;
        let count = data.len().min(STDIN_FRAME);
        this.queue(Kind::Stdin, &data[..count]);
        // Accepted; what the socket does not take now goes before the next write.
        match this.poll_pending(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_pending(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ended {
            this.ended = true;
            this.queue(Kind::StdinEnd, &[]);
        }
        this.poll_pending(cx)
    }
}

/// A [`futures_util::Stream`] of `io::Result<Frame>`.
#[derive(Debug)]
pub struct OutputStream {
    socket: OwnedReadHalf,
    buffer: BytesMut,
    /// Keeps the connection whole when the caller does not write to the process.
    _unused_writer: Option<OwnedWriteHalf>,
}

impl OutputStream {
    pub(crate) fn new(socket: OwnedReadHalf, buffer: BytesMut, unused_writer: Option<OwnedWriteHalf>) -> Self {
        OutputStream { socket, buffer, _unused_writer: unused_writer }
    }

    fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let stream = match protocol::parse_header(*header) {
            Some((Kind::Stdout, length)) => (StdStream::Stdout, length),
            Some((Kind::Stderr, length)) => (StdStream::Stderr, length),
            Some((Kind::Stdin | Kind::StdinEnd | Kind::Request | Kind::Response, _)) | None => {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
        };
        let (stream, length) = stream;
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some(Frame { stream, data: self.buffer.split_to(length).freeze() }))
    }
}

impl futures_util::Stream for OutputStream {
    type Item = io::Result<Frame>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match this.next_frame() {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let mut space = [0; 16 << 10];
            let mut read = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut this.socket).poll_read(cx, &mut read)) {
                Ok(()) if read.filled().is_empty() => return Poll::Ready(None),
                Ok(()) => this.buffer.extend_from_slice(read.filled()),
                // A monitor that ended while something of ours was on its way to it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Poll::Ready(None);
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}
