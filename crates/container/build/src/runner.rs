//! The two hands that the builder borrows from the engine.

use std::future::Future;
use std::pin::Pin;

use content::Image;
use tokio::sync::mpsc;

use crate::BuildError;
use crate::events::BuildEvent;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

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
    /// `host:address` lines that go into the step's hosts file.
    pub extra_hosts: Vec<String>,
    pub limits: StepLimits,
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
    /// Runs the step to its end, sending [`BuildEvent::Output`] for what it prints. Returns the exit code.
    /// When the future is dropped (the client went away) the process is killed and nothing of it is left.
    fn run<'a>(&'a self, step: RunStep, events: &'a mpsc::Sender<BuildEvent>)
    -> BoxFuture<'a, Result<i32, BuildError>>;
}

/// Finds base images. Implemented by the engine: the local store first, then a registry.
pub trait ImageSource: Send + Sync {
    /// `pull`: ask the registry even when the image is here (`docker build --pull`); locally made images need no asking.
    fn image<'a>(
        &'a self,
        reference: &'a str,
        pull: bool,
        events: &'a mpsc::Sender<BuildEvent>,
    ) -> BoxFuture<'a, Result<Image, BuildError>>;
}
