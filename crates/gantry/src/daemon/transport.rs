//! The in-process way to the API server: the same requests, authorisation and answers as over HTTPS, without the wire.

use std::sync::Arc;

use apiserver::{ApiServer, Identity};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryStreamExt};
use http_body_util::BodyExt;
use kube_client::{Body, ClientError, Transport};

/// Requests of one identity.
pub(crate) struct InProcess {
    server: Arc<ApiServer>,
    identity: Identity,
}

impl InProcess {
    pub(crate) fn new(server: Arc<ApiServer>, identity: Identity) -> Self {
        Self { server, identity }
    }
}

impl Transport for InProcess {
    fn call(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, ClientError>> {
        async move {
            let (method, uri) = (request.method().to_string(), request.uri().to_string());
            let answer = self.server.handle(self.identity.clone(), request).await;
            Ok(answer.map(|body| {
                Body::from_stream(body.into_data_stream().map_err(move |error| ClientError::Transport {
                    method: method.clone(),
                    uri: uri.clone(),
                    reason: error.to_string(),
                }))
            }))
        }
        .boxed()
    }
}
