//! The life of a container, one module a verb.

use std::time::Duration;

use crate::{
    Engine,
    error::Result,
    exec::{AttachOptions, Streams},
    record::{Container, CreateContainer, CreatedContainer},
};

/// How a removal behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first when it runs.
    pub force: bool,
    /// Remove its anonymous volumes.
    pub volumes: bool,
}

/// What a wait waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// Not running now or any more.
    #[default]
    NotRunning,
    /// The next end.
    NextExit,
    /// Gone.
    Removed,
}

/// New limits for a container (CRI's UpdateContainerResources, Docker's update).
pub type Limits = crate::config::Resources;

/// Memory and CPU use of a container.
pub type Stats = kernel::cgroup::Stats;

impl Engine {
    /// Makes a container: record, root filesystem, volumes. Nothing is left behind on failure.
    pub async fn create_container(&self, request: CreateContainer) -> Result<CreatedContainer> {
        let _ = request;
        todo!()
    }

    /// Starts it; `NotModified` when it runs already.
    pub async fn start_container(&self, name: &str) -> Result<()> {
        let _ = name;
        todo!()
    }

    /// Asks it to end (stop signal), kills it after the timeout (`None`: the container's own, 10 s by default).
    pub async fn stop_container(&self, name: &str, timeout: Option<Duration>) -> Result<()> {
        let _ = (name, timeout);
        todo!()
    }

    /// Sends a signal (`TERM`, `SIGTERM`, `15`).
    pub async fn kill_container(&self, name: &str, signal: &str) -> Result<()> {
        let _ = (name, signal);
        todo!()
    }

    /// Removes it. Answers once the intent is on disk; the rest goes on in the background.
    pub async fn remove_container(&self, name: &str, options: RemoveOptions) -> Result<()> {
        let _ = (name, options);
        todo!()
    }

    /// One container by name, ID or unambiguous prefix.
    pub fn container(&self, name: &str) -> Result<Container> {
        let _ = name;
        todo!()
    }

    /// All containers of both halves, newest first.
    pub fn containers(&self) -> Vec<Container> {
        todo!()
    }

    /// Waits for the condition: the exit code.
    pub async fn wait_container(&self, name: &str, condition: WaitCondition) -> Result<i32> {
        let _ = (name, condition);
        todo!()
    }

    /// Attaches to its streams.
    pub async fn attach_container(&self, name: &str, options: AttachOptions) -> Result<Streams> {
        let _ = (name, options);
        todo!()
    }

    /// Resizes its terminal.
    pub async fn resize_container(&self, name: &str, cols: u16, rows: u16) -> Result<()> {
        let _ = (name, cols, rows);
        todo!()
    }

    /// Opens its log file anew, after somebody moved it.
    pub async fn reopen_log(&self, name: &str) -> Result<()> {
        let _ = name;
        todo!()
    }

    /// Changes its limits while it runs.
    pub async fn update_container(&self, name: &str, limits: Limits) -> Result<()> {
        let _ = (name, limits);
        todo!()
    }

    /// Reads its use of resources.
    pub async fn container_stats(&self, name: &str) -> Result<Stats> {
        let _ = name;
        todo!()
    }
}
