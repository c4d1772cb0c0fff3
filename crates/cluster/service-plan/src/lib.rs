//! Services, endpoints, policies → what the kernel and the resolver have to know (pure).
//!
//! `proxy` turns [`ServicePlan`] into nftables rules, `dns` answers from [`dns::ServiceRecords`]. Invariant: equal inputs make equal outputs, in
//! stable order, so that a change that does not matter to this node is no change at all. Deliberately not here: external IPs
//! (spec.externalIPs is ignored: CVE-2020-8554), topology hints, IPv6, network policies.

pub mod dns;
mod endpoints;
mod plan;

pub use endpoints::{Target, pick};
pub use plan::{ExternalPolicy, PortPlan, Protocol, ServicePlan, Settings, plan_service};

/// The name of a service that slices carry.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

#[cfg(test)]
mod fixtures;
