//! Sandboxes: the namespaces that the containers of one pod share.
//!
//! Used by `cri` alone. A sandbox has no pause process: its network, IPC and UTS namespaces are pinned, so
//! they live without one. A sandbox is persisted before it is answered and adopted when the engine opens.

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Engine, error::Result};

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

impl Engine {
    /// Makes a sandbox: namespaces, address, files. Nothing is left behind on failure.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox> {
        let _ = spec;
        todo!()
    }

    /// Kills the sandbox's containers and takes its network away. Idempotent.
    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let _ = id;
        todo!()
    }

    /// Stops and removes the sandbox and its containers. Idempotent.
    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let _ = id;
        todo!()
    }

    /// All sandboxes.
    pub fn sandboxes(&self) -> Vec<Sandbox> {
        todo!()
    }

    /// One sandbox by ID or unambiguous prefix.
    pub fn sandbox(&self, id: &str) -> Result<Sandbox> {
        let _ = id;
        todo!()
    }

    /// A TCP connection to a port on the pod's loopback, made from inside its network namespace.
    pub async fn dial_sandbox(&self, id: &str, port: u16) -> Result<tokio::net::TcpStream> {
        let _ = (id, port);
        todo!()
    }
}
