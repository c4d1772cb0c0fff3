//! What a container is to be, with every name already resolved: the input of [`crate::spec`].

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// The root that the spec names; the monitor's `RootFs` is what gets mounted.
    pub rootfs: PathBuf,
    pub args: Vec<String>,
    /// `NAME=value`, in order. PATH (and TERM for a terminal, HOSTNAME, HOME) are added when missing, as Docker does.
    pub env: Vec<String>,
    pub cwd: String,
    pub user: UserSpec,
    pub hostname: String,
    pub domainname: String,
    pub terminal: bool,
    /// Initial size of the terminal, (columns, rows).
    pub console_size: Option<(u16, u16)>,
    /// Binds, volumes and tmpfs, the user's; Docker's own (/proc, /sys, /dev…) are added. A later destination wins over a default one.
    pub mounts: Vec<MountSpec>,
    pub capabilities: Capabilities,
    pub privileged: bool,
    pub readonly_rootfs: bool,
    pub no_new_privileges: bool,
    pub seccomp: SeccompMode,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
    pub resources: Resources,
    pub devices: Vec<Device>,
    pub sysctls: BTreeMap<String, String>,
    pub ulimits: Vec<Ulimit>,
    pub oom_score_adj: Option<i32>,
    pub network: NamespaceMode,
    pub ipc: NamespaceMode,
    pub pid: NamespaceMode,
    pub uts: NamespaceMode,
    pub cgroup_namespace: NamespaceMode,
    /// `/dev/shm` in bytes; `None` is Docker's 64 MiB.
    pub shm_size_bytes: Option<u64>,
    /// A host path to bind at /dev/shm (a sandbox's shared one).
    pub shm_path: Option<PathBuf>,
    /// `None`: Docker's defaults. `Some(vec![])`: unmasked.
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    pub cgroup_path: String,
    pub umask: Option<u32>,
    pub annotations: BTreeMap<String, String>,
    /// The default is the initial propagation of the root mount: `rprivate`.
    pub rootfs_propagation: Option<Propagation>,
}

/// Resolved against the image's /etc/passwd and /etc/group by the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSpec {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    /// For HOME, when the environment does not set it.
    pub home: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceMode {
    /// A new namespace of its own.
    #[default]
    Private,
    /// The host's (none is made).
    Host,
    /// An existing one.
    Path(PathBuf),
}

/// `--cap-add` / `--cap-drop`: names with or without `CAP_`, any case, `ALL`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    pub add: Vec<String>,
    pub drop: Vec<String>,
    /// Also raise them in the ambient set when the user is not root (Kubernetes does not; Docker does not).
    pub ambient: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompMode {
    /// Docker's default profile.
    #[default]
    Default,
    Unconfined,
    /// A profile in Docker's JSON format.
    Profile(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    pub destination: String,
    pub read_only: bool,
    pub kind: MountKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    Bind(BindMount),
    Tmpfs(Tmpfs),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindMount {
    pub source: PathBuf,
    pub propagation: Option<Propagation>,
    /// Leave out what is mounted below the source.
    pub non_recursive: bool,
    /// Kubernetes' recursiveReadOnly.
    pub recursive_read_only: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tmpfs {
    pub size_bytes: Option<u64>,
    pub mode: Option<u32>,
    /// Further options as `--tmpfs /run:rw,noexec` gives them; replace the defaults `nosuid,nodev,noexec`.
    pub options: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    Private,
    Rprivate,
    Slave,
    Rslave,
    Shared,
    Rshared,
}

/// `--device`; the engine has read the host node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub path: String,
    pub kind: char,
    pub major: i64,
    pub minor: i64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// `rwm` letters.
    pub access: String,
}

/// `--device-cgroup-rule`, such as `c 13:* rwm`; `None` is any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    pub kind: char,
    pub major: Option<i64>,
    pub minor: Option<i64>,
    pub access: String,
    pub allow: bool,
}

/// `soft`/`hard`: -1 is unlimited. `name` as Docker's: `nofile`, `nproc`, …
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// A rate on one block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    pub major: i64,
    pub minor: i64,
    pub rate: u64,
}

/// Docker's HostConfig names and units.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub memory_bytes: Option<i64>,
    /// Memory plus swap; -1 is unlimited.
    pub memory_swap_bytes: Option<i64>,
    pub memory_reservation_bytes: Option<i64>,
    pub memory_swappiness: Option<u64>,
    pub oom_kill_disable: bool,
    pub cpu_shares: Option<u64>,
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: Option<u64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    pub pids_limit: Option<i64>,
    pub blkio_weight: Option<u16>,
    /// Bytes and operations a second, by device.
    pub read_bps: Vec<Throttle>,
    pub write_bps: Vec<Throttle>,
    pub read_iops: Vec<Throttle>,
    pub write_iops: Vec<Throttle>,
    pub device_rules: Vec<DeviceRule>,
}
