//! Pulling from and pushing to registries.
//!
//! One [`Client`] a process: it shares connections, and two pulls of the same layer fetch it once. Progress goes to a
//! callback as typed events; how they are drawn is `docker-api`'s business.

mod answer;
mod auth;
mod hosts;
mod pull;
mod push;
mod remote;
mod tls;
mod transport;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use oci::{Digest, ImageId, Platform, Reference};

use crate::error::{Error, Result};

pub use hosts::{Hosts, Mirror, Patience};
pub(crate) use push::original_manifest;
pub use remote::{Download, Hit, Remote};

/// Credentials, as `X-Registry-Auth` carries them. Empty fields are not given.
#[derive(Clone, Default)]
pub struct Auth {
    pub username: String,
    pub password: String,
    /// An OAuth2 refresh token from an earlier login.
    pub identity_token: String,
    /// A bearer token to be sent as it is.
    pub registry_token: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What happens, as it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// `id` is the layer's 12-character name.
    Layer { id: String, state: LayerState },
    /// A line of text, such as `Digest: sha256:…`; `id` is printed before it (`latest: Pulling from library/nginx`).
    Status { id: Option<String>, message: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerState {
    PullingFsLayer,
    Waiting,
    Downloading { current: u64, total: u64 },
    VerifyingChecksum,
    DownloadComplete,
    Extracting { current: u64, total: u64 },
    PullComplete,
    AlreadyExists,
    Preparing,
    Pushing { current: u64, total: u64 },
    Pushed,
    LayerAlreadyExists,
    MountedFrom(String),
}

/// Where progress goes. Called often; must not block.
pub type Sink = Arc<dyn Fn(Progress) + Send + Sync>;

/// What a push made.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// The manifest's digest and size.
    pub digest: Digest,
    pub size: u64,
}

/// The registry client. A handle: clones share everything.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    content: content::Store,
    snapshots: snapshots::Snapshots,
    transport: transport::Transport,
    /// One fetch at a time for each blob.
    fetching: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl Client {
    /// `insecure`: registries (`host:port`) that are spoken to without TLS. Loopback ones always are.
    pub fn new(content: content::Store, snapshots: snapshots::Snapshots, insecure: Vec<String>) -> Self {
        Self::with_hosts(content, snapshots, Hosts { insecure, ..Hosts::default() })
    }

    pub fn with_hosts(content: content::Store, snapshots: snapshots::Snapshots, hosts: Hosts) -> Self {
        let transport = transport::Transport::new(hosts);
        Self { shared: Arc::new(Shared { content, snapshots, transport, fetching: Mutex::default() }) }
    }

    /// Fetches an image, unpacks it, and names it. `reference` without tag or digest means `latest`.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        auth: Option<&Auth>,
        progress: Sink,
    ) -> Result<ImageId> {
        Box::pin(pull::pull(&self.shared, reference, platform, auth, progress)).await
    }

    /// Sends the image of this name. What the registry has already is not sent.
    pub async fn push(&self, reference: &Reference, auth: Option<&Auth>, progress: Sink) -> Result<Pushed> {
        Box::pin(push::push(&self.shared, reference, auth, progress)).await
    }

    /// Checks credentials against a registry (`docker login`).
    pub async fn login(&self, registry: &str, auth: &Auth) -> Result<()> {
        let host = registry.split('/').next().unwrap_or_default();
        let domain = if matches!(host, "" | "index.docker.io") { "docker.io" } else { host };
        let endpoint = self.shared.transport.hosts().registry(domain, "");
        let session = self.shared.transport.session(&endpoint, None, Some(auth)).await?;
        let answer = session.get("/v2/", &[]).await?;
        match answer.response.status() {
            http::StatusCode::OK => Ok(()),
            status => Err(Error::Login { url: answer.url, status }),
        }
    }

    /// What a registry has under a name, without pulling it.
    pub async fn inspect(&self, reference: &Reference, auth: Option<&Auth>) -> Result<Remote> {
        Box::pin(remote::inspect(&self.shared, reference, auth)).await
    }

    /// Every tag of a repository.
    pub async fn tags(&self, reference: &Reference, auth: Option<&Auth>) -> Result<Vec<String>> {
        Box::pin(remote::tags(&self.shared, reference, auth)).await
    }

    /// Begins to read what lies at an address (`docker import URL`).
    pub async fn open_url(&self, url: &str) -> Result<Download> {
        Box::pin(remote::open_url(&self.shared, url)).await
    }

    /// Asks Docker Hub, or the registry that `term` begins with, for repositories.
    pub async fn search(&self, term: &str, limit: usize, auth: Option<&Auth>) -> Result<Vec<Hit>> {
        Box::pin(remote::search(&self.shared, term, limit, auth)).await
    }
}

impl Shared {
    fn fetch_lock(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = fetching.get(digest).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        fetching.insert(*digest, Arc::downgrade(&lock));
        lock
    }
}
