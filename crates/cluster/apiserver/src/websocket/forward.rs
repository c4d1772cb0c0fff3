//! port-forward: SPDY in a tunnel (kubectl), SPDY itself, or `v5`/`v4.channel.k8s.io`, where for the n-th port of the query
//! channel 2n carries data and 2n+1 errors, and each channel begins with the port's number in two bytes, little-endian.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use kube_client::node::{Duplex, NodeGateway, PodRef};
use kube_types::status;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::Socket;
use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::resources;
use crate::respond::Reply;
use crate::spdy;

const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const PROTOCOLS: [&str; 3] = [TUNNEL, "v5.channel.k8s.io", "v4.channel.k8s.io"];
const CHUNK_BYTES: usize = 32 * 1024;
const MAX_PORTS: usize = 64;

pub(crate) async fn serve(call: &Call, target: &Target) -> ApiResult<Reply> {
    let (_, pod) = resources::placed_pod(call, target)?;
    let nodes = call.server.nodes()?;
    if spdy::is_asked(call) {
        return spdy::forward::serve(call, nodes, pod);
    }
    let handshake = super::accept(call, &PROTOCOLS)?;
    // In the tunnel each stream says its port.
    let tunnelled = handshake.protocol == TUNNEL;
    let ports = if tunnelled { Vec::new() } else { ports(call)? };
    let mut closing = call.server.closing();
    tokio::spawn(async move {
        let session = async {
            match super::open(handshake.upgrade).await {
                Ok(socket) if tunnelled => {
                    let (near, pump) = super::tunnel::open(socket);
                    Box::pin(async { tokio::join!(spdy::forward::run(near, nodes, pod), pump) }).await;
                }
                Ok(socket) => Box::pin(run(socket, &nodes, pod, &ports)).await,
                Err(error) => tracing::debug!(%error, "upgrade failed"),
            }
        };
        tokio::select! {
            () = session => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    });
    Ok(handshake.reply)
}

fn ports(call: &Call) -> ApiResult<Vec<u16>> {
    let texts = call.query.all("ports").flat_map(|list| list.split(','));
    let ports: Option<Vec<u16>> = texts.map(|text| text.parse().ok().filter(|&port| port > 0)).collect();
    match ports {
        Some(ports) if !ports.is_empty() && ports.len() <= MAX_PORTS => Ok(ports),
        _ => Err(status::bad_request("query parameter \"ports\" is required: a list of port numbers").into()),
    }
}

fn message(channel: usize, data: &[u8]) -> Option<Message> {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(u8::try_from(channel).ok()?);
    bytes.put_slice(data);
    Some(Message::Binary(bytes.freeze()))
}

async fn run(socket: Socket, nodes: &Arc<dyn NodeGateway>, pod: PodRef, ports: &[u16]) {
    let (mut sink, mut source) = socket.split();
    let (to_client, mut queue) = mpsc::channel::<Message>(16);
    let mut writers: Vec<Option<WriteHalf<Box<dyn Duplex>>>> = Vec::new();
    let mut readers = tokio::task::JoinSet::new();
    for (index, &port) in ports.iter().enumerate() {
        let (data, error) = (2 * index, 2 * index + 1);
        for channel in [data, error] {
            let Some(first) = message(channel, &port.to_le_bytes()) else {
                return;
            };
            if sink.send(first).await.is_err() {
                return;
            }
        }
        match nodes.port_forward(pod.clone(), port).await {
            Ok(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                writers.push(Some(writer));
                readers.spawn(read(reader, data, to_client.clone()));
            }
            Err(failure) => {
                writers.push(None);
                let text = failure.to_string();
                if let Some(text) = message(error, text.as_bytes())
                    && sink.send(text).await.is_err()
                {
                    return;
                }
            }
        }
    }
    drop(to_client);
    loop {
        tokio::select! {
            outgoing = queue.recv() => match outgoing {
                Some(outgoing) => {
                    if sink.send(outgoing).await.is_err() {
                        break;
                    }
                }
                // Every port is closed.
                None => break,
            },
            incoming = source.next() => match incoming {
                Some(Ok(Message::Binary(data))) => write(&mut writers, &data).await,
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    super::close(&mut sink).await.ok();
}

async fn read(mut reader: ReadHalf<Box<dyn Duplex>>, channel: usize, to_client: mpsc::Sender<Message>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = reader.read(&mut buffer).await {
        let Some(message) = message(channel, &buffer[..length]) else {
            return;
        };
        if to_client.send(message).await.is_err() {
            return;
        }
    }
}

async fn write(writers: &mut [Option<WriteHalf<Box<dyn Duplex>>>], message: &Bytes) {
    let Some((&channel, data)) = message.split_first() else {
        return;
    };
    if channel % 2 != 0 {
        return;
    }
    let Some(slot) = writers.get_mut(usize::from(channel / 2)) else {
        return;
    };
    if let Some(writer) = slot
        && writer.write_all(data).await.is_err()
    {
        *slot = None;
    }
}
