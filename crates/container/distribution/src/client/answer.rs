//! What a registry answers, bounded in size and in time, and failures in Docker's (Go's) words.

use std::error::Error as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::error::{Error, Result};

const MAX_ERROR_BYTES: usize = 64 << 10;

/// An answer, with the URL that gave it.
pub(super) struct Answer {
    pub(super) url: String,
    pub(super) response: Response<Incoming>,
    /// How long the next piece of the body is waited for.
    pub(super) idle: Duration,
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Whether the same request may be answered later.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.status(), 429 | 500 | 502 | 503 | 504)
    }

    /// The seconds of `Retry-After`; its other form, a date, is not used by registries.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.header("retry-after")?.trim().parse().ok().map(Duration::from_secs)
    }

    /// Turns every other status into an error, with the registry's own message.
    pub(super) async fn expect(self, statuses: &[u16]) -> Result<Self> {
        if statuses.contains(&self.status()) {
            return Ok(self);
        }
        let (status, url, limits) = (self.response.status(), self.url.clone(), self.limits());
        let body = self.bytes(MAX_ERROR_BYTES).await.unwrap_or_default();
        let message = error_message(&body);
        Err(match status.as_u16() {
            401 | 403 => Error::Unauthorized(message.unwrap_or_else(|| "authentication required".into())),
            429 => {
                let message = message.unwrap_or_else(|| "the registry takes no more requests for now".into());
                Error::TooManyRequests(format!("{message}{limits}"))
            }
            _ => Error::Status { url, status, detail: message.map(|m| format!(": {m}")).unwrap_or_default() },
        })
    }

    /// What the registry says of its limits: ` (limit 100;w=21600, remaining 0, again in 60 s)`.
    fn limits(&self) -> String {
        let named = |name: &str, words: &str| self.header(name).map(|value| format!("{words} {value}"));
        let told = [
            named("ratelimit-limit", "limit"),
            named("ratelimit-remaining", "remaining"),
            self.retry_after().map(|after| format!("again in {} s", after.as_secs())),
        ];
        let told: Vec<String> = told.into_iter().flatten().collect();
        if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
    }

    /// The next piece of the body; `None` at its end.
    pub(super) async fn data(&mut self) -> Result<Option<Bytes>> {
        let broken =
            |url: &str, reason: String| Error::Unreachable { method: Method::GET, url: url.to_owned(), reason };
        loop {
            match tokio::time::timeout(self.idle, self.response.body_mut().frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_trailers) => {}
                },
                Ok(Some(Err(_))) => return Err(broken(&self.url, "unexpected EOF".to_owned())),
                Err(_) => {
                    let reason = format!("the registry sent nothing for {} s", self.idle.as_secs_f32());
                    return Err(broken(&self.url, reason));
                }
            }
        }
    }

    /// The whole body, if it is not larger than `limit`.
    pub(super) async fn bytes(mut self, limit: usize) -> Result<Bytes> {
        let mut whole = BytesMut::new();
        while let Some(data) = self.data().await? {
            if whole.len() + data.len() > limit {
                let reason = format!("it is larger than {limit} bytes");
                return Err(Error::Answer { url: self.url, reason });
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }

    /// Where the registry wants the next request; relative ones are made whole.
    pub(super) fn location(&self) -> Option<String> {
        self.header("location").map(|l| absolute(&self.url, l))
    }
}

pub(super) fn absolute(base: &str, location: &str) -> String {
    if !location.starts_with('/') {
        return location.to_owned();
    }
    let end = base.find("://").and_then(|i| base[i + 3..].find('/').map(|j| i + 3 + j)).unwrap_or(base.len());
    format!("{}{location}", &base[..end])
}

/// `{"errors":[{"code":…,"message":…}]}`
fn error_message(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let first = value.get("errors")?.get(0)?;
    Some(first.get("message")?.as_str()?.to_owned())
}

/// In Docker's words, for the cases that people search for.
pub(super) fn unreachable(method: &Method, url: &str, error: &hyper_util::client::legacy::Error) -> Error {
    let authority = url.split('/').nth(2).unwrap_or(url);
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        reason = match inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(std::io::ErrorKind::ConnectionRefused) => {
                format!("dial tcp {authority}: connect: connection refused")
            }
            Some(std::io::ErrorKind::TimedOut) => format!("dial tcp {authority}: i/o timeout"),
            _ if text.contains("lookup") => format!("dial tcp: lookup {authority}: no such host"),
            _ if text.contains("UnknownIssuer") => {
                "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned()
            }
            _ if text.contains("connection closed before message completed") => "EOF".to_owned(),
            _ => text,
        };
        if reason.starts_with("dial tcp") || reason.starts_with("tls:") || reason == "EOF" {
            break;
        }
        cause = inner.source();
    }
    Error::Unreachable { method: method.clone(), url: url.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_made_whole_and_messages_read() {
        assert_eq!(absolute("http://a:5000/v2/x/", "/v2/y"), "http://a:5000/v2/y");
        assert_eq!(absolute("http://a/v2/", "https://b/z"), "https://b/z");
        let body = br#"{"errors":[{"code":"X","message":"too much"}]}"#;
        assert_eq!(error_message(body).as_deref(), Some("too much"));
        assert_eq!(error_message(b"<html>"), None);
    }
}
