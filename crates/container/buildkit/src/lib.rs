//! BuildKit's protocol over Gantry's own builder: what `docker buildx build` and the integrated client speak.
//!
//! `docker-api` hands over connections that were upgraded to h2c: [`BuildKit::serve_grpc`] answers Control and the
//! gateway on one, [`BuildKit::serve_session`] turns another around and calls the services that the client offers (its
//! files, secrets, agents and credentials). Graph, cache and steps are those of the `build` crate: this crate decides
//! nothing about them. LLB definitions are not executed; the one frontend is `dockerfile.v0`.

mod attributes;
mod bridge;
mod client;
mod control;
mod export;
mod filesync;
mod io;
mod jobs;
mod modes;
mod outgoing;
mod progress;
mod session;
mod solve;

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1 as proto;
use http::HeaderMap;
use hyper::upgrade::Upgraded;

pub use solve::{Exporter, SolveSpec};

/// The server's half of the protocol. Cheap to clone.
#[derive(Clone)]
pub struct BuildKit {
    inner: Arc<Inner>,
}

struct Inner {
    builder: build::Builder,
    sessions: Arc<session::Sessions>,
    jobs: jobs::Jobs,
    /// What `buildx inspect` shows.
    version: String,
}

impl BuildKit {
    pub fn new(builder: build::Builder, version: &str) -> Self {
        let inner =
            Inner { builder, sessions: Arc::default(), jobs: jobs::Jobs::default(), version: version.to_owned() };
        Self { inner: Arc::new(inner) }
    }

    /// Serves Control and the gateway on a connection until its other end closes it.
    pub async fn serve_grpc(&self, connection: Upgraded) {
        control::serve(self.clone(), connection).await;
    }

    /// Holds a client's session until its connection ends. `headers` are those of the upgrade request.
    pub async fn serve_session(&self, connection: Upgraded, headers: &HeaderMap) {
        self.inner.sessions.serve(connection, headers).await;
    }

    /// A whole build for a client that does not speak Control (`POST /build?version=2`). Progress goes to `status`, one
    /// encoded `StatusResponse` a message; the exporter's answers are returned.
    pub async fn solve(
        &self,
        spec: SolveSpec,
        status: tokio::sync::mpsc::Sender<Vec<u8>>,
    ) -> Result<HashMap<String, String>, String> {
        solve::streamed(self, spec, status).await
    }

    /// Ends a build that is under way.
    pub fn cancel(&self, reference: &str) {
        self.inner.jobs.cancel(reference);
    }
}
