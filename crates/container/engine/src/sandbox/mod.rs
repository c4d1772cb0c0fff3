//! Sandboxes: the namespaces that the containers of one pod share.
//!
//! Used by `cri` alone. A sandbox has no pause process: its network, IPC and UTS namespaces are pinned, so
//! they live without one. A sandbox is persisted before it is answered and adopted when the engine opens.

mod lifecycle;
mod namespaces;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Engine,
    error::{Error, Result},
};

/// What a pod asks of its sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Pod name.
    pub name: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod UID.
    pub uid: String,
    /// How often a sandbox was made for this pod before.
    pub attempt: u32,
    /// UTS host name; ignored with `host_network`.
    pub hostname: String,
    /// Contents of `resolv.conf`; the host's when absent.
    pub dns: Option<DnsConfig>,
    /// Host ports.
    pub ports: Vec<PortMapping>,
    /// Share the node's network.
    pub host_network: bool,
    /// Share the node's process IDs.
    pub host_pid: bool,
    /// Share the node's IPC.
    pub host_ipc: bool,
    /// Containers of the pod share one process ID namespace.
    pub shared_pid: bool,
    /// Namespaced sysctls.
    pub sysctls: BTreeMap<String, String>,
    /// Below every controller's hierarchy; `<engine's parent>/pod<uid>` when empty.
    pub cgroup_parent: String,
    /// CRI labels.
    pub labels: BTreeMap<String, String>,
    /// CRI annotations.
    pub annotations: BTreeMap<String, String>,
    /// Where the containers' logs go.
    pub log_directory: PathBuf,
}

/// `resolv.conf` in parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// A host port of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// In the pod.
    pub container_port: u16,
    /// On the node.
    pub host_port: u16,
    /// All addresses when absent.
    pub host_ip: Option<Ipv4Addr>,
}

/// A sandbox at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// 64 hex digits.
    pub id: String,
    /// As asked.
    pub spec: SandboxSpec,
    /// When it was made.
    pub created_at: Timestamp,
    /// Usable: its namespaces stand and it was not stopped.
    pub ready: bool,
    /// Pod address; absent with `host_network` and after stop.
    pub ip: Option<Ipv4Addr>,
    /// Path of the pinned network namespace; absent with `host_network`.
    pub network_namespace: Option<PathBuf>,
    /// `/etc/hosts` of the pod (the node agent may mount its own instead).
    pub hosts_path: PathBuf,
    /// `/etc/resolv.conf` of the pod.
    pub resolv_conf_path: PathBuf,
}

/// What is kept on disk of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    id: String,
    spec: SandboxSpec,
    created_at: Timestamp,
    ip: Option<Ipv4Addr>,
    /// Its network stands and it was not stopped.
    ready: bool,
}

/// One sandbox: a verb at a time.
pub(crate) struct Entry {
    life: tokio::sync::Mutex<()>,
    record: Mutex<SandboxRecord>,
}

impl Entry {
    fn record(&self) -> MutexGuard<'_, SandboxRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All sandboxes by ID.
#[derive(Default)]
pub(crate) struct Sandboxes(Mutex<BTreeMap<String, Arc<Entry>>>);

impl Sandboxes {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, record: SandboxRecord) {
        let entry = Entry { life: tokio::sync::Mutex::default(), record: Mutex::new(record.clone()) };
        self.all().insert(record.id, Arc::new(entry));
    }

    /// By ID or unambiguous prefix.
    fn find(&self, wanted: &str) -> Result<Arc<Entry>> {
        let all = self.all();
        if let Some(entry) = all.get(wanted) {
            return Ok(Arc::clone(entry));
        }
        let missing = || Error::NoSuchSandbox(wanted.to_owned());
        if wanted.is_empty() {
            return Err(missing());
        }
        let mut matches = all.range(wanted.to_owned()..).take_while(|(id, _)| id.starts_with(wanted));
        match (matches.next(), matches.next()) {
            (Some((_, entry)), None) => Ok(Arc::clone(entry)),
            (Some(_), Some(_)) => Err(Error::Ambiguous(wanted.to_owned())),
            (None, _) => Err(missing()),
        }
    }
}

/// The namespaces that a container of a sandbox joins; `None` is the node's.
pub(crate) struct SharedPlaces {
    pub(crate) network: Option<PathBuf>,
    pub(crate) ipc: Option<PathBuf>,
    pub(crate) uts: Option<PathBuf>,
    pub(crate) host_pid: bool,
    pub(crate) shm: PathBuf,
    pub(crate) files: PathBuf,
}

impl Engine {
    /// All sandboxes, oldest first.
    pub fn sandboxes(&self) -> Vec<Sandbox> {
        let entries: Vec<_> = self.0.sandboxes.all().values().cloned().collect();
        let mut all: Vec<Sandbox> = entries.iter().map(|entry| self.sandbox_view(&entry.record())).collect();
        all.sort_by(|a, b| a.created_at.cmp(&b.created_at).then_with(|| a.id.cmp(&b.id)));
        all
    }

    /// One sandbox by ID or unambiguous prefix.
    pub fn sandbox(&self, id: &str) -> Result<Sandbox> {
        let entry = self.0.sandboxes.find(id)?;
        let record = entry.record().clone();
        Ok(self.sandbox_view(&record))
    }

    fn sandbox_view(&self, record: &SandboxRecord) -> Sandbox {
        let dir = self.sandbox_dir(&record.id);
        let own_network = record.ready && !record.spec.host_network;
        Sandbox {
            id: record.id.clone(),
            spec: record.spec.clone(),
            created_at: record.created_at,
            ready: record.ready,
            ip: record.ip,
            network_namespace: own_network.then(|| self.0.parts.networking.namespace_path(&record.id)),
            hosts_path: dir.join("hosts"),
            resolv_conf_path: dir.join("resolv.conf"),
        }
    }

    fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.0.parts.root.join("sandboxes").join(id)
    }

    /// The cgroup that the sandbox's containers are below, with a leading slash.
    pub(crate) fn sandbox_cgroup(&self, id: &str) -> Result<String> {
        let entry = self.0.sandboxes.find(id)?;
        let record = entry.record();
        if record.spec.cgroup_parent.is_empty() {
            return Ok(format!("/{}/pod{}", self.0.parts.cgroup_parent, record.spec.uid));
        }
        Ok(format!("/{}", record.spec.cgroup_parent.trim_matches('/')))
    }

    pub(crate) fn sandbox_places(&self, id: &str) -> Result<SharedPlaces> {
        let sandbox = self.sandbox(id)?;
        if !sandbox.ready {
            return Err(Error::Conflict(format!("sandbox {id} is not ready")));
        }
        let (dir, spec) = (self.sandbox_dir(&sandbox.id), &sandbox.spec);
        Ok(SharedPlaces {
            network: sandbox.network_namespace,
            ipc: (!spec.host_ipc).then(|| dir.join("ns/ipc")),
            uts: (!spec.host_network).then(|| dir.join("ns/uts")),
            host_pid: spec.host_pid,
            shm: if spec.host_ipc { PathBuf::from("/dev/shm") } else { dir.join("shm") },
            files: dir,
        })
    }

    /// A TCP connection to a port on the pod's loopback, made from inside its network namespace.
    pub async fn dial_sandbox(&self, id: &str, port: u16) -> Result<tokio::net::TcpStream> {
        let sandbox = self.sandbox(id)?;
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let failed = |e: &dyn std::fmt::Display| {
            Error::System(format!("failed to connect to localhost:{port} inside namespace {id}: {e}"))
        };
        let Some(path) = sandbox.network_namespace else {
            return tokio::net::TcpStream::connect(address).await.map_err(|e| failed(&e));
        };
        // The socket belongs to the namespace that it was made in; the connection may then be used anywhere.
        let stream = crate::blocking(move || {
            let namespace =
                kernel::netns::Namespace::open(&path).map_err(|e| Error::system("open network namespace", e))?;
            let limit = std::time::Duration::from_secs(10);
            let connected = namespace.run(|| std::net::TcpStream::connect_timeout(&address, limit));
            connected.map_err(|e| Error::system("enter network namespace", e))?.map_err(|e| Error::system("connect", e))
        })
        .await
        .map_err(|e| failed(&e))?;
        stream.set_nonblocking(true).map_err(|e| failed(&e))?;
        tokio::net::TcpStream::from_std(stream).map_err(|e| failed(&e))
    }
}
