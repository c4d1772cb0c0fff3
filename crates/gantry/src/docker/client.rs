//! The Engine API over its socket: requests, streams of JSON, hijacked connections.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// Where the engine listens. Every request takes a connection of its own: there are few, and some are hijacked.
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// `host`: DOCKER_HOST, when it is set; `socket`: the instance's own otherwise.
    pub(crate) fn new(host: Option<&str>, socket: &Path) -> Result<Self> {
        let socket = match host.filter(|host| !host.is_empty()) {
            None => socket.to_owned(),
            Some(host) => match host.strip_prefix("unix://") {
                Some(path) => PathBuf::from(path),
                None => bail!(
                    "DOCKER_HOST={host}: gantry's own docker verbs speak to unix sockets only; use the docker client for TCP"
                ),
            },
        };
        Ok(Self { socket })
    }

    /// Sends a request and returns the response as it begins, whatever its status.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.with_context(|| {
            format!(
                "Cannot connect to the engine at unix://{}. Is it running? Start it with `gantry up`",
                self.socket.display()
            )
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Owned by the response: it ends when the response and what was upgraded from it are gone.
        tokio::spawn(async move { connection.with_upgrades().await.ok() });
        sender.send_request(request).await.context("the engine closed the connection")
    }

    /// A request with a JSON body (or none) whose answer is JSON (or nothing). An error status becomes an error.
    pub(crate) async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let response = self.checked(request(method, path, body)?).await?;
        let bytes = response.into_body().collect().await?.to_bytes();
        if bytes.is_empty() {
            Ok(Value::Null)
        } else {
            serde_json::from_slice(&bytes).context("the engine's answer is not JSON")
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.json(Method::GET, path, None).await
    }

    /// Sends a request; an error status becomes an error with the engine's own message.
    pub(crate) async fn checked(&self, request: Request<Body>) -> Result<Response<Incoming>> {
        let response = self.send(request).await?;
        if response.status().is_success()
            || response.status() == StatusCode::NOT_MODIFIED
            || response.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            return Ok(response);
        }
        Err(failure(response).await)
    }

    /// Reads an answer that is a stream of JSON objects, one callback an object.
    pub(crate) async fn json_stream(
        &self,
        request: Request<Body>,
        mut each: impl FnMut(&Value) -> Result<()>,
    ) -> Result<()> {
        let mut body = self.checked(request).await?.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            pending.extend_from_slice(&data);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                if !line.trim_ascii().is_empty() {
                    each(&serde_json::from_slice(&line).context("the engine's progress is not JSON")?)?;
                }
            }
        }
        if pending.trim_ascii().is_empty() { Ok(()) } else { each(&serde_json::from_slice(&pending)?) }
    }

    /// Takes over a connection for attach and exec.
    pub(crate) async fn hijack(&self, path: &str, body: Option<&Value>) -> Result<hyper::upgrade::Upgraded> {
        let mut request = request(Method::POST, path, body)?;
        request.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(http::header::UPGRADE, http::HeaderValue::from_static("tcp"));
        let response = self.checked(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            bail!("the engine did not hand over the connection ({})", response.status());
        }
        Ok(hyper::upgrade::on(response).await?)
    }
}

/// A request to the engine.
pub(crate) fn request(method: Method, path: &str, body: Option<&Value>) -> Result<Request<Body>> {
    let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
    raw_request(method, path, "application/json", Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed())
}

pub(crate) fn raw_request(method: Method, path: &str, content_type: &str, body: Body) -> Result<Request<Body>> {
    Ok(Request::builder()
        .method(method)
        .uri(path)
        .header("host", "gantry")
        .header("content-type", content_type)
        .body(body)?)
}

async fn failure(response: Response<Incoming>) -> anyhow::Error {
    let status = response.status();
    let bytes = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let message =
        serde_json::from_slice::<Value>(&bytes).ok().and_then(|value| value["message"].as_str().map(str::to_owned));
    anyhow::anyhow!(
        "Error response from daemon: {}",
        message.unwrap_or_else(|| format!("{status}: {}", String::from_utf8_lossy(&bytes).trim()))
    )
}

/// Escapes a value for a query or a path's segment.
pub(crate) fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
