//! The API server as a `kube_client` transport: Gantry's own parts reach it by a function call, as a fixed user, through the
//! same authorisation and admission as everybody.
//!
//! It does not carry upgrades: who wants exec or port-forward uses the listener.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use kube_client::{ClientError, Transport};

use crate::identity::Identity;
use crate::server::ApiServer;

/// Requests of one user to the server in this process.
pub struct InProcess {
    server: Arc<ApiServer>,
    user: Identity,
}

impl InProcess {
    #[must_use]
    pub fn new(server: Arc<ApiServer>, user: Identity) -> Self {
        Self { server, user }
    }
}

impl Transport for InProcess {
    fn call(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<kube_client::Body>, ClientError>> {
        async move {
            let reply = self.server.handle(self.user.clone(), request).await;
            Ok(reply.map(|body| kube_client::Body::from_stream(body.into_stream().map(Ok))))
        }
        .boxed()
    }
}
