//! Where objects lie in the store: `/registry/GROUP/PLURAL/[NAMESPACE/]NAME`, the core group as `core`.
//!
//! Invariant: no part of a key can hold a `/` (names are checked before a key is made), so a prefix that ends in `/`
//! selects exactly one namespace or one kind.

use bytes::Bytes;
use kube_types::Resource;

pub(crate) const ROOT: &str = "/registry/";

/// All objects of the kind, or those of one namespace.
pub(crate) fn prefix(resource: &Resource, namespace: &str) -> String {
    let group = if resource.group.is_empty() { "core" } else { &resource.group };
    let plural = &resource.plural;
    if resource.namespaced && !namespace.is_empty() {
        format!("{ROOT}{group}/{plural}/{namespace}/")
    } else {
        format!("{ROOT}{group}/{plural}/")
    }
}

pub(crate) fn object(resource: &Resource, namespace: &str, name: &str) -> Bytes {
    Bytes::from(prefix(resource, namespace) + name)
}

/// The key of an object of a kind that this crate knows by name.
pub(crate) fn known(group: &str, plural: &str, namespace: &str, name: &str) -> Bytes {
    let group = if group.is_empty() { "core" } else { group };
    Bytes::from(if namespace.is_empty() {
        format!("{ROOT}{group}/{plural}/{name}")
    } else {
        format!("{ROOT}{group}/{plural}/{namespace}/{name}")
    })
}

/// Marks an address or port of the service range as taken; written in the same transaction as its service.
pub(crate) fn cluster_ip(address: std::net::IpAddr) -> Bytes {
    Bytes::from(format!("/allocated/cluster-ip/{address}"))
}

pub(crate) fn node_port(port: u16, protocol: &str) -> Bytes {
    Bytes::from(format!("/allocated/node-port/{port}/{protocol}"))
}

/// Whether a path segment can be a name at all.
pub(crate) fn is_segment(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && name.len() <= 253 && !name.contains(['/', '%', '\0'])
}
