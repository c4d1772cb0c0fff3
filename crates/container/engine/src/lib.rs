//! The engine: the life of containers, execs, sandboxes, images, networks and volumes.
//!
//! `docker-api`, `cri` and the builder stand on it; it stands on `monitor` (processes), `networking`,
//! `snapshots`, `content` and `volumes`. It keeps one promise above all: what it acknowledged survives
//! `kill -9`, and what it did not acknowledge leaves nothing behind.
//! It speaks no wire protocol and never talks to a registry except through `distribution`.

pub mod config;
pub mod containers;
pub mod error;
pub mod events;
pub mod exec;
pub mod images;
pub mod record;
pub mod sandbox;

use std::{path::PathBuf, sync::Arc};

pub use error::{Error, Kind, Result};
pub use events::{Event, Subject, Subscription};
pub use record::{Container, CreateContainer, CreatedContainer, InSandbox, Phase};
pub use sandbox::{DnsConfig, PortMapping, Sandbox, SandboxSpec};

/// The parts an engine is made of.
pub struct Parts {
    /// State directory (`containers/`, `sandboxes/`, `volumes/` are the engine's).
    pub root: PathBuf,
    /// Path below every cgroup controller's hierarchy.
    pub cgroup_parent: String,
}

/// The engine. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine(#[expect(dead_code, reason = "signatures first")] Arc<Inner>);

struct Inner {
    #[expect(dead_code, reason = "signatures first")]
    parts: Parts,
}

impl Engine {
    /// Opens the engine: finishes or undoes what a crash left half-done, then adopts what runs.
    pub async fn open(parts: Parts) -> Result<Engine> {
        let _ = parts;
        todo!()
    }

    /// Subscribes to events; history from `since` on (bounded).
    pub fn subscribe(&self, since: Option<jiff::Timestamp>) -> Subscription {
        let _ = since;
        todo!()
    }
}
