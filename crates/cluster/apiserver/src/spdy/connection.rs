//! One SPDY connection: the client's streams as they are opened, and frames back to it.
//!
//! Invariant: memory is bounded. A stream that nobody drains stops the whole connection (as the protocol without windows
//! has it), and frames to the client wait for the client.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::frame::{Frame, FrameReader, FrameWriter, Headers, SpdyError};

const MAX_STREAMS: usize = 512;
const STREAM_QUEUE: usize = 16;
const FRAME_QUEUE: usize = 64;
/// So long the last frames may take to reach a client.
const DRAIN: Duration = Duration::from_secs(10);
const REFUSED_STREAM: u32 = 3;

/// What came in on a stream. The channel's end without a `Fin` is a reset, or the end of the connection.
pub(super) enum Input {
    Data(Bytes),
    Fin,
}

/// A stream that the client opened.
pub(super) struct Stream {
    pub(super) id: u32,
    headers: Headers,
    pub(super) input: mpsc::Receiver<Input>,
    pub(super) output: Output,
}

impl Stream {
    /// A header's value, empty when there is none. `name` is in lower case.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }
}

enum Outgoing {
    Reply(u32),
    Data { id: u32, fin: bool, data: Bytes },
    Reset(u32),
    Pong(u32),
}

/// The way back on one stream.
#[derive(Clone)]
pub(super) struct Output {
    id: u32,
    frames: mpsc::Sender<Outgoing>,
}

impl Output {
    /// False once the connection is gone.
    pub(super) async fn write(&self, data: Bytes) -> bool {
        data.is_empty() || self.frames.send(Outgoing::Data { id: self.id, fin: false, data }).await.is_ok()
    }

    /// Half-closes the stream.
    pub(super) async fn finish(&self) {
        self.frames.send(Outgoing::Data { id: self.id, fin: true, data: Bytes::new() }).await.ok();
    }
}

/// Runs a connection until `session` is done with its streams or the client is gone.
pub(super) async fn run<I, S, F>(io: I, session: S)
where
    I: AsyncRead + AsyncWrite + Send + 'static,
    S: FnOnce(mpsc::Receiver<Stream>) -> F,
    F: Future<Output = ()>,
{
    let (reader, writer) = tokio::io::split(io);
    let (frames, outgoing) = mpsc::channel(FRAME_QUEUE);
    let (opened, streams) = mpsc::channel(STREAM_QUEUE);
    // Ends when every sender is gone; aborted with this function.
    let mut writing = JoinSet::new();
    writing.spawn(write(writer, outgoing));
    let session = session(streams);
    tokio::select! {
        result = read(reader, frames, opened) => {
            if let Err(error) = result {
                tracing::debug!(%error, "SPDY connection ended");
            }
        }
        () = session => {}
    }
    tokio::time::timeout(DRAIN, writing.join_next()).await.ok();
}

async fn read(
    reader: impl AsyncRead + Unpin,
    frames: mpsc::Sender<Outgoing>,
    opened: mpsc::Sender<Stream>,
) -> Result<(), SpdyError> {
    let mut reader = FrameReader::new(reader);
    let mut inputs: HashMap<u32, mpsc::Sender<Input>> = HashMap::new();
    while let Some(frame) = reader.next().await? {
        match frame {
            Frame::Open { id, fin, headers } => {
                inputs.retain(|_, input| !input.is_closed());
                if inputs.len() >= MAX_STREAMS || inputs.contains_key(&id) {
                    frames.send(Outgoing::Reset(id)).await.ok();
                    continue;
                }
                let (input, received) = mpsc::channel(STREAM_QUEUE);
                if fin {
                    input.send(Input::Fin).await.ok();
                } else {
                    inputs.insert(id, input);
                }
                frames.send(Outgoing::Reply(id)).await.ok();
                let output = Output { id, frames: frames.clone() };
                if opened.send(Stream { id, headers, input: received, output }).await.is_err() {
                    // Nobody takes new streams any more; those that are open go on.
                    frames.send(Outgoing::Reset(id)).await.ok();
                }
            }
            Frame::Data { id, fin, data } => {
                if let Some(input) = inputs.get(&id) {
                    let mut open = data.is_empty() || input.send(Input::Data(data)).await.is_ok();
                    if fin {
                        input.send(Input::Fin).await.ok();
                        open = false;
                    }
                    if !open {
                        inputs.remove(&id);
                    }
                }
            }
            Frame::Reset { id } => {
                inputs.remove(&id);
            }
            // A ping of ours would come back with an even number; we send none.
            Frame::Ping { id } => {
                frames.send(Outgoing::Pong(id)).await.ok();
            }
            Frame::GoAway | Frame::Ignored => {}
        }
    }
    Ok(())
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> Result<(), SpdyError> {
    let mut made = FrameWriter::new()?;
    let mut last = 0;
    while let Some(frame) = outgoing.recv().await {
        let bytes = match frame {
            Outgoing::Reply(id) => {
                last = last.max(id);
                made.reply(id)?
            }
            Outgoing::Data { id, fin, data } => FrameWriter::data(id, fin, &data),
            Outgoing::Reset(id) => FrameWriter::reset(id, REFUSED_STREAM),
            Outgoing::Pong(id) => FrameWriter::pong(id),
        };
        writer.write_all(&bytes).await?;
        if outgoing.is_empty() {
            writer.flush().await?;
        }
    }
    writer.write_all(&FrameWriter::go_away(last)).await?;
    writer.flush().await?;
    writer.shutdown().await?;
    Ok(())
}
