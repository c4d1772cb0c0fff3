//! A container in the kernel's terms: what [`crate::compile`] makes and the init process carries out, step by step.

use std::path::PathBuf;

use kernel::{caps::CapabilitySets, cgroup::Resources, mount::Spread, schedule::SchedulerAttributes};
use serde::{Deserialize, Serialize};

use crate::{hooks::Hooks, seccomp::Filter};

/// Where the container's root comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootFs {
    /// A directory that is used as it is (a copy of its mount, in the container's mount namespace).
    Plain { path: PathBuf },
    /// An overlay, mounted inside the container's own mount namespace: the host's mount table never shows it, and it goes away with
    /// the last process. `lowers` are ordered as overlayfs does: the topmost layer first.
    Overlay { lowers: Vec<PathBuf>, upper: PathBuf, work: PathBuf },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub rootfs: RootFs,
    pub rootfs_read_only: bool,
    /// What mounts below `/` become before anything else; a slave where nothing is said.
    pub rootfs_spread: SpreadChange,
    /// `CLONE_NEW*` bits of the namespaces to make.
    pub new_namespaces: u64,
    pub joins: Vec<Join>,
    pub uid_map: Vec<IdMap>,
    pub gid_map: Vec<IdMap>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// In the order of the specification.
    pub mounts: Vec<Mount>,
    pub devices: Vec<Node>,
    pub masked_paths: Vec<PathBuf>,
    pub read_only_paths: Vec<PathBuf>,
    /// Paths below `/proc/sys`, and values; checked.
    pub sysctls: Vec<(PathBuf, String)>,
    pub process: ProcessPlan,
    pub seccomp: Option<Filter>,
    /// Below every hierarchy.
    pub cgroup: String,
    pub resources: Resources,
    pub hooks: Option<Hooks>,
    /// What `/proc/self/timens_offsets` takes, for a time namespace of its own.
    pub time_offsets: Option<String>,
    /// Enter the root by a move instead of pivot_root, which an initramfs refuses.
    pub no_pivot: bool,
    /// Keep the session keyring of whoever starts the container.
    pub keep_keyring: bool,
    /// The first process stays, hands signals on to the program and reaps orphans (`docker run --init`).
    #[serde(default)]
    pub reaps: bool,
}

impl Plan {
    /// Bits of all namespaces that are not the runtime's own.
    pub fn separate_namespaces(&self) -> u64 {
        self.joins.iter().fold(self.new_namespaces, |bits, join| bits | join.kind)
    }
}

/// A namespace to enter, by the path of its file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Join {
    pub kind: u64,
    pub path: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdMap {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpreadChange {
    #[serde(with = "spread_name")]
    pub spread: Spread,
    pub recursive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub destination: PathBuf,
    pub source: MountSource,
    /// `MOUNT_ATTR_*` of this mount alone.
    pub set: u64,
    pub clear: u64,
    /// … and of all that is mounted below it.
    pub recursive_set: u64,
    pub recursive_clear: u64,
    pub spreads: Vec<SpreadChange>,
    /// A tmpfs starts with what the directory below it holds.
    pub copy_up: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// What is mounted there already; only its attributes change.
    Remount,
    Bind {
        path: PathBuf,
        recursive: bool,
    },
    /// `parameters` without a value are flags.
    FileSystem {
        kind: String,
        source: String,
        parameters: Vec<(String, Option<String>)>,
    },
    /// The container's own cgroups, in the form that this machine has.
    Cgroup,
}

/// A device node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    pub path: PathBuf,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`, with the permission bits.
    pub mode: u32,
    pub major: u32,
    pub minor: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A program, and as whom it runs: the container's own or an exec's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessPlan {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: PathBuf,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: u32,
    /// `None` leaves them alone.
    pub capabilities: Option<CapabilitySets>,
    pub no_new_privileges: bool,
    /// `RLIMIT_*` number, soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    pub oom_score_adj: Option<i32>,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
    pub terminal: bool,
    /// Columns, rows.
    pub console_size: Option<(u16, u16)>,
    /// Class and level, as `ioprio_set` numbers them.
    pub io_priority: Option<(u8, u8)>,
    pub scheduler: Option<SchedulerAttributes>,
    /// Execution domain.
    pub personality: Option<u64>,
}

mod spread_name {
    use kernel::mount::Spread;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(spread: &Spread, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match spread {
            Spread::Private => "private",
            Spread::Slave => "slave",
            Spread::Shared => "shared",
            Spread::Unbindable => "unbindable",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Spread, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "private" => Ok(Spread::Private),
            "slave" => Ok(Spread::Slave),
            "shared" => Ok(Spread::Shared),
            "unbindable" => Ok(Spread::Unbindable),
            other => Err(D::Error::custom(format!("propagation {other:?}"))),
        }
    }
}
