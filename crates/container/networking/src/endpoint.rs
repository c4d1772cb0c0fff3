//! One endpoint in the kernel: the veth pair, its addresses, its routes.
//!
//! Called by `manager` inside a blocking task. The namespace's end is configured over a socket that was opened in the namespace, so
//! nothing has to enter it again.

use crate::{Endpoint, Error, Network};
use kernel::netlink::{Error as KernelError, Route, VethSpec, settle_link};
use kernel::netns::{self, Namespace};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A namespace and a route socket inside it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) namespace: Namespace,
    route: Mutex<Route>,
}

impl Handle {
    /// A new namespace, its loopback up, hardened against redirects and router advertisements.
    pub(crate) fn create() -> Result<Self, KernelError> {
        let (namespace, route) = Namespace::create(|| {
            let mut route = Route::open()?;
            let lo = route.link("lo")?.ok_or_else(|| KernelError::Malformed("find link lo".into()))?;
            route.set_up(lo.index)?;
            for (name, value) in [
                // A redirect would lead the container around the gateway, and so around every translation.
                ("net/ipv4/conf/all/accept_redirects", "0"),
                ("net/ipv4/conf/default/accept_redirects", "0"),
                ("net/ipv6/conf/default/disable_ipv6", "1"),
                ("net/ipv4/ip_unprivileged_port_start", "0"),
                ("net/ipv4/ping_group_range", "0 2147483647"),
            ] {
                // Absent where the kernel was built without; the container works all the same.
                if let Err(error) = netns::write_sysctl(name, value) {
                    tracing::debug!(%error, "a namespace setting was not made");
                }
            }
            Ok(route)
        })?;
        Ok(Self { namespace, route: Mutex::new(route) })
    }

    /// One that outlived the last process.
    pub(crate) fn adopt(path: &std::path::Path) -> Result<Self, KernelError> {
        let namespace = Namespace::open(path)?;
        let route = namespace.run(Route::open)??;
        Ok(Self { namespace, route: Mutex::new(route) })
    }

    fn route(&self) -> MutexGuard<'_, Route> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the endpoint real. `default_route` is false where another endpoint has it already.
    pub(crate) fn attach(
        &self,
        host: &Mutex<Route>,
        bridge: u32,
        network: &Network,
        endpoint: &Endpoint,
        default_route: bool,
    ) -> Result<(), Error> {
        let mtu = network
            .options
            .get("com.docker.network.driver.mtu")
            .and_then(|text| text.parse().ok())
            .filter(|mtu| (68..=65_535).contains(mtu));
        let spec = VethSpec {
            name: &endpoint.host_interface,
            master: Some(bridge),
            namespace: self.namespace.as_fd(),
            peer_name: &endpoint.interface,
            peer_mac: Some(endpoint.mac.0),
            mtu,
        };
        host.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .create_veth(&spec)
            .map_err(Error::kernel("make the endpoint's link"))?;
        self.configure(endpoint, default_route).map_err(Error::kernel("configure the endpoint's link"))?;
        // The port first: its carrier is what gives the bridge one.
        for link in [&endpoint.host_interface, &network.interface] {
            settle_link(link).map_err(Error::kernel("bring the endpoint's link up"))?;
        }
        Ok(())
    }

    fn configure(&self, endpoint: &Endpoint, default_route: bool) -> Result<(), KernelError> {
        let mut route = self.route();
        let link = route
            .link(&endpoint.interface)?
            .ok_or_else(|| KernelError::Malformed(format!("find link {}", endpoint.interface)))?;
        route.configure(link.index, endpoint.address, endpoint.prefix_len, endpoint.gateway.filter(|_| default_route))
    }

    /// After the endpoint with the default route has left.
    pub(crate) fn take_over_default_route(&self, endpoint: &Endpoint) -> Result<(), Error> {
        self.configure(endpoint, true).map_err(Error::kernel("move the default route"))
    }
}

/// Removes both ends; idempotent.
pub(crate) fn detach(host: &Mutex<Route>, endpoint: &Endpoint) -> Result<(), Error> {
    host.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .delete_link(&endpoint.host_interface)
        .map_err(Error::kernel("delete the endpoint's link"))?;
    Ok(())
}
