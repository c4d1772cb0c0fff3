//! Attaching over a WebSocket: binary messages both ways, raw, standard output and error together.
//!
//! Called by the attach route. The handshake is checked before the container is touched.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use engine::Streams;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::{
    error::{ApiError, Result},
    hijack::{Escape, Look, OnDetach, wanted},
};

/// Larger messages end the connection.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The value that proves that this server speaks the protocol.
pub(crate) struct Handshake(HeaderValue);

/// Checks what the client asks for.
pub(crate) fn accept(headers: &HeaderMap) -> Result<Handshake> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !text(header::UPGRADE).eq_ignore_ascii_case("websocket") {
        return Err(ApiError::bad_request("not a WebSocket request: its Upgrade header must say websocket"));
    }
    let key = text(header::SEC_WEBSOCKET_KEY);
    if key.is_empty() || text(header::SEC_WEBSOCKET_VERSION) != "13" {
        return Err(ApiError::bad_request("unsupported WebSocket version: 13 is served"));
    }
    derive_accept_key(key.as_bytes()).parse().map(Handshake).map_err(ApiError::internal)
}

/// Answers with the streams.
pub(crate) fn answer(
    mut request: Request<Body>,
    handshake: Handshake,
    streams: Streams,
    look: Look,
    on_detach: OnDetach,
) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => {
                let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES));
                let io = TokioIo::new(connection);
                let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
                pump(socket, streams, look, on_detach).await;
            }
            Err(error) => tracing::debug!(%error, "upgrade failed"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, handshake.0);
    response
}

async fn pump(
    socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    mut streams: Streams,
    look: Look,
    on_detach: OnDetach,
) {
    let (mut to_client, mut from_client) = socket.split();
    let mut stdin = streams.stdin.take();
    let mut escape = Escape::new(if look.tty { &look.detach_keys } else { &[] });
    let output = async {
        while let Some(frame) = streams.output.next().await {
            if wanted(&look, &frame) && to_client.send(Message::Binary(frame.data)).await.is_err() {
                return;
            }
        }
        let _ = to_client.send(Message::Close(None)).await;
    };
    let input = async {
        while let Some(Ok(message)) = from_client.next().await {
            if message.is_close() {
                break;
            }
            let (Message::Binary(_) | Message::Text(_)) = message else { continue };
            let (typed, detach) = escape.pass(&message.into_data());
            if let Some(stdin) = &mut stdin
                && (stdin.write_all(&typed).await.is_err() || stdin.flush().await.is_err())
            {
                break;
            }
            if detach {
                on_detach();
                break;
            }
        }
    };
    tokio::select! {
        () = output => {}
        () = input => {}
    }
}
