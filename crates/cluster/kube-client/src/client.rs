//! The client: a transport and the rules for reading its answers.
//!
//! Made once by the binary's wiring (in-process) or from a kubeconfig; cloned freely.
//! Invariant: a failure status never reaches a caller as a success; answers are read up to a limit.

use crate::api::Object;
use crate::node::Duplex;
use crate::{Api, Body, ClientError};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use std::path::Path;
use std::sync::Arc;

/// A whole answer (a list of everything) may have this many bytes.
const ANSWER_BYTES: usize = 256 << 20;
pub(crate) const ERROR_BYTES: usize = 1 << 20;

/// Carries a request to an API server. The URI is the path and query only.
pub trait Transport: Send + Sync {
    fn call(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, ClientError>>;

    /// Sends a request that asks for another protocol (WebSocket) and hands over the connection once the server has
    /// switched. Only a transport with connections of its own can.
    fn upgrade(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<Box<dyn Duplex>, ClientError>> {
        let what = format!("{} cannot be upgraded over this transport", request.uri());
        Box::pin(async move { Err(ClientError::InvalidRequest(what)) })
    }
}

#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
}

impl Client {
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// HTTPS with what the file's current context says: server, CA, client certificate or token.
    pub fn from_kubeconfig(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let endpoint = crate::kubeconfig::load(path.as_ref())?;
        Ok(Self::new(Arc::new(crate::https::HttpsTransport::new(endpoint)?)))
    }

    /// Typed access to all namespaces (or to a cluster-wide kind); `.namespace(ns)` narrows it.
    pub fn api<K: Object>(&self) -> Api<K> {
        Api::new(self.clone())
    }

    /// The answer as it comes; a failure status becomes `ClientError::Status`.
    pub async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Body>, ClientError> {
        let answer = self.transport.call(request).await?;
        if answer.status().as_u16() < 400 {
            return Ok(answer);
        }
        let code = answer.status();
        let body = answer.into_body().collect(ERROR_BYTES).await.unwrap_or_default();
        Err(ClientError::Status(Box::new(read_status(code, &body))))
    }

    /// A connection that the server has switched to another protocol.
    pub async fn upgrade(&self, request: http::Request<Bytes>) -> Result<Box<dyn Duplex>, ClientError> {
        self.transport.upgrade(request).await
    }

    /// The whole answer.
    pub async fn fetch(&self, request: http::Request<Bytes>) -> Result<Bytes, ClientError> {
        self.send(request).await?.into_body().collect(ANSWER_BYTES).await
    }

    /// The events of a watch of any kind, each with its type; an ERROR event becomes the Status that it carries.
    pub async fn watch_raw(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<BoxStream<'static, Result<(String, serde_json::Value), ClientError>>, ClientError> {
        Ok(crate::watch::decode_raw(self.send(request).await?.into_body()))
    }

    /// A JSON answer.
    pub async fn raw(&self, request: http::Request<Bytes>) -> Result<serde_json::Value, ClientError> {
        let what = format!("{} {}", request.method(), request.uri());
        let body = self.fetch(request).await?;
        serde_json::from_slice(&body).map_err(|source| ClientError::Decode { what, source })
    }
}

/// The server's own Status, or one made of the HTTP status when something in between answered.
pub(crate) fn read_status(code: http::StatusCode, body: &Bytes) -> Status {
    let status: Option<Status> = serde_json::from_slice(body).ok();
    let mut status = status.unwrap_or_else(|| Status {
        message: Some(match std::str::from_utf8(body) {
            Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
            _ => code.to_string(),
        }),
        ..Status::default()
    });
    status.code.get_or_insert(i32::from(code.as_u16()));
    status
}
