//! Joining and leaving a network.

use super::{Inner, State, random_id};
use crate::endpoint::{Handle, detach};
use crate::ports::{self, Held};
use crate::{Driver, Endpoint, EndpointSpec, Error, MacAddress, Network, PortBinding, ipam, resolver};
use kernel::netlink::Route;
use std::sync::{Arc, Mutex};

/// What `connect` decided under the lock.
struct Plan {
    network: Network,
    endpoint: Endpoint,
    handle: Arc<Handle>,
    default_route: bool,
}

impl Inner {
    pub(super) fn connect(self: &Arc<Self>, id: &str, network: &str, spec: EndpointSpec) -> Result<Endpoint, Error> {
        let plan = self.reserve_endpoint(id, network, spec)?;
        match self.realise(&plan) {
            Ok(()) => {
                tracing::debug!(namespace = id, network = %plan.network.name, address = %plan.endpoint.address, "connected");
                Ok(plan.endpoint)
            }
            Err(error) => {
                let _ = self.tear_down(&plan.endpoint);
                let _ = self.release(&plan.endpoint);
                Err(error)
            }
        }
    }

    fn reserve_endpoint(&self, id: &str, network: &str, spec: EndpointSpec) -> Result<Plan, Error> {
        let mut state = self.state();
        let network = state.find(network)?.clone();
        let namespace = state.namespaces.get(id).ok_or_else(|| Error::NamespaceNotFound(id.to_owned()))?;
        if network.driver != Driver::Bridge {
            return Err(Error::PredefinedName(network.name));
        }
        if namespace.endpoints.iter().any(|e| e.network == network.id) {
            return Err(Error::EndpointExists { endpoint: spec.name, network: network.name });
        }
        let address = ipam::choose_address(
            &network,
            &state.addresses_of(&network.id),
            spec.ip,
            state.last_address.get(&network.id).copied(),
        )?;
        // Nothing reaches an internal network from outside, so nothing is published there.
        let wanted = if network.internal { &[] } else { spec.ports.as_slice() };
        let (bindings, held) = reserve_ports(&state, wanted, address)?;
        let default_route = !network.internal && namespace.endpoints.iter().all(|e| e.gateway.is_none());
        let endpoint = Endpoint {
            id: random_id(),
            network: network.id.clone(),
            network_name: network.name.clone(),
            namespace: id.to_owned(),
            name: spec.name,
            aliases: spec.aliases,
            address,
            prefix_len: if network.routed { 32 } else { network.subnet.map_or(32, |s| s.prefix_len()) },
            gateway: network.gateway.filter(|_| !network.internal),
            mac: spec.mac.unwrap_or_else(|| MacAddress::from_address(address)),
            interface: free_interface(&namespace.endpoints),
            host_interface: format!("veth{}", &random_id()[..8]),
            ports: bindings,
            dns: spec.dns,
            links: spec.links,
        };
        let handle = namespace.handle.clone();
        let mut endpoints = namespace.endpoints.clone();
        endpoints.push(endpoint.clone());
        self.journal.save_namespace(id, &endpoints)?;
        state.last_address.insert(network.id.clone(), address);
        if let Some(namespace) = state.namespaces.get_mut(id) {
            namespace.endpoints = endpoints;
            namespace.held.insert(endpoint.id.clone(), held);
        }
        Ok(Plan { network, endpoint, handle, default_route })
    }

    fn realise(self: &Arc<Self>, plan: &Plan) -> Result<(), Error> {
        let bridge = self.bridge_index(&plan.network)?;
        // The guard first: the link is never up without it.
        self.change_elements(&plan.endpoint, plan.network.routed, true)?;
        plan.handle.attach(&self.route, bridge, &plan.network, &plan.endpoint, plan.default_route)?;
        if plan.network.user_defined {
            self.ensure_resolver(&plan.endpoint.namespace)?;
        }
        Ok(())
    }

    fn bridge_index(&self, network: &Network) -> Result<u32, Error> {
        let link = self.route().link(&network.interface).map_err(Error::kernel("find a bridge"))?;
        match link {
            Some(link) => Ok(link.index),
            // Someone deleted it: it is made again.
            None => self.ensure_bridge(network),
        }
    }

    /// Idempotent: one resolver a namespace.
    pub(super) fn ensure_resolver(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let handle = {
            let state = self.state();
            let Some(namespace) = state.namespaces.get(id) else {
                return Ok(());
            };
            if namespace.resolver.is_some() {
                return Ok(());
            }
            namespace.handle.clone()
        };
        let server = resolver::spawn(self, id, &handle)?;
        if let Some(namespace) = self.state().namespaces.get_mut(id) {
            namespace.resolver = Some(server);
        }
        Ok(())
    }

    pub(super) fn disconnect(&self, id: &str, network: &str) -> Result<(), Error> {
        let (endpoint, handle) = {
            let state = self.state();
            let network = state.find(network)?;
            let namespace = state.namespaces.get(id).ok_or_else(|| Error::NamespaceNotFound(id.to_owned()))?;
            let found = namespace.endpoints.iter().find(|e| e.network == network.id);
            let endpoint =
                found.ok_or_else(|| Error::NotConnected { namespace: id.to_owned(), network: network.name.clone() })?;
            (endpoint.clone(), namespace.handle.clone())
        };
        let torn = self.tear_down(&endpoint);
        self.release(&endpoint)?;
        let next =
            self.state().namespaces.get(id).and_then(|n| n.endpoints.iter().find(|e| e.gateway.is_some()).cloned());
        if endpoint.gateway.is_some()
            && let Some(next) = next
        {
            handle.take_over_default_route(&next)?;
        }
        torn
    }

    /// Takes an endpoint out of the kernel; goes on past a failure, the first one is told.
    pub(super) fn tear_down(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let cleared = self.clear_rules(endpoint);
        detach(&self.route, endpoint).and(cleared)
    }

    /// From here on nothing is led to the endpoint any more.
    pub(super) fn clear_rules(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let routed = self.state().networks.get(&endpoint.network).is_some_and(|n| n.routed);
        let cleared = self.change_elements(endpoint, routed, false);
        if endpoint.ports.iter().any(|p| p.protocol == crate::Protocol::Udp) {
            forget_flows(endpoint);
        }
        cleared
    }

    /// Deletes the links of endpoints whose namespace is gone, then gives back their addresses. The kernel takes 10 to 20 ms
    /// for a link, which nobody has to wait for; a crash before the end leaves links that the next start removes.
    pub(super) fn remove_leaving_links(&self) -> Result<(), Error> {
        let leaving = self.state().leaving.clone();
        // A socket of its own: `connect` need not wait for its turn on the shared one.
        let route = Mutex::new(Route::open().map_err(Error::kernel("talk to the network stack"))?);
        let mut done = Ok(());
        for endpoint in leaving {
            let detached = detach(&route, &endpoint);
            if detached.is_ok() {
                self.state().leaving.retain(|e| e.id != endpoint.id);
            }
            done = done.and(detached);
        }
        done
    }

    /// Gives back the endpoint's address and ports.
    fn release(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let mut state = self.state();
        let Some(namespace) = state.namespaces.get_mut(&endpoint.namespace) else {
            return Ok(());
        };
        namespace.endpoints.retain(|e| e.id != endpoint.id);
        namespace.held.remove(&endpoint.id);
        self.journal.save_namespace(&endpoint.namespace, &namespace.endpoints)
    }
}

fn reserve_ports(
    state: &State,
    wanted: &[crate::PublishedPort],
    address: std::net::Ipv4Addr,
) -> Result<(Vec<PortBinding>, Vec<Held>), Error> {
    if wanted.is_empty() {
        return Ok(Default::default());
    }
    let mut taken: Vec<PortBinding> =
        state.namespaces.values().flat_map(|n| &n.endpoints).flat_map(|e| e.ports.iter().cloned()).collect();
    let (mut bindings, mut held) = (Vec::new(), Vec::new());
    for port in wanted {
        let (binding, socket) = ports::reserve(port, address, &taken)?;
        taken.push(binding.clone());
        bindings.push(binding);
        held.push(socket);
    }
    Ok((bindings, held))
}

/// The lowest `ethN` that is free.
fn free_interface(endpoints: &[Endpoint]) -> String {
    (0..).map(|n| format!("eth{n}")).find(|name| endpoints.iter().all(|e| e.interface != *name)).unwrap_or_default()
}

/// A client that keeps sending would keep its translation to the endpoint that is gone.
fn forget_flows(endpoint: &Endpoint) {
    let forgotten = kernel::netlink::Conntrack::open()
        .and_then(|mut table| table.forget(|flow| flow.protocol == 17 && flow.answered_by == endpoint.address));
    if let Err(error) = forgotten {
        tracing::debug!(%error, "connections could not be looked through");
    }
}
