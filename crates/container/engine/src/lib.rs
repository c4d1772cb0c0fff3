//! The engine: the life of containers, execs, sandboxes, images, networks and volumes.
//!
//! `docker-api`, `cri` and the builder stand on it; it stands on `monitor` (processes), `networking`,
//! `snapshots`, `content` and `volumes`. It keeps one promise above all: what it acknowledged survives
//! `kill -9`, and what it did not acknowledge leaves nothing behind.
//! It speaks no wire protocol and never talks to a registry except through `distribution`.

pub mod budget;
mod cleanups;
pub mod config;
pub mod containers;
pub mod error;
pub mod events;
pub mod exec;
pub mod images;
pub mod progress;
pub mod record;
pub mod sandbox;

mod build_steps;
mod disk;
mod ids;
mod merge;
mod mounts;
mod ports;
mod restart;
mod signal;
mod table;
mod user;
mod volume_use;

use std::{path::PathBuf, sync::Arc};

pub use budget::Budget;
pub use containers::{
    CommitOptions, ContainerStats, Limits, LogEntry, LogOptions, PathStat, Pruned, RemoveOptions, Top, WaitCondition,
};
pub use error::{Error, Kind, Result};
pub use events::{Event, Subject, Subscription};
pub use exec::{AttachOptions, Channel, Exec, ExecConfig, Frame, Streams};
pub use record::{Container, CreateContainer, CreatedContainer, InSandbox, Phase};
pub use sandbox::{DnsConfig, PortMapping, Sandbox, SandboxSpec};

/// The parts an engine is made of; the binary opens them and hands them in.
pub struct Parts {
    /// State directory (`containers/`, `sandboxes/`, `volumes/` below it are the engine's).
    pub root: PathBuf,
    /// Path below every cgroup controller's hierarchy, without a leading slash.
    pub cgroup_parent: String,
    /// Makes monitors; spawned before any thread existed.
    pub zygote: monitor::Zygote,
    /// Links, addresses, ports, DNS.
    pub networking: networking::Networking,
    /// Blobs and image records.
    pub content: content::Store,
    /// Root filesystems.
    pub snapshots: snapshots::Snapshots,
    /// The registry client.
    pub registry: distribution::client::Client,
    /// The node's resolver configuration, for containers that use the node's.
    pub host_resolv_conf: PathBuf,
}

/// The engine. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    parts: Parts,
    volumes: volumes::Volumes,
    table: table::Table,
    sandboxes: sandbox::Sandboxes,
    execs: exec::Execs,
    events: events::Events,
    cleanups: cleanups::Cleanups,
}

impl Engine {
    /// Opens the engine: finishes or undoes what a crash left half-done, then adopts what runs.
    pub async fn open(parts: Parts) -> Result<Engine> {
        for dir in ["containers", "containers/.trash", "sandboxes", "steps"] {
            disk::make_dir(&parts.root.join(dir))?;
        }
        let volumes = volumes::Volumes::open(&parts.root).map_err(|e| Error::System(e.to_string()))?;
        let engine = Engine(Arc::new(Inner {
            parts,
            volumes,
            table: table::Table::default(),
            sandboxes: sandbox::Sandboxes::default(),
            execs: exec::Execs::default(),
            events: events::Events::default(),
            cleanups: cleanups::Cleanups::default(),
        }));
        kernel::netns::prepare_pin_directory(&engine.root().join("sandboxes"))
            .map_err(|e| Error::system("prepare sandboxes", e))?;
        engine.sweep_steps().await;
        engine.adopt_sandboxes().await?;
        engine.adopt_containers().await?;
        Ok(engine)
    }

    /// Unmounts what the engine keeps mounted for its sandboxes: the last step of taking an instance away.
    pub fn release_mounts(&self) {
        let dir = self.root().join("sandboxes");
        match rustix::mount::unmount(&dir, rustix::mount::UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => tracing::warn!(path = %dir.display(), %error, "not unmounted"),
        }
    }

    /// The state directory.
    pub fn root(&self) -> &std::path::Path {
        &self.0.parts.root
    }

    /// Links, addresses, ports, DNS.
    pub fn networking(&self) -> &networking::Networking {
        &self.0.parts.networking
    }

    /// The image store, shared by both halves.
    pub fn content(&self) -> &content::Store {
        &self.0.parts.content
    }

    /// Root filesystems.
    pub fn snapshots(&self) -> &snapshots::Snapshots {
        &self.0.parts.snapshots
    }

    /// The registry client.
    pub fn registry_client(&self) -> &distribution::client::Client {
        &self.0.parts.registry
    }

    /// Named volumes. Removal goes through [`Engine::remove_volume`], which knows who uses them.
    pub fn volumes(&self) -> &volumes::Volumes {
        &self.0.volumes
    }
}

/// Runs blocking work on the blocking pool; a panic in it is an error, not ours.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::system("background work", error)),
    }
}
