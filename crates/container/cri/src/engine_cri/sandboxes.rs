//! Sandboxes: CRI's words ↔ the engine's.
//!
//! Invariant: what CRI sent (labels, annotations, metadata) comes back unchanged in status and lists.

use std::path::PathBuf;

use engine::{DnsConfig, PortMapping, Sandbox, SandboxSpec};

use super::{EngineCri, matches_labels, nanos};
use crate::{CriError, Result, v1};

impl EngineCri {
    pub(super) async fn make_sandbox(&self, config: v1::PodSandboxConfig) -> Result<String> {
        Ok(self.engine.create_sandbox(spec(config)?).await?.id)
    }

    pub(super) fn sandboxes_matching(&self, filter: v1::PodSandboxFilter) -> Vec<v1::PodSandbox> {
        let wanted = filter.state.map(|state| state.state);
        self.engine
            .sandboxes()
            .into_iter()
            .filter(|one| one.id.starts_with(&filter.id))
            .filter(|one| matches_labels(&filter.label_selector, |key| one.spec.labels.get(key)))
            .filter(|one| wanted.is_none_or(|wanted| wanted == state(one)))
            .map(|one| v1::PodSandbox {
                metadata: Some(metadata(&one.spec)),
                state: state(&one),
                created_at: nanos(one.created_at),
                labels: one.spec.labels.clone().into_iter().collect(),
                annotations: one.spec.annotations.clone().into_iter().collect(),
                id: one.id,
                ..Default::default()
            })
            .collect()
    }
}

fn port(port: u32, what: &str) -> Result<u16> {
    u16::try_from(port).map_err(|_| CriError::InvalidArgument(format!("{what} {port} is not a port")))
}

fn port_mapping(mapping: &v1::PortMapping) -> Result<PortMapping> {
    let host_ip = match mapping.host_ip.as_str() {
        "" | "0.0.0.0" => None,
        text => Some(
            text.parse().map_err(|_| CriError::InvalidArgument(format!("host IP {text:?} is not an IPv4 address")))?,
        ),
    };
    let protocol = match mapping.protocol() {
        v1::Protocol::Tcp => "tcp",
        v1::Protocol::Udp => "udp",
        v1::Protocol::Sctp => {
            return Err(CriError::InvalidArgument("SCTP host ports are not offered".to_owned()));
        }
    };
    Ok(PortMapping {
        protocol: protocol.to_owned(),
        container_port: port(mapping.container_port.unsigned_abs(), "container port")?,
        host_port: port(mapping.host_port.unsigned_abs(), "host port")?,
        host_ip,
    })
}

fn spec(config: v1::PodSandboxConfig) -> Result<SandboxSpec> {
    let metadata =
        config.metadata.ok_or_else(|| CriError::InvalidArgument("sandbox metadata is missing".to_owned()))?;
    let linux = config.linux.unwrap_or_default();
    let namespaces = linux.security_context.and_then(|context| context.namespace_options).unwrap_or_default();
    let ports = config.port_mappings.iter().filter(|one| one.host_port > 0);
    Ok(SandboxSpec {
        ports: ports.map(port_mapping).collect::<Result<_>>()?,
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        attempt: metadata.attempt,
        hostname: config.hostname,
        dns: config.dns_config.map(|dns| DnsConfig {
            servers: dns.servers,
            searches: dns.searches,
            options: dns.options,
        }),
        host_network: namespaces.network() == v1::NamespaceMode::Node,
        host_pid: namespaces.pid() == v1::NamespaceMode::Node,
        host_ipc: namespaces.ipc() == v1::NamespaceMode::Node,
        // CRI's zero value is POD; a kubelet that wants separate PIDs says CONTAINER.
        shared_pid: namespaces.pid() == v1::NamespaceMode::Pod,
        sysctls: linux.sysctls.into_iter().collect(),
        cgroup_parent: linux.cgroup_parent,
        labels: config.labels.into_iter().collect(),
        annotations: config.annotations.into_iter().collect(),
        log_directory: PathBuf::from(config.log_directory),
    })
}

fn state(sandbox: &Sandbox) -> i32 {
    if sandbox.ready { v1::PodSandboxState::SandboxReady.into() } else { v1::PodSandboxState::SandboxNotready.into() }
}

fn metadata(spec: &SandboxSpec) -> v1::PodSandboxMetadata {
    v1::PodSandboxMetadata {
        name: spec.name.clone(),
        uid: spec.uid.clone(),
        namespace: spec.namespace.clone(),
        attempt: spec.attempt,
    }
}

pub(super) fn status(sandbox: Sandbox) -> v1::PodSandboxStatus {
    let mode = |on_node: bool, other: v1::NamespaceMode| if on_node { v1::NamespaceMode::Node } else { other }.into();
    let pid = if sandbox.spec.shared_pid { v1::NamespaceMode::Pod } else { v1::NamespaceMode::Container };
    let options = v1::NamespaceOption {
        network: mode(sandbox.spec.host_network, v1::NamespaceMode::Pod),
        pid: mode(sandbox.spec.host_pid, pid),
        ipc: mode(sandbox.spec.host_ipc, v1::NamespaceMode::Pod),
        ..Default::default()
    };
    v1::PodSandboxStatus {
        metadata: Some(metadata(&sandbox.spec)),
        state: state(&sandbox),
        created_at: nanos(sandbox.created_at),
        network: Some(v1::PodSandboxNetworkStatus {
            ip: sandbox.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            additional_ips: Vec::new(),
        }),
        linux: Some(v1::LinuxPodSandboxStatus { namespaces: Some(v1::Namespace { options: Some(options) }) }),
        labels: sandbox.spec.labels.into_iter().collect(),
        annotations: sandbox.spec.annotations.into_iter().collect(),
        id: sandbox.id,
        ..Default::default()
    }
}
