//! Attaching to a container's streams, before or after its start.
//!
//! `docker run` attaches first and starts then: such an attachment waits in the slot and is made when the
//! monitor exists and the program does not run yet, so no byte is missed.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::oneshot,
};

use crate::{
    Engine,
    error::{Error, Result},
    exec::{AttachOptions, Channel, Frame, Streams},
    record::Phase,
    table::{Pending, Slot},
};

/// Bytes of input held for a container that has not started.
const INPUT_BUFFER: usize = 64 * 1024;

impl Engine {
    /// Attaches to its streams.
    pub async fn attach_container(&self, name: &str, options: AttachOptions) -> Result<Streams> {
        let slot = self.find(name)?;
        self.container_event(&slot.record(), "attach", &[]);
        let options = AttachOptions { stdin: options.stdin && slot.record().config.open_stdin, ..options };
        match slot.phase() {
            Phase::Running(running) if running.paused => {
                Err(Error::Conflict(format!("container {} is paused, unpause the container before attach", slot.id)))
            }
            Phase::Running(_) => {
                let attached =
                    slot.handle()?.attach(monitor_options(options)).await.map_err(|e| Error::system("attach", e))?;
                Ok(direct(attached))
            }
            Phase::Restarting(_) => Err(Error::Conflict(format!(
                "container {} is restarting, wait until the container is running",
                slot.id
            ))),
            Phase::Created | Phase::Exited(_) => Ok(deferred(&slot, options)),
            Phase::Removing | Phase::Dead => Err(Error::NoSuchContainer(name.to_owned())),
        }
    }

    /// Wires the clients that attached before the start to the new monitor.
    pub(super) async fn attach_pending(&self, slot: &Arc<Slot>, handle: &monitor::Handle) {
        let waiting = std::mem::take(&mut slot.state().pending);
        for pending in waiting {
            if pending.ready.is_closed() {
                continue;
            }
            match handle.attach(monitor_options(pending.options)).await {
                Ok(attached) => drop(pending.ready.send(attached)),
                Err(error) => tracing::warn!(container = %slot.id, %error, "early attachment failed"),
            }
        }
    }

    /// Resizes its terminal.
    pub async fn resize_container(&self, name: &str, cols: u16, rows: u16) -> Result<()> {
        let slot = self.find(name)?;
        slot.handle()?.resize(cols, rows).await.map_err(|e| Error::system("resize", e))
    }

    /// Opens its log file anew, after somebody moved it.
    pub async fn reopen_log(&self, name: &str) -> Result<()> {
        let slot = self.find(name)?;
        slot.handle()?.reopen_log().await.map_err(|e| Error::system("reopen log", e))
    }
}

fn monitor_options(options: AttachOptions) -> monitor::AttachOptions {
    monitor::AttachOptions { stdin: options.stdin, stdout: options.stdout, stderr: options.stderr }
}

/// Streams of a monitor that is there.
pub(crate) fn direct(attached: monitor::Attached) -> Streams {
    let (writer, reader) = tokio::io::duplex(INPUT_BUFFER);
    let takes_input = attached.stdin.is_some();
    let stdin = takes_input.then(|| Box::new(writer) as Box<dyn tokio::io::AsyncWrite + Send + Unpin>);
    Streams { stdin, output: wire(attached, reader).boxed() }
}

/// Copies input in the background and answers the output. The half-close of the input is sent as such, and the
/// writer lives as long as the output: its drop would end the monitor's connection in both directions.
fn wire(attached: monitor::Attached, mut input: DuplexStream) -> impl futures_util::Stream<Item = Frame> + Send {
    let (attached_still, over) = oneshot::channel::<()>();
    if let Some(mut stdin) = attached.stdin {
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut input, &mut stdin).await;
            let _ = stdin.shutdown().await;
            let _ = over.await;
        });
    }
    frames(attached.output).inspect(move |_| {
        let _ = &attached_still;
    })
}

/// A connection that breaks ends the stream: the log has what was missed.
fn frames(output: monitor::OutputStream) -> impl futures_util::Stream<Item = Frame> + Send {
    output.take_while(|frame| std::future::ready(frame.is_ok())).filter_map(|frame| {
        std::future::ready(frame.ok().map(|frame| Frame {
            channel: match frame.stream {
                monitor::StdStream::Stdout => Channel::Stdout,
                monitor::StdStream::Stderr => Channel::Stderr,
            },
            data: frame.data,
        }))
    })
}

/// Streams that come to life with the container's start; they end without a byte when it fails.
fn deferred(slot: &Arc<Slot>, options: AttachOptions) -> Streams {
    let (ready, started) = oneshot::channel::<monitor::Attached>();
    slot.state().pending.push(Pending { options, ready });
    let (writer, reader) = tokio::io::duplex(INPUT_BUFFER);
    let output = async move {
        match started.await {
            Ok(attached) => wire(attached, reader).boxed(),
            Err(_) => futures_util::stream::empty().boxed(),
        }
    };
    let stdin = options.stdin.then(|| Box::new(writer) as Box<dyn tokio::io::AsyncWrite + Send + Unpin>);
    Streams { stdin, output: output.flatten_stream().boxed() }
}
