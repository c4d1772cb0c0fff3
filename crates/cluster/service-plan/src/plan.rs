//! One service → what the kernel is to do with connections to its addresses.

use crate::endpoints::{Target, pick};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

const DEFAULT_AFFINITY_S: u64 = 10_800;
const MAX_AFFINITY_S: u64 = 86_400;

/// What is true of the node.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub node: String,
    /// Addresses that the node answers itself (cluster DNS): no rules for them.
    pub own_addresses: BTreeSet<Ipv4Addr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Absent means TCP; None for what we do not know.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            Some(_) => None,
        }
    }

    /// The number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// All ports of one service. Empty for services that need nothing of the kernel (headless, ExternalName).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    pub ports: Vec<PortPlan>,
}

/// Who gets what comes from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExternalPolicy {
    /// Any endpoint; the sender's address is replaced.
    Cluster(Vec<Target>),
    /// Endpoints of this node only; the sender's address is kept. Nobody here: dropped, so that a balancer notices.
    Local(Vec<Target>),
}

impl ExternalPolicy {
    pub fn targets(&self) -> &[Target] {
        match self {
            ExternalPolicy::Cluster(targets) | ExternalPolicy::Local(targets) => targets,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// `namespace/name:port`, for people; unique with the protocol.
    pub title: String,
    pub protocol: Protocol,
    pub cluster_ip: Ipv4Addr,
    pub port: u16,
    /// For connections to the cluster address.
    pub internal: Vec<Target>,
    /// Somewhere in the cluster there is an endpoint (with a local policy `internal` may be empty nevertheless).
    pub served: bool,
    pub internal_is_local: bool,
    pub node_port: Option<u16>,
    /// Addresses of load balancers.
    pub external_ips: Vec<Ipv4Addr>,
    /// Senders that may use those; empty: all.
    pub source_ranges: Vec<(Ipv4Addr, u8)>,
    pub external: ExternalPolicy,
    /// A client stays with its endpoint for this long after its last connection.
    pub affinity: Option<Duration>,
    /// Endpoints on this node, which may reach themselves by the service.
    pub local: Vec<Target>,
}

/// `slices` are those of this service.
pub fn plan_service(service: &Service, slices: &[impl AsRef<EndpointSlice>], settings: &Settings) -> ServicePlan {
    let Some(spec) = &service.spec else {
        return ServicePlan::default();
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        return ServicePlan::default();
    }
    let Some(cluster_ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else {
        return ServicePlan::default();
    };
    if settings.own_addresses.contains(&cluster_ip) {
        return ServicePlan::default();
    }
    let title = format!(
        "{}/{}",
        service.metadata.namespace.as_deref().unwrap_or_default(),
        service.metadata.name.as_deref().unwrap_or_default()
    );
    let frame = Frame { title, cluster_ip, external_ips: ingress_addresses(service), spec };
    ServicePlan {
        ports: spec.ports.iter().flatten().filter_map(|port| frame.plan_port(port, slices, settings)).collect(),
    }
}

/// What all ports of a service share.
struct Frame<'a> {
    title: String,
    cluster_ip: Ipv4Addr,
    external_ips: Vec<Ipv4Addr>,
    spec: &'a ServiceSpec,
}

impl Frame<'_> {
    fn plan_port(
        &self,
        port: &ServicePort,
        slices: &[impl AsRef<EndpointSlice>],
        settings: &Settings,
    ) -> Option<PortPlan> {
        let number = u16::try_from(port.port).ok().filter(|p| *p > 0)?;
        let all = pick(slices, port, None);
        let local = pick(slices, port, Some(&settings.node));
        let internal_is_local = self.spec.internal_traffic_policy.as_deref() == Some("Local");
        let external_is_local = self.spec.external_traffic_policy.as_deref() == Some("Local");
        Some(PortPlan {
            title: format!(
                "{}:{}",
                self.title,
                port.name.as_deref().filter(|n| !n.is_empty()).map_or_else(|| number.to_string(), str::to_owned)
            ),
            protocol: Protocol::parse(port.protocol.as_deref())?,
            cluster_ip: self.cluster_ip,
            port: number,
            internal: if internal_is_local { local.clone() } else { all.clone() },
            served: !all.is_empty(),
            internal_is_local,
            node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0),
            external_ips: self.external_ips.clone(),
            source_ranges: self.source_ranges(),
            external: if external_is_local {
                ExternalPolicy::Local(local.clone())
            } else {
                ExternalPolicy::Cluster(all)
            },
            affinity: self.affinity(),
            local,
        })
    }

    fn affinity(&self) -> Option<Duration> {
        if self.spec.session_affinity.as_deref() != Some("ClientIP") {
            return None;
        }
        let configured = self
            .spec
            .session_affinity_config
            .as_ref()
            .and_then(|c| c.client_ip.as_ref())
            .and_then(|c| c.timeout_seconds);
        let seconds = configured.and_then(|s| u64::try_from(s).ok()).unwrap_or(DEFAULT_AFFINITY_S);
        Some(Duration::from_secs(seconds.clamp(1, MAX_AFFINITY_S)))
    }

    /// A range that cannot be read admits nobody, rather than everybody.
    fn source_ranges(&self) -> Vec<(Ipv4Addr, u8)> {
        let ranges = self.spec.load_balancer_source_ranges.iter().flatten();
        let parsed: Vec<_> = ranges.clone().filter_map(|text| parse_range(text.trim())).collect();
        if parsed.is_empty() && ranges.clone().next().is_some() { vec![(Ipv4Addr::LOCALHOST, 32)] } else { parsed }
    }
}

fn parse_range(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix_len) = text.split_once('/')?;
    let prefix_len = prefix_len.parse().ok().filter(|len| *len <= 32)?;
    Some((address.parse().ok()?, prefix_len))
}

/// What the load balancer gave; an address that it handles itself (`Proxy`) is none of the kernel's business.
fn ingress_addresses(service: &Service) -> Vec<Ipv4Addr> {
    if service.spec.as_ref().and_then(|s| s.type_.as_deref()) != Some("LoadBalancer") {
        return Vec::new();
    }
    let ingress =
        service.status.iter().filter_map(|s| s.load_balancer.as_ref()).flat_map(|b| b.ingress.iter().flatten());
    let addresses: BTreeSet<Ipv4Addr> = ingress
        .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|i| i.ip.as_deref()?.parse().ok())
        .collect();
    addresses.into_iter().collect()
}

#[cfg(test)]
mod tests;
