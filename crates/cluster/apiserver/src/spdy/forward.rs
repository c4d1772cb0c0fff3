//! port-forward over SPDY: for each local connection the client opens a pair of streams, `error` and `data`, with the port and a
//! request number among their headers. Over a connection of its own, or tunnelled in a WebSocket.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use kube_client::node::{Duplex, NodeGateway, PodRef};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connection::{self, Input, Output, Stream};
use crate::call::Call;
use crate::error::ApiResult;
use crate::respond::Reply;

const PROTOCOLS: [&str; 1] = ["portforward.k8s.io"];
const CHUNK_BYTES: usize = 32 * 1024;
/// Streams whose other half has not come.
const MAX_HALVES: usize = 256;

pub(crate) fn serve(call: &Call, nodes: Arc<dyn NodeGateway>, pod: PodRef) -> ApiResult<Reply> {
    let handshake = super::accept(call, &PROTOCOLS)?;
    let mut closing = call.server.closing();
    tokio::spawn(async move {
        let upgraded = match handshake.upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "upgrade failed"),
        };
        tokio::select! {
            () = run(upgraded, nodes, pod) => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    });
    Ok(handshake.reply)
}

/// All forwards of one connection, until the client leaves.
pub(crate) async fn run<I>(io: I, nodes: Arc<dyn NodeGateway>, pod: PodRef)
where
    I: AsyncRead + AsyncWrite + Send + 'static,
{
    connection::run(io, |opened| accept_pairs(opened, nodes, pod)).await;
}

async fn accept_pairs(mut opened: mpsc::Receiver<Stream>, nodes: Arc<dyn NodeGateway>, pod: PodRef) {
    let mut halves: HashMap<String, Stream> = HashMap::new();
    let mut forwards = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = opened.recv() => stream,
            Some(_) = forwards.join_next() => continue,
        };
        let Some(stream) = stream else { return };
        let request = request_of(&stream);
        let Some(other) = halves.remove(&request) else {
            if halves.len() >= MAX_HALVES {
                tracing::debug!("too many streams without their other half");
                return;
            }
            halves.insert(request, stream);
            continue;
        };
        let (data, error) = if stream.header("streamtype") == "data" { (stream, other) } else { (other, stream) };
        forwards.spawn(forward(data, error.output, Arc::clone(&nodes), pod.clone()));
    }
}

/// What the two streams of a forward share. Old clients send no number, but open the data stream right after the other.
fn request_of(stream: &Stream) -> String {
    match stream.header("requestid") {
        "" if stream.header("streamtype") == "data" => format!("#{}", stream.id.saturating_sub(2)),
        "" => format!("#{}", stream.id),
        request => request.to_owned(),
    }
}

async fn forward(data: Stream, error: Output, nodes: Arc<dyn NodeGateway>, pod: PodRef) {
    let (name, uid) = (pod.name.clone(), pod.uid.clone());
    let opened = match data.header("port").parse::<u16>() {
        Ok(port) if port > 0 => nodes.port_forward(pod, port).await.map_err(|failure| (port, failure.to_string())),
        Ok(_) | Err(_) => Err((0, format!("invalid port {:?}", data.header("port")))),
    };
    match opened {
        Ok(pipe) => copy(data, pipe).await,
        Err((port, failure)) => {
            let text = format!("error forwarding port {port} to pod {name}, uid {uid}: {failure}");
            error.write(text.into()).await;
            data.output.finish().await;
        }
    }
    error.finish().await;
}

async fn copy(data: Stream, pipe: Box<dyn Duplex>) {
    let Stream { mut input, output, .. } = data;
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let up = async {
        loop {
            match input.recv().await {
                Some(Input::Data(data)) => {
                    if writer.write_all(&data).await.is_err() || writer.flush().await.is_err() {
                        break;
                    }
                }
                Some(Input::Fin) => {
                    writer.shutdown().await.ok();
                    break;
                }
                None => return,
            }
        }
        // The other direction decides when the forward is over.
        std::future::pending::<()>().await;
    };
    let down = async {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            if !output.write(Bytes::copy_from_slice(&buffer[..length])).await {
                return;
            }
        }
        output.finish().await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
