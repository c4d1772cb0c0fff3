//! WebSockets of exec, attach and port-forward: the handshake, and framing over the upgraded connection.
//!
//! Subprotocols: `v5.channel.k8s.io` and `v4.channel.k8s.io`, and for port-forward SPDY in a tunnel. SPDY itself is in `spdy`.

pub(crate) mod exec;
pub(crate) mod forward;
mod tunnel;

use futures_util::{Sink, SinkExt as _};
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use kube_types::status;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use crate::body::Body;
use crate::call::Call;
use crate::error::ApiResult;
use crate::respond::Reply;

pub(crate) type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Larger messages end the connection; clients send at most 32 KiB at once.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// An accepted handshake: the answer to send, and the connection that will be there once it is sent.
pub(crate) struct Handshake {
    pub(crate) reply: Reply,
    pub(crate) upgrade: OnUpgrade,
    pub(crate) protocol: &'static str,
}

pub(crate) fn header<'a>(call: &'a Call, name: &http::HeaderName) -> &'a str {
    call.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

pub(crate) fn has_token(list: &str, wanted: &str) -> bool {
    list.split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted))
}

/// Agrees on the first of `supported` that the client offers.
pub(crate) fn accept(call: &Call, supported: &[&'static str]) -> ApiResult<Handshake> {
    let is_websocket =
        has_token(header(call, &CONNECTION), "upgrade") && has_token(header(call, &UPGRADE), "websocket");
    if !is_websocket {
        return Err(status::bad_request("Upgrade request required").into());
    }
    let key = header(call, &SEC_WEBSOCKET_KEY);
    if key.is_empty() || header(call, &SEC_WEBSOCKET_VERSION) != "13" {
        return Err(status::bad_request("unsupported WebSocket version").into());
    }
    let offered: Vec<&str> = call
        .headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let protocol = supported.iter().copied().find(|protocol| offered.contains(protocol));
    let Some(protocol) = protocol else {
        let text = format!("unable to negotiate protocol: client supports {offered:?}, server accepts {supported:?}");
        return Err(status::bad_request(text).into());
    };
    let upgrade = call.take_upgrade().ok_or_else(|| status::bad_request("this connection cannot be upgraded"))?;
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    let accepted = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(status::internal)?;
    headers.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    Ok(Handshake { reply, upgrade, protocol })
}

/// Ends a session in order. Clients take any other code than 1000 for a failure, and then lose what they have not read.
pub(crate) async fn close(sink: &mut (impl Sink<Message, Error = SocketError> + Unpin)) -> Result<(), SocketError> {
    sink.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await
}

/// The socket, once the 101 answer is out.
pub(crate) async fn open(upgrade: OnUpgrade) -> Result<Socket, hyper::Error> {
    let upgraded = upgrade.await?;
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES)).max_frame_size(Some(MAX_MESSAGE_BYTES));
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await)
}
