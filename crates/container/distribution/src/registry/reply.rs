//! Answers, and failures in the specification's JSON (`{"errors":[{"code":…}]}`).

use bytes::Bytes;
use http::Response;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};

pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Failure {
    status: u16,
    pub(super) code: &'static str,
    message: String,
    range: Option<String>,
    challenge: Option<String>,
}

impl Failure {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), range: None, challenge: None }
    }

    /// 416, with how far the upload is.
    pub(super) fn out_of_order(offset: u64) -> Self {
        Self {
            range: Some(upload_range(offset)),
            ..Self::new(416, "BLOB_UPLOAD_INVALID", "chunk is not where the upload stands")
        }
    }

    /// 401, with what to answer it by.
    pub(super) fn unauthorized(challenge: String) -> Self {
        Self { challenge: Some(challenge), ..Self::new(401, "UNAUTHORIZED", "authentication required") }
    }

    pub(super) fn blob_unknown(digest: &oci::Digest) -> Self {
        Self::new(404, "BLOB_UNKNOWN", format!("blob unknown to registry: {digest}"))
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let body = serde_json::json!({"errors": [{"code": self.code, "message": self.message, "detail": null}]});
        let mut response = json(self.status, &body);
        if let Some(range) = self.range {
            set(&mut response, "range", &range);
        }
        if let Some(challenge) = self.challenge {
            set(&mut response, "www-authenticate", &challenge);
        }
        response
    }
}

impl From<content::Error> for Failure {
    fn from(error: content::Error) -> Self {
        match &error {
            content::Error::DigestMismatch { .. } => {
                Self::new(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            }
            content::Error::SizeMismatch { .. } => Self::new(400, "SIZE_INVALID", error.to_string()),
            content::Error::NoBlob(digest) => Self::blob_unknown(digest),
            _ => {
                tracing::error!(%error, "registry request failed");
                Self::new(500, "UNKNOWN", "internal error")
            }
        }
    }
}

/// Where an upload stands, in the protocol's inclusive form.
pub(super) fn upload_range(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn bytes(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn status(status: u16, headers: &[(&'static str, &str)]) -> Response<Body> {
    with_body(status, headers, empty())
}

pub(super) fn json(status: u16, value: &serde_json::Value) -> Response<Body> {
    let text = value.to_string();
    with_body(status, &[("content-type", "application/json"), ("content-length", &text.len().to_string())], bytes(text))
}

pub(super) fn with_body(status: u16, headers: &[(&'static str, &str)], body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        set(&mut response, name, value);
    }
    response
}

/// Values come from digests, numbers and validated names; one that cannot stand in a header is left out.
fn set(response: &mut Response<Body>, name: &'static str, value: &str) {
    if let Ok(value) = http::HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
