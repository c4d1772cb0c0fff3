//! What the node itself needs so that service addresses are reachable from it: a link that leads nowhere, an address, two routes.
//!
//! Called by `watch` at start and by `purge`. Idempotent. The link is a bridge without ports: small kernels have no dummy links, every
//! kernel that runs pods has bridges. Packets are translated before they would reach it.

use crate::ProxyConfig;
use kernel::netlink::{Destination, Error, Route};
use kernel::netns::write_sysctl;

pub(crate) fn ensure(config: &ProxyConfig) -> Result<(), Error> {
    let mut route = Route::open()?;
    let [a, b, c, d] = config.dns_address.octets();
    let interface = route.ensure_bridge(&config.interface, [0x02, 0x42, a, b, c, d])?;
    route.ensure_address(interface, config.dns_address, 32)?;
    for range in [config.service_range, config.load_balancer_range] {
        route.ensure_route(range, Destination::Link { interface, source: None })?;
    }
    write_sysctl("net/ipv4/ip_forward", "1")
}

pub(crate) fn remove(config: &ProxyConfig) -> Result<(), Error> {
    Route::open()?.delete_link(&config.interface).map(|_| ())
}
