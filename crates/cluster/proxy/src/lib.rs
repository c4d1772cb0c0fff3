//! The shell that keeps the kernel's service rules as the cluster wants them.
//!
//! Reads services and endpoint slices through informers, decides with `service-plan`, renders and applies. The binary starts one a node.
//! Invariants: table `inet gantry-services` belongs to this crate alone; a change that does not change a service's plan writes nothing; until the
//! caches are complete the rules of an earlier process stay as they are. Deliberately not here: serving cluster DNS, giving out addresses.

mod applier;
mod node;
mod render;
mod watch;

pub use watch::{Error, Proxy, purge};

use std::net::Ipv4Addr;

/// What the proxy has to know about its node.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    pub node: String,
    /// Senders inside keep their address.
    pub pod_range: (Ipv4Addr, u8),
    pub service_range: (Ipv4Addr, u8),
    pub load_balancer_range: (Ipv4Addr, u8),
    /// The node's own resolver, put on `interface`.
    pub dns_address: Ipv4Addr,
    /// A link without traffic that makes the ranges routable for the node itself.
    pub interface: String,
}

impl ProxyConfig {
    /// The ranges that Gantry uses unless told otherwise.
    pub fn for_node(node: impl Into<String>) -> Self {
        let at = |b: u8, c: u8, d: u8| Ipv4Addr::new(10, b, c, d);
        Self {
            node: node.into(),
            pod_range: (at(42, 0, 0), 16),
            service_range: (at(43, 0, 0), 16),
            load_balancer_range: (at(44, 0, 0), 24),
            dns_address: at(43, 0, 10),
            interface: "gantry-svc".into(),
        }
    }
}
