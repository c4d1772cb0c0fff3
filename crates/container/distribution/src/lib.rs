//! OCI distribution protocol: pull and push (client), registry (server).
#![expect(clippy::todo, reason = "signatures first; filled in within the hour")]
#[derive(Debug, thiserror::Error)]
#[error("todo")]
pub struct Error;
pub type Result<T, E = Error> = std::result::Result<T, E>;
pub mod client {
    use super::Result;
    use oci::{Digest, ImageId, Platform, Reference};
    use std::sync::Arc;
    #[derive(Clone, Debug, Default)]
    pub struct Auth {
        pub username: String,
        pub password: String,
        pub identity_token: String,
        pub registry_token: String,
    }
    #[derive(Clone, Debug)]
    pub enum Progress {
        /// `id` is the 12-character layer id that docker prints.
        Layer { id: String, state: LayerState },
        /// Lines such as `Digest: sha256:…`, `Status: Downloaded newer image for …`, `Pulling from library/x` (with id = tag).
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
    pub type Sink = Arc<dyn Fn(Progress) + Send + Sync>;
    #[derive(Clone)]
    pub struct Client(#[expect(dead_code, reason = "signatures first")] snapshots::Snapshots);
    #[derive(Clone, Debug)]
    pub struct Pushed {
        pub digest: Digest,
        pub size: u64,
    }
    impl Client {
        pub fn new(
            _content: content::Store,
            snapshots: snapshots::Snapshots,
            _insecure: Vec<String>,
        ) -> Self {
            Self(snapshots)
        }
        pub async fn pull(
            &self,
            _reference: &Reference,
            _platform: Option<&Platform>,
            _auth: Option<&Auth>,
            _progress: Sink,
        ) -> Result<ImageId> {
            todo!()
        }
        pub async fn push(
            &self,
            _reference: &Reference,
            _auth: Option<&Auth>,
            _progress: Sink,
        ) -> Result<Pushed> {
            todo!()
        }
        /// GET /v2/ with the credentials (docker login); the identity token if one was given.
        pub async fn login(&self, _registry: &str, _auth: &Auth) -> Result<Option<String>> {
            todo!()
        }
    }
}
pub mod registry {
    use super::Result;
    #[derive(Clone)]
    pub struct Registry(#[expect(dead_code, reason = "signatures first")] content::Store);
    impl Registry {
        pub fn open(content: content::Store) -> Result<Self> {
            Ok(Self(content))
        }
        pub async fn serve(self, _listener: tokio::net::TcpListener) -> Result<()> {
            todo!()
        }
    }
}
pub mod archive {
    use super::Result;
    use oci::{ImageId, Reference};
    use std::io::{Read, Write};
    /// docker-archive + OCI layout, by name or id. Blocking.
    pub fn save(_content: &content::Store, _names: &[String], _out: &mut dyn Write) -> Result<()> {
        todo!()
    }
    #[derive(Clone, Debug)]
    pub struct Loaded {
        pub id: ImageId,
        pub names: Vec<Reference>,
    }
    pub fn load(
        _content: &content::Store,
        _snapshots: &snapshots::Snapshots,
        _tar: &mut dyn Read,
    ) -> Result<Vec<Loaded>> {
        todo!()
    }
    /// A rootfs tar (plain, gzip, zstd) becomes a one-layer image. `edit` changes the config (`docker import --change`).
    pub fn import(
        _content: &content::Store,
        _snapshots: &snapshots::Snapshots,
        _tar: &mut dyn Read,
        _message: &str,
        _edit: &mut dyn FnMut(&mut oci::ImageConfig),
    ) -> Result<ImageId> {
        todo!()
    }
}
