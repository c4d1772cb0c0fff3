//! What the engine knows of one container: the record kept on disk and the status kept beside it.
//!
//! Read by every module and by `docker-api`/`cri` through [`Container`]. The record is written once, at
//! create, and again on rename, update and connect; the status is derived from the monitor and `exit.json`,
//! and the few facts that cannot be (restart count, a stop that the user asked for) are kept in the record.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{Config, EndpointRequest, HostConfig};

/// A request to make a container.
#[derive(Debug, Clone, Default)]
pub struct CreateContainer {
    /// Without its slash; made up when absent.
    pub name: Option<String>,
    /// What runs.
    pub config: Config,
    /// How it sits on the host.
    pub host: HostConfig,
    /// Networks asked for by name, with what is asked of each.
    pub networks: BTreeMap<String, EndpointRequest>,
    /// Set for a pod's container.
    pub pod: Option<InSandbox>,
}

/// Ties a container to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InSandbox {
    /// The sandbox's ID.
    pub sandbox: String,
    /// Where the log goes, in CRI's format; no log when absent.
    pub log_path: Option<PathBuf>,
}

/// Answer to a create.
#[derive(Debug, Clone)]
pub struct CreatedContainer {
    /// The 64 hex digits.
    pub id: String,
    /// Things the user should know and that stopped nothing.
    pub warnings: Vec<String>,
}

/// The persisted half of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// 64 hex digits.
    pub id: String,
    /// Unique, without its slash.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Image ID (`sha256:…`).
    pub image_id: String,
    /// Merged with the image's.
    pub config: Config,
    /// As asked, with defaults filled in.
    pub host: HostConfig,
    /// As asked, by network name.
    pub networks: BTreeMap<String, EndpointRequest>,
    /// `networks` is the whole list: something was connected or disconnected, and the mode implies nothing any more.
    #[serde(default)]
    pub networks_are_all: bool,
    /// Volumes and binds, resolved.
    pub mounts: Vec<MountPoint>,
    /// Set for a pod's container.
    pub pod: Option<InSandbox>,
    /// Below every controller's hierarchy.
    pub cgroup: String,
    /// `resolv.conf`, `hosts` and `hostname` live in the container's directory unless the sandbox has them.
    pub hostname: String,
    /// Automatic restarts so far.
    #[serde(default)]
    pub restart_count: u32,
    /// The user stopped it: no restart until the next start.
    #[serde(default)]
    pub stopped_by_user: bool,
    /// When it was last started; absent when it never was.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// Why its last start failed, with the exit code that stands for it.
    #[serde(default)]
    pub start_failure: Option<(i32, String)>,
}

/// A resolved mount (`Mounts` of inspect).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// What kind.
    pub kind: MountKind,
    /// Volume name, for volumes.
    pub name: Option<String>,
    /// Host path; empty for tmpfs.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    /// Options as the user wrote them (`ro`, `z`, …).
    pub mode: String,
    /// May be written.
    pub read_write: bool,
    /// `rprivate`, `rshared`, `rslave` …; empty for volumes.
    pub propagation: String,
    /// Mount options of a tmpfs; the default ones when empty.
    #[serde(default)]
    pub options: Vec<String>,
    /// Leave out what is mounted below a bind's source.
    #[serde(default)]
    pub non_recursive: bool,
    /// Do not fill an empty volume from the image.
    #[serde(default)]
    pub no_copy: bool,
    /// Directory inside the volume.
    #[serde(default)]
    pub subpath: String,
    /// An anonymous volume goes with its container.
    #[serde(default)]
    pub anonymous: bool,
    /// A read-only bind leaves what is mounted below it writable.
    #[serde(default)]
    pub shallow_read_only: bool,
}

/// Kinds of mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A named or anonymous volume.
    Volume,
    /// A host path.
    Bind,
    /// Memory.
    Tmpfs,
    /// An image's files, read-only; `name` is the image's ID.
    Image,
}

impl MountKind {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            MountKind::Volume => "volume",
            MountKind::Bind => "bind",
            MountKind::Tmpfs => "tmpfs",
            MountKind::Image => "image",
        }
    }
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Made, never started (or its start failed).
    Created,
    /// Its init runs.
    Running(Running),
    /// It ended.
    Exited(Exited),
    /// It ended and the restart policy waits for its back-off.
    Restarting(Exited),
    /// It is going away.
    Removing,
    /// Its removal failed.
    Dead,
}

/// Facts of a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Init's process ID on the host.
    pub pid: i32,
    /// When it was started.
    pub started_at: Timestamp,
    /// Frozen.
    pub paused: bool,
}

/// Facts of a container that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// 128 + signal when a signal ended it.
    pub code: i32,
    /// The kernel killed it for its memory.
    pub oom_killed: bool,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Why it could not start, when it could not.
    pub error: String,
}

/// Result of the health check so far; kept beside the record, so that a verdict outlives the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last five.
    pub log: Vec<HealthResult>,
}

/// Docker's three health words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No verdict yet.
    #[default]
    Starting,
    /// The last check passed.
    Healthy,
    /// Too many failures in a row.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// One health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthResult {
    /// Started.
    pub start: Timestamp,
    /// Ended.
    pub end: Timestamp,
    /// 0 healthy, 1 unhealthy, -1 timed out or failed to run.
    pub exit_code: i32,
    /// At most 4 KiB.
    pub output: String,
}

/// One attachment to a network, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Network name.
    pub network: String,
    /// Network ID.
    pub network_id: String,
    /// Endpoint ID.
    pub endpoint_id: String,
    /// Address, while running.
    pub ip: Option<std::net::Ipv4Addr>,
    /// Prefix length of the network.
    pub prefix_len: u8,
    /// Gateway, while running.
    pub gateway: Option<std::net::Ipv4Addr>,
    /// `02:42:…`.
    pub mac: String,
    /// Names that other containers of the network find it by.
    pub aliases: Vec<String>,
}

/// One published port, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// In the container.
    pub container_port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// On the host.
    pub host_ip: std::net::Ipv4Addr,
    /// On the host.
    pub host_port: u16,
}

/// A container at one moment: what `inspect` and `list` answer from.
#[derive(Debug, Clone)]
pub struct Container {
    /// The persisted half.
    pub record: Record,
    /// Where it is in its life.
    pub phase: Phase,
    /// Health, when it has a check.
    pub health: Option<Health>,
    /// Networks it is attached to.
    pub attachments: Vec<Attachment>,
    /// Ports that the host forwards now.
    pub published: Vec<Published>,
    /// The log file.
    pub log_path: Option<PathBuf>,
    /// The container's directory.
    pub dir: PathBuf,
    /// IDs of execs that run or ran.
    pub execs: Vec<String>,
}

impl Container {
    /// Docker's word for the phase.
    pub fn status(&self) -> &'static str {
        match &self.phase {
            Phase::Created => "created",
            Phase::Running(r) if r.paused => "paused",
            Phase::Running(_) => "running",
            Phase::Exited(_) => "exited",
            Phase::Restarting(_) => "restarting",
            Phase::Removing => "removing",
            Phase::Dead => "dead",
        }
    }

    /// Init's process ID, 0 when there is none.
    pub fn pid(&self) -> i32 {
        match &self.phase {
            Phase::Running(r) => r.pid,
            Phase::Created | Phase::Exited(_) | Phase::Restarting(_) | Phase::Removing | Phase::Dead => 0,
        }
    }
}
