//! exec and attach over SPDY: one stream for each of error, stdin, stdout, stderr and resize, named by `streamtype`.
//!
//! The end is told on the error stream: a `Status` for v4 of the protocol, a line of text for those before it.

use std::time::Duration;

use futures_util::StreamExt as _;
use hyper_util::rt::TokioIo;
use kube_client::node::{ByteStream, ExecRequest, ExecStreams, GatewayError, TerminalSize};
use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::connection::{self, Input, Output, Stream};
use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::respond::Reply;
use crate::websocket::exec::{Size, final_status};

const PROTOCOLS: [&str; 4] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// So long a client may take to open its streams.
const OPENING: Duration = Duration::from_secs(30);
/// A terminal size is some 30 bytes.
const MAX_SIZE_BYTES: usize = 1024;

/// Upgrades, then runs the session that `start` begins.
pub(crate) fn serve<F>(call: &Call, request: &ExecRequest, start: F) -> ApiResult<Reply>
where
    F: Future<Output = Result<ExecStreams, GatewayError>> + Send + 'static,
{
    let handshake = super::accept(call, &PROTOCOLS)?;
    let wanted = Wanted::of(request, handshake.protocol);
    let mut closing = call.server.closing();
    tokio::spawn(async move {
        let upgraded = match handshake.upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "upgrade failed"),
        };
        let session = connection::run(upgraded, |opened| session(opened, wanted, start));
        tokio::select! {
            () = session => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    });
    Ok(handshake.reply)
}

/// Which streams the client will open.
struct Wanted {
    names: Vec<&'static str>,
    status_as_json: bool,
}

impl Wanted {
    fn of(request: &ExecRequest, protocol: &str) -> Self {
        let resize = request.tty && matches!(protocol, "v4.channel.k8s.io" | "v3.channel.k8s.io");
        let all = [
            ("error", true),
            ("stdin", request.stdin),
            ("stdout", request.stdout),
            ("stderr", request.stderr && !request.tty),
            ("resize", resize),
        ];
        Self {
            names: all.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect(),
            status_as_json: protocol == "v4.channel.k8s.io",
        }
    }
}

async fn session(
    mut opened: mpsc::Receiver<Stream>,
    wanted: Wanted,
    start: impl Future<Output = Result<ExecStreams, GatewayError>>,
) {
    let Ok(Some(mut streams)) = tokio::time::timeout(OPENING, collect(&mut opened, &wanted)).await else {
        return tracing::debug!("the client did not open its streams in time");
    };
    let mut take = |name: &str| {
        let at = streams.iter().position(|stream| stream.header("streamtype") == name)?;
        Some(streams.swap_remove(at))
    };
    let Some(error) = take("error") else { return };
    let (stdin, stdout, stderr, resize) = (take("stdin"), take("stdout"), take("stderr"), take("resize"));
    let end = match start.await {
        Ok(running) => {
            let input = follow_input(stdin, running.stdin);
            let sizes = follow_sizes(resize, running.resize);
            let output = async {
                tokio::join!(
                    copy(running.stdout, stdout.map(|stream| stream.output)),
                    copy(running.stderr, stderr.map(|stream| stream.output))
                );
                final_status(running.exit.await)
            };
            let input = async {
                tokio::join!(input, sizes);
                // Input may end long before the command does.
                std::future::pending::<()>().await;
            };
            tokio::select! {
                end = output => end,
                () = input => return,
            }
        }
        Err(failure) => serde_json::to_value(&ApiError::from(failure).0).unwrap_or(Value::Null),
    };
    tell_end(&error.output, &end, wanted.status_as_json).await;
}

async fn tell_end(error: &Output, end: &Value, as_json: bool) {
    let failed = end["status"] != "Success";
    let text = if as_json { end.to_string() } else { end["message"].as_str().unwrap_or_default().to_owned() };
    if as_json || failed {
        error.write(text.into()).await;
    }
    error.finish().await;
}

async fn collect(opened: &mut mpsc::Receiver<Stream>, wanted: &Wanted) -> Option<Vec<Stream>> {
    let mut streams: Vec<Stream> = Vec::new();
    while !wanted.names.iter().all(|name| streams.iter().any(|stream| stream.header("streamtype") == *name)) {
        if streams.len() > 8 {
            return None;
        }
        streams.push(opened.recv().await?);
    }
    Some(streams)
}

async fn copy(from: Option<ByteStream>, to: Option<Output>) {
    if let (Some(mut from), Some(to)) = (from, &to) {
        while let Some(chunk) = from.next().await {
            match chunk {
                Ok(chunk) => {
                    if !to.write(chunk).await {
                        return;
                    }
                }
                Err(error) => tracing::debug!(%error, "output ended early"),
            }
        }
    }
    if let Some(to) = to {
        to.finish().await;
    }
}

async fn follow_input(stream: Option<Stream>, stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    let (Some(mut stream), Some(mut stdin)) = (stream, stdin) else { return };
    while let Some(Input::Data(data)) = stream.input.recv().await {
        if stdin.write_all(&data).await.is_err() || stdin.flush().await.is_err() {
            // The process closed its input; what else comes is dropped, as a pipe would.
            while let Some(Input::Data(_)) = stream.input.recv().await {}
            return;
        }
    }
    stdin.shutdown().await.ok();
}

async fn follow_sizes(stream: Option<Stream>, sizes: Option<mpsc::Sender<TerminalSize>>) {
    let (Some(mut stream), Some(sizes)) = (stream, sizes) else { return };
    let mut text = Vec::new();
    while let Some(Input::Data(data)) = stream.input.recv().await {
        text.extend_from_slice(&data);
        let mut parsed = serde_json::Deserializer::from_slice(&text).into_iter::<Size>();
        while let Some(Ok(size)) = parsed.next() {
            // Only the newest size matters: one that finds the queue full is followed by another.
            sizes.try_send(TerminalSize { width: size.width, height: size.height }).ok();
        }
        let done = parsed.byte_offset();
        text.drain(..done);
        if text.len() > MAX_SIZE_BYTES {
            return;
        }
    }
}
