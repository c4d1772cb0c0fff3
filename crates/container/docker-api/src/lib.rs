//! Docker's Engine HTTP API over the engine.
//!
//! The binary calls [`serve`] with the unix socket's listener. Paths come with or without `/v1.24` … `/v1.50`.
//! Access to the socket equals root, as with Docker: the socket is 0600 in a 0700 directory.
//! This crate decides nothing about containers: it translates requests and answers, in Docker's shapes and words.

mod error;
mod filters;
mod hijack;
mod names;
mod routes;
mod server;
mod stream;
mod tcp;
mod version;
mod websocket;
mod wire;

use std::sync::Arc;

pub use error::ApiError;
pub use server::{router, serve};
pub use tcp::{TlsFiles, serve_tcp};

/// What the API serves.
#[derive(Clone)]
pub struct Backend {
    /// Containers, images, networks, volumes.
    pub engine: engine::Engine,
    /// `docker build`.
    pub builder: build::Builder,
    /// The same builder by BuildKit's protocol.
    pub buildkit: buildkit::BuildKit,
    /// What `/info` and `/version` say of this program.
    pub identity: Arc<Identity>,
}

/// What this program says of itself.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Gantry's own version.
    pub gantry_version: String,
    /// The commit it was built from.
    pub commit: String,
    /// A stable ID of this root.
    pub id: String,
    /// Registries that are spoken to without TLS.
    pub insecure_registries: Vec<String>,
    /// When this process started.
    pub started: jiff::Timestamp,
}
