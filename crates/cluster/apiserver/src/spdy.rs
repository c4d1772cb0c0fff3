//! SPDY/3.1 for exec, attach and port-forward: as an upgrade of its own (clients before kubectl 1.31, most client
//! libraries), and inside a WebSocket (`SPDY/3.1+portforward.k8s.io`, which `kubectl port-forward` speaks).
//!
//! Called by the handlers in `websocket`, which decide what a request is about before any protocol is chosen.

mod connection;
mod dictionary;
pub(crate) mod exec;
pub(crate) mod forward;
mod frame;

use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use kube_types::status;

use crate::body::Body;
use crate::call::Call;
use crate::error::ApiResult;
use crate::websocket::{Handshake, has_token, header};

const PROTOCOL: &str = "SPDY/3.1";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// Whether the client asks for a SPDY connection.
pub(crate) fn is_asked(call: &Call) -> bool {
    has_token(header(call, &CONNECTION), "upgrade") && has_token(header(call, &UPGRADE), PROTOCOL)
}

/// Agrees on the first of `supported` that the client offers; who offers nothing speaks the last and oldest.
fn accept(call: &Call, supported: &[&'static str]) -> ApiResult<Handshake> {
    let offered: Vec<&str> = call
        .headers
        .get_all(&STREAM_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let agreed = match offered.as_slice() {
        [] => supported.last().copied(),
        _ => supported.iter().copied().find(|protocol| offered.contains(protocol)),
    };
    let Some(protocol) = agreed else {
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {supported:?}"
        );
        return Err(status::bad_request(text).into());
    };
    let upgrade = call.take_upgrade().ok_or_else(|| status::bad_request("this connection cannot be upgraded"))?;
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    Ok(Handshake { reply, upgrade, protocol })
}
