use crate::{Api, Body, ClientError};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::path::Path;
use std::sync::Arc;

/// Carries a request to an API server.
pub trait Transport: Send + Sync {
    fn call(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, ClientError>>;
}

#[derive(Clone)]
pub struct Client { transport: Arc<dyn Transport> }

impl Client {
    pub fn new(transport: Arc<dyn Transport>) -> Self { Self { transport } }
    /// HTTPS with what the file's current context says: client certificate or token, CA.
    pub fn from_kubeconfig(_path: impl AsRef<Path>) -> Result<Self, ClientError> { todo!() }
    /// Typed access; `.namespace(ns)` narrows it.
    pub fn api<K>(&self) -> Api<K> { todo!() }
    /// The answer as it comes; a failure status becomes `ClientError::Status`.
    pub async fn send(&self, _request: http::Request<Bytes>) -> Result<http::Response<Body>, ClientError> { let _ = &self.transport; todo!() }
    /// A JSON answer.
    pub async fn raw(&self, _request: http::Request<Bytes>) -> Result<serde_json::Value, ClientError> { todo!() }
}
