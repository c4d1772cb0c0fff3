//! Exec, attach and port-forward at a runtime that hands out URLs for them.
//!
//! Used by `RemoteCri`. Invariant: a URL is dialled as the runtime gave it, over plain TCP, as runtimes serve it on
//! loopback. Where the runtime speaks only `v4` of the protocol, the end of input cannot be told to it.

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

use crate::{
    CriError, Duplex, Result, Session, TerminalSize,
    channels::{self, CLOSE, ERROR, PROTOCOLS, RESIZE, STDERR, STDIN, STDOUT},
};

const CHUNK_BYTES: usize = 32 * 1024;
const WAITING_CHUNKS: usize = 32;

/// Connects; returns the protocol agreed on.
async fn dial(url: &str) -> Result<(WebSocketStream<TcpStream>, String)> {
    let wrong = |text: String| CriError::Unavailable(format!("streaming URL {url}: {text}"));
    let address = url.strip_prefix("http://").ok_or_else(|| wrong("only http is spoken".to_owned()))?;
    let host = address.split(['/', '?']).next().unwrap_or_default();
    // containerd says `[::]` or nothing at all when it listens on every address.
    let dialled = host.replace("[::]", "127.0.0.1").replace("0.0.0.0", "127.0.0.1");
    let mut request =
        format!("ws://{address}").into_client_request().map_err(|error| wrong(error.to_string()))?;
    let offered = PROTOCOLS.join(", ").parse().map_err(|_| wrong("protocols".to_owned()))?;
    request.headers_mut().insert("sec-websocket-protocol", offered);
    let stream = TcpStream::connect(&dialled).await.map_err(|error| wrong(error.to_string()))?;
    let config = WebSocketConfig::default().max_message_size(Some(channels::MAX_MESSAGE_BYTES));
    let (socket, response) = tokio_tungstenite::client_async_with_config(request, stream, Some(config))
        .await
        .map_err(|error| wrong(error.to_string()))?;
    let protocol = response.headers().get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
    Ok((socket, protocol.unwrap_or_default().to_owned()))
}

/// An exec or attach.
pub(crate) async fn session(url: &str, stdin: bool, stdout: bool, stderr: bool) -> Result<Session> {
    let (socket, protocol) = dial(url).await?;
    let (mut sink, mut source) = socket.split();
    let (ours, mut theirs) = tokio::io::duplex(CHUNK_BYTES);
    let (resize, mut sizes) = mpsc::channel::<TerminalSize>(4);
    let (to_stdout, out) = mpsc::channel(WAITING_CHUNKS);
    let (to_stderr, err) = mpsc::channel(WAITING_CHUNKS);
    let (ended, exit) = oneshot::channel::<Result<i32>>();
    let can_close = protocol == PROTOCOLS[0];
    let writer = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut open = stdin;
        loop {
            let message = tokio::select! {
                read = theirs.read(&mut buffer), if open => match read {
                    Ok(length @ 1..) => channels::message(STDIN, &buffer[..length]),
                    Ok(0) | Err(_) => {
                        open = false;
                        if !can_close {
                            continue;
                        }
                        channels::message(CLOSE, &[STDIN])
                    }
                },
                size = sizes.recv() => match size {
                    Some(size) => {
                        let text = format!("{{\"Width\":{},\"Height\":{}}}", size.width, size.height);
                        channels::message(RESIZE, text.as_bytes())
                    }
                    // The session was dropped.
                    None => return,
                },
            };
            if sink.send(message).await.is_err() {
                return;
            }
        }
    };
    let reader = async move {
        let mut code = Err(CriError::Unavailable("the runtime ended the session without a status".to_owned()));
        while let Some(Ok(message)) = source.next().await {
            match channels::parts(message) {
                // A reader that is gone does not end the other stream.
                Some((STDOUT, data)) if !data.is_empty() => drop(to_stdout.send(Ok(data)).await),
                Some((STDERR, data)) if !data.is_empty() => drop(to_stderr.send(Ok(data)).await),
                Some((ERROR, data)) if !data.is_empty() => {
                    code = channels::exit_code(&data);
                    break;
                }
                Some(_) | None => {}
            }
        }
        // The outputs end before the exit code is known, as the callers expect.
        drop((to_stdout, to_stderr));
        let _ = ended.send(code);
    };
    tokio::spawn(async move {
        tokio::select! {
            () = reader => {}
            () = writer => {}
        }
    });
    let stream = |receiver| tokio_stream::wrappers::ReceiverStream::new(receiver).boxed();
    let lost = || CriError::Unavailable("the session was ended".to_owned());
    Ok(Session {
        stdin: stdin.then(|| Box::new(ours) as Box<dyn tokio::io::AsyncWrite + Send + Unpin>),
        stdout: stdout.then(|| stream(out)),
        stderr: stderr.then(|| stream(err)),
        resize,
        exit: async move { exit.await.unwrap_or_else(|_| Err(lost())) }.boxed(),
    })
}

/// One port of a sandbox.
pub(crate) async fn forward(url: &str, port: u16) -> Result<Box<dyn Duplex>> {
    let separator = if url.contains('?') { '&' } else { '?' };
    let (socket, _) = dial(&format!("{url}{separator}port={port}")).await?;
    let (mut sink, mut source) = socket.split();
    let (ours, theirs) = tokio::io::duplex(CHUNK_BYTES);
    let (mut from_client, mut to_client) = tokio::io::split(theirs);
    tokio::spawn(async move {
        let outgoing = async {
            let mut buffer = vec![0; CHUNK_BYTES];
            while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                if sink.send(channels::message(0, &buffer[..length])).await.is_err() {
                    return;
                }
            }
            let _ = sink.send(Message::Close(None)).await;
        };
        let incoming = async {
            // The first message of each channel repeats the port.
            let mut greeted = [false; 2];
            while let Some(Ok(message)) = source.next().await {
                let Some((channel @ (0 | 1), data)) = channels::parts(message) else { continue };
                if !std::mem::replace(&mut greeted[usize::from(channel)], true) {
                    continue;
                }
                // Channel 1 says what went wrong; the connection then ends, which is all a byte pipe can tell.
                if channel == 1 || to_client.write_all(&data).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = outgoing => {}
            () = incoming => {}
        }
    });
    Ok(Box::new(ours))
}
