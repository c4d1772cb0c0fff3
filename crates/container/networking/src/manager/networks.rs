//! Making and removing networks.

use super::{Inner, random_id};
use crate::{DEFAULT_NETWORK, Driver, Error, MacAddress, Network, NetworkId, NetworkSpec, POD_NETWORK, Subnet, ipam};
use jiff::Timestamp;
use kernel::netns::write_sysctl;

impl Inner {
    pub(super) fn create_network(&self, spec: NetworkSpec) -> Result<Network, Error> {
        check_spec(&spec)?;
        let foreign = self.foreign_subnets()?;
        let network = {
            let mut state = self.state();
            if state.networks.values().any(|n| n.name == spec.name) {
                return Err(Error::NetworkExists(spec.name));
            }
            let ours: Vec<Subnet> = state.networks.values().filter_map(|n| n.subnet).collect();
            let subnet = match spec.subnet {
                Some(wanted) if ours.iter().any(|s| s.overlaps(&wanted)) => {
                    return Err(Error::SubnetOverlap);
                }
                Some(wanted) => wanted,
                None => ipam::choose_subnet(&self.config.address_pools, &[ours, foreign].concat())?,
            };
            let network = describe(spec, subnet);
            self.journal.save_network(&network)?;
            state.networks.insert(network.id.clone(), network.clone());
            network
        };
        let made = self.ensure_bridge(&network).and_then(|_| self.write_tables(None));
        if let Err(error) = made {
            let _ = self.drop_network(&network);
            return Err(error);
        }
        tracing::info!(network = %network.name, id = %network.id, "network created");
        Ok(network)
    }

    pub(super) fn remove_network(&self, name_or_id: &str) -> Result<(), Error> {
        let network = {
            let state = self.state();
            let network = state.with_endpoints(state.find(name_or_id)?);
            if !network.user_defined {
                return Err(Error::Predefined(network.name));
            }
            if !network.endpoints.is_empty() {
                let endpoints: Vec<String> =
                    network.endpoints.iter().map(|e| format!("name:\"{}\" id:\"{:.12}\"", e.name, e.id)).collect();
                return Err(Error::ActiveEndpoints { name: network.name, endpoints: endpoints.join(", ") });
            }
            network
        };
        self.drop_network(&network)?;
        tracing::info!(network = %network.name, id = %network.id, "network removed");
        Ok(())
    }

    /// The link first and the record last: a crash in between leaves a network that can be removed again.
    fn drop_network(&self, network: &Network) -> Result<(), Error> {
        self.route().delete_link(&network.interface).map_err(Error::kernel("delete a bridge"))?;
        self.state().networks.remove(&network.id);
        self.write_tables(None)?;
        self.journal.forget_network(&network.id)
    }

    /// The bridge, its address and its settings; idempotent. Returns its index.
    pub(super) fn ensure_bridge(&self, network: &Network) -> Result<u32, Error> {
        let (Some(subnet), Some(gateway)) = (network.subnet, network.gateway) else {
            return Err(Error::NoAddressLeft(network.name.clone()));
        };
        let index = {
            let mut route = self.route();
            let index = route
                .ensure_bridge(&network.interface, MacAddress::from_address(gateway).0)
                .map_err(Error::kernel("make a bridge"))?;
            route
                .ensure_address(index, gateway, subnet.prefix_len())
                .map_err(Error::kernel("give a bridge its address"))?;
            index
        };
        let interface = &network.interface;
        // Published ports must be reachable from 127.0.0.1; the loopback guard of the engine's table closes what this opens.
        write_sysctl(&format!("net/ipv4/conf/{interface}/route_localnet"), "1")
            .map_err(Error::kernel("let loopback reach a bridge"))?;
        for (name, value) in [
            (format!("net/ipv4/conf/{interface}/send_redirects"), "0"),
            (format!("net/ipv6/conf/{interface}/disable_ipv6"), "1"),
        ] {
            if let Err(error) = write_sysctl(&name, value) {
                tracing::debug!(%error, "a bridge setting was not made");
            }
        }
        Ok(index)
    }

    /// What the node's other interfaces use.
    pub(super) fn foreign_subnets(&self) -> Result<Vec<Subnet>, Error> {
        let mut route = self.route();
        let links = route.links().map_err(Error::kernel("list links"))?;
        let addresses = route.addresses().map_err(Error::kernel("list addresses"))?;
        drop(route);
        let state = self.state();
        let is_ours = |index: u32| {
            links.iter().any(|l| l.index == index && state.networks.values().any(|n| n.interface == l.name))
        };
        Ok(addresses
            .into_iter()
            .filter(|(index, _, _)| !is_ours(*index))
            .map(|(_, address, prefix_len)| {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0);
                Subnet { address: (u32::from(address) & mask).into(), prefix_len }
            })
            .collect())
    }
}

fn check_spec(spec: &NetworkSpec) -> Result<(), Error> {
    let mut bytes = spec.name.bytes();
    let fine = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && spec.name.len() <= 255;
    if !fine {
        return Err(Error::InvalidName(spec.name.clone()));
    }
    if [DEFAULT_NETWORK, "host", "none", "default", POD_NETWORK].contains(&spec.name.as_str()) {
        return Err(Error::PredefinedName(spec.name.clone()));
    }
    if !matches!(spec.driver.as_str(), "" | "bridge" | "default") {
        return Err(Error::UnknownDriver(spec.driver.clone()));
    }
    if let Some(subnet) = spec.subnet {
        if let Some(range) = spec.ip_range
            && !(subnet.contains(range.address()) && subnet.contains(range.broadcast()))
        {
            return Err(Error::InvalidSubnet(range.to_string(), "the range is not inside the subnet"));
        }
        if let Some(outside) = spec.gateway.iter().chain(&spec.reserved).find(|ip| !subnet.contains(**ip)) {
            return Err(Error::AddressOutside(*outside));
        }
    } else if spec.ip_range.is_some() || spec.gateway.is_some() {
        return Err(Error::InvalidSubnet(String::new(), "a range or a gateway needs a subnet"));
    }
    Ok(())
}

fn describe(spec: NetworkSpec, subnet: Subnet) -> Network {
    let id = random_id();
    let interface = match spec.options.get("com.docker.network.bridge.name") {
        Some(name) => name.clone(),
        None => format!("br-{}", &id[..12]),
    };
    Network {
        id: NetworkId(id),
        name: spec.name,
        driver: Driver::Bridge,
        created: Timestamp::now(),
        internal: spec.internal,
        attachable: spec.attachable,
        interface,
        subnet: Some(subnet),
        ip_range: spec.ip_range,
        gateway: Some(spec.gateway.unwrap_or_else(|| subnet.first_host())),
        reserved: spec.reserved,
        labels: spec.labels,
        options: spec.options,
        user_defined: true,
        routed: false,
        endpoints: Vec::new(),
    }
}
