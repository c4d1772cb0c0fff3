//! exec and attach: one WebSocket, one byte of channel before each message.
//!
//! Channels: 0 stdin, 1 stdout, 2 stderr, 3 the final `Status`, 4 terminal sizes, 255 (v5) closes the channel it names.
//! The node's streams are bounded, and a message is taken from them only when the last one was written, so a slow client
//! slows the container down instead of filling memory.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use kube_client::node::{ByteStream, ExecRequest, ExecStreams, GatewayError, TerminalSize};
use kube_types::status;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::Socket;
use crate::call::{Call, Target};
use crate::error::{ApiError, ApiResult};
use crate::resources;
use crate::respond::Reply;
use crate::spdy;

const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

pub(crate) async fn serve(call: &Call, target: &Target) -> ApiResult<Reply> {
    let (pod, reference) = resources::placed_pod(call, target)?;
    let request = request(call, target, &pod, reference)?;
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        let what = if target.subresource == "exec" { "exec into" } else { "attach to" };
        let text = format!(
            "cannot {what} a container in a completed pod; current phase is {}",
            pod["status"]["phase"].as_str().unwrap_or_default()
        );
        return Err(status::bad_request(text).into());
    }
    let nodes = call.server.nodes()?;
    if spdy::is_asked(call) {
        let described = request.clone();
        let start = async move {
            if request.command.is_some() { nodes.exec(request).await } else { nodes.attach(request).await }
        };
        return spdy::exec::serve(call, &described, start);
    }
    // The handshake's own errors first: nothing is started for a client that cannot talk to it.
    let handshake = super::accept(call, &PROTOCOLS)?;
    let started = if request.command.is_some() { nodes.exec(request).await } else { nodes.attach(request).await };
    let user = call.user.name.clone();
    let name = format!("{}/{}", target.namespace, target.name);
    tracing::info!(user, pod = name, subresource = target.subresource, protocol = handshake.protocol, "session opened");
    let mut closing = call.server.closing();
    tokio::spawn(async move {
        let session = async {
            let socket = super::open(handshake.upgrade).await.map_err(|error| error.to_string())?;
            Box::pin(run(socket, started)).await.map_err(|error| error.to_string())
        };
        let result = tokio::select! {
            result = session => result,
            _ = closing.wait_for(|closing| *closing) => Ok(()),
        };
        if let Err(error) = result {
            tracing::debug!(error, "session ended");
        }
    });
    Ok(handshake.reply)
}

fn request(call: &Call, target: &Target, pod: &Value, reference: kube_client::node::PodRef) -> ApiResult<ExecRequest> {
    let query = &call.query;
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    let is_exec = target.subresource == "exec";
    if is_exec && command.is_empty() {
        return Err(status::bad_request("you must specify at least one command for the container").into());
    }
    let request = ExecRequest {
        pod: reference,
        container: resources::container(call, pod)?,
        command: is_exec.then_some(command),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        tty: query.flag("tty"),
    };
    if !(request.stdin || request.stdout || request.stderr) {
        return Err(status::bad_request("you must specify at least 1 of stdin, stdout, stderr").into());
    }
    Ok(request)
}

type Sink = SplitSink<Socket, Message>;

async fn send(sink: &mut Sink, channel: u8, data: &[u8]) -> Result<(), SocketError> {
    let mut message = BytesMut::with_capacity(data.len() + 1);
    message.put_u8(channel);
    message.put_slice(data);
    sink.send(Message::Binary(message.freeze())).await
}

/// One session, to its end.
async fn run(socket: Socket, started: Result<ExecStreams, GatewayError>) -> Result<(), SocketError> {
    let (mut sink, source) = socket.split();
    let streams = match started {
        Ok(streams) => streams,
        Err(error) => {
            let status = serde_json::to_vec(&ApiError::from(error).0).unwrap_or_default();
            send(&mut sink, ERROR, &status).await?;
            return super::close(&mut sink).await;
        }
    };
    let ExecStreams { stdin, stdout, stderr, resize, exit } = streams;
    let input = Input { stdin, resize };
    let output = async {
        for channel in [STDOUT, STDERR] {
            // An empty message on each channel tells the client that the session stands.
            send(&mut sink, channel, &[]).await?;
        }
        copy_output(&mut sink, stdout, stderr).await?;
        let status = final_status(exit.await);
        send(&mut sink, ERROR, status.to_string().as_bytes()).await?;
        super::close(&mut sink).await
    };
    tokio::select! {
        result = output => result,
        // The client left: dropping the streams ends the session on the node.
        () = input.follow(source) => Ok(()),
    }
}

async fn copy_output(
    sink: &mut Sink,
    stdout: Option<ByteStream>,
    stderr: Option<ByteStream>,
) -> Result<(), SocketError> {
    let tagged = |stream: Option<ByteStream>, channel: u8| {
        let stream = stream.unwrap_or_else(|| futures_util::stream::empty().boxed());
        stream.map(move |chunk| (channel, chunk))
    };
    let mut both = futures_util::stream::select(tagged(stdout, STDOUT), tagged(stderr, STDERR));
    while let Some((channel, chunk)) = both.next().await {
        match chunk {
            Ok(chunk) => send(sink, channel, &chunk).await?,
            Err(error) => tracing::debug!(%error, channel, "output ended early"),
        }
    }
    Ok(())
}

/// The last message of a session, from which clients take the exit code.
pub(crate) fn final_status(exit: Result<i32, GatewayError>) -> Value {
    match exit {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => {
            let status = ApiError::from(error);
            serde_json::to_value(&status.0).unwrap_or(Value::Null)
        }
    }
}

/// A size as clients write it: `{"Width":80,"Height":24}`.
#[derive(Deserialize)]
pub(crate) struct Size {
    #[serde(rename = "Width")]
    pub(crate) width: u16,
    #[serde(rename = "Height")]
    pub(crate) height: u16,
}

/// What the client can send to a session.
struct Input {
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    resize: Option<mpsc::Sender<TerminalSize>>,
}

impl Input {
    /// Until the client is gone.
    async fn follow(mut self, mut source: SplitStream<Socket>) {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(data) => self.take(&data).await,
                Message::Text(text) => self.take(&Bytes::from(text)).await,
                Message::Close(_) => return,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    async fn take(&mut self, message: &Bytes) {
        let Some((&channel, data)) = message.split_first() else {
            return;
        };
        match channel {
            STDIN => {
                if let Some(stdin) = &mut self.stdin
                    && (stdin.write_all(data).await.is_err() || stdin.flush().await.is_err())
                {
                    // The process closed its input; what else comes is dropped, as a pipe would.
                    self.stdin = None;
                }
            }
            RESIZE => {
                if let (Some(resize), Ok(size)) = (&self.resize, serde_json::from_slice::<Size>(data)) {
                    // Only the newest size matters: one that finds the queue full is followed by another.
                    resize.try_send(TerminalSize { width: size.width, height: size.height }).ok();
                }
            }
            CLOSE if data.first() == Some(&STDIN) => {
                if let Some(mut stdin) = self.stdin.take() {
                    stdin.shutdown().await.ok();
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_told_as_a_cause_of_the_final_status() {
        assert_eq!(final_status(Ok(0)), json!({"metadata": {}, "status": "Success"}));
        let failed = final_status(Ok(7));
        assert_eq!(failed["details"]["causes"], json!([{"reason": "ExitCode", "message": "7"}]));
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(final_status(Err(GatewayError::not_found("no such container")))["code"], 404);
    }
}
