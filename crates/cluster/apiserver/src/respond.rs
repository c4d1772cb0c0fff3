//! Making responses: the bytes of an object, a `Status`, a list, with warnings and compression.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY, WARNING};
use http::{HeaderMap, Response, StatusCode};
use kube_types::status::Status;
use serde::Serialize;

use crate::body::Body;
use crate::error::ApiError;
use crate::negotiate;

pub(crate) type Reply = Response<Body>;

/// Smaller answers are not worth the time of compressing them (the threshold is Kubernetes' own).
const GZIP_FROM_BYTES: usize = 128 * 1024;

pub(crate) fn with_type(code: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Body::full(bytes));
    *reply.status_mut() = code;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

pub(crate) fn json_bytes(code: StatusCode, bytes: impl Into<Bytes>) -> Reply {
    with_type(code, "application/json", bytes)
}

pub(crate) fn json(code: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(bytes) => json_bytes(code, bytes),
        Err(error) => failure(&kube_types::status::internal(error).into()),
    }
}

/// JSON, compressed when the client asked for that and it is large.
pub(crate) fn json_large(request: &HeaderMap, bytes: Bytes) -> Reply {
    if bytes.len() < GZIP_FROM_BYTES || !negotiate::accepts_gzip(request) {
        return json_bytes(StatusCode::OK, bytes);
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    let Ok(compressed) = encoder.write_all(&bytes).and_then(|()| encoder.finish()) else {
        return json_bytes(StatusCode::OK, bytes);
    };
    let mut reply = json_bytes(StatusCode::OK, compressed);
    reply.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    reply.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    reply
}

pub(crate) fn status(status: &Status) -> Reply {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = match serde_json::to_vec(status) {
        Ok(bytes) => json_bytes(code, bytes),
        Err(_) => with_type(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", Bytes::new()),
    };
    if let Some(seconds) =
        status.details.as_ref().map(|details| details.retry_after_seconds).filter(|&seconds| seconds > 0)
    {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}

pub(crate) fn failure(error: &ApiError) -> Reply {
    status(&error.0)
}

/// Adds `Warning: 299 - "text"`, which kubectl prints.
pub(crate) fn warn(reply: &mut Reply, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            reply.headers_mut().append(WARNING, value);
        }
    }
}

/// A stream of JSON documents that ends when it ends.
pub(crate) fn stream(
    content_type: &'static str,
    chunks: impl futures_util::Stream<Item = Bytes> + Send + 'static,
) -> Reply {
    let mut reply = Response::new(Body::stream(chunks));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}
