//! The hands that the builder borrows: the engine's, and those of the client that wants the build.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use content::Image;

use crate::BuildError;
use crate::events::Events;

/// A boxed future, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One RUN step: a process in a prepared, writable root.
#[derive(Debug, Clone)]
pub struct RunStep {
    /// 64 hexadecimal digits, the name that the step's container has while it runs.
    pub id: String,
    /// The overlay that the step sees as `/` and writes into.
    pub root: snapshots::Mount,
    /// Complete argument vector (the shell is already in front for the shell form).
    pub args: Vec<String>,
    /// `NAME=value`, later entries win.
    pub env: Vec<String>,
    /// As USER gives it: `user[:group]`, names or numbers; empty means root.
    pub user: String,
    /// Absolute; made by the runner where it is missing.
    pub working_dir: String,
    /// `default`, `bridge`, `none`, `host` or a network's name.
    pub network: String,
    /// `--security=insecure`, granted: all capabilities, devices, no seccomp.
    pub insecure: bool,
    /// `host:address` lines that go into the step's hosts file.
    pub extra_hosts: Vec<String>,
    pub limits: StepLimits,
    /// What `--mount` brings, sources already confined.
    pub mounts: Vec<StepMount>,
}

/// A mount of a RUN step.
#[derive(Debug, Clone)]
pub struct StepMount {
    /// Absolute in the step's root.
    pub target: String,
    pub source: StepSource,
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone)]
pub enum StepSource {
    /// A path that is the builder's own: no link in it leads anywhere else.
    Path(PathBuf),
    Tmpfs {
        size_bytes: Option<u64>,
    },
}

/// Limits that `docker build` passes for its steps; zero means none.
#[derive(Debug, Clone, Default)]
pub struct StepLimits {
    pub memory_bytes: i64,
    pub memory_swap_bytes: i64,
    pub cpu_shares: u64,
    pub cpu_quota_us: i64,
    pub cpu_period_us: u64,
    pub cpuset_cpus: String,
    pub shm_size_bytes: u64,
}

/// Runs RUN steps. Implemented by the engine.
pub trait StepRunner: Send + Sync {
    /// Runs the step to its end, sending [`crate::BuildEvent::Output`] for what it prints. Returns the exit code.
    /// When the future is dropped (the client went away) the process is killed and nothing of it is left.
    fn run<'a>(&'a self, step: RunStep, events: &'a Events) -> BoxFuture<'a, Result<i32, BuildError>>;
}

/// Finds base images. Implemented by the engine: the local store first, then a registry.
pub trait ImageSource: Send + Sync {
    /// `pull`: ask the registry even when the image is here (`docker build --pull`); locally made images need no asking.
    /// `client` has the credentials.
    fn image<'a>(
        &'a self,
        reference: &'a str,
        pull: bool,
        client: &'a dyn Client,
        events: &'a Events,
    ) -> BoxFuture<'a, Result<Image, BuildError>>;
}

/// What keeps something alive until it is dropped.
pub type Guard = Box<dyn Send + Sync>;

/// What a build asks of the client that wants it. Implemented by the API: a received archive, or a BuildKit session.
pub trait Client: Send + Sync {
    /// The directory of a context: empty for the build's own, else a named one. `None`: the client has none of that name.
    fn context<'a>(&'a self, name: &'a str, events: &'a Events) -> BoxFuture<'a, Result<Option<Context>, BuildError>>;

    /// A secret's bytes; `None` where the client does not have it.
    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BuildError>>;

    /// Serves the client's SSH agent on a socket for as long as the guard lives; `None` where it has none of that ID.
    fn ssh_agent<'a>(&'a self, id: &'a str, socket: &'a Path) -> BoxFuture<'a, Result<Option<Guard>, BuildError>>;

    /// What a registry is to be shown, if anything.
    fn credentials<'a>(&'a self, registry: &'a str) -> BoxFuture<'a, Option<Credentials>>;
}

/// A user of a registry.
#[derive(Clone)]
pub struct Credentials {
    pub username: String,
    pub secret: String,
}

/// A directory that files are copied from.
#[derive(Clone)]
pub struct Context {
    pub dir: PathBuf,
    /// Keeps the directory, where it is a temporary one.
    pub guard: Option<Arc<dyn std::any::Any + Send + Sync>>,
}

/// A client that has a directory, and perhaps credentials by registry: the classic builder's.
pub struct DirectoryClient {
    pub dir: PathBuf,
    pub credentials: BTreeMap<String, Credentials>,
}

impl Client for DirectoryClient {
    fn context<'a>(&'a self, name: &'a str, _: &'a Events) -> BoxFuture<'a, Result<Option<Context>, BuildError>> {
        let context = name.is_empty().then(|| Context { dir: self.dir.clone(), guard: None });
        Box::pin(std::future::ready(Ok(context)))
    }

    fn secret<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BuildError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn ssh_agent<'a>(&'a self, _: &'a str, _: &'a Path) -> BoxFuture<'a, Result<Option<Guard>, BuildError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    fn credentials<'a>(&'a self, registry: &'a str) -> BoxFuture<'a, Option<Credentials>> {
        Box::pin(std::future::ready(self.credentials.get(registry).cloned()))
    }
}
