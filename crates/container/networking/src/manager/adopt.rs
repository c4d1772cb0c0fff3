//! Start and end: what an earlier process left is adopted, what nobody wants is removed.

use super::{Inner, NamespaceState, Networking, State, random_id};
use crate::endpoint::Handle;
use crate::journal::{Journal, make_directory};
use crate::rules::TABLE;
use crate::{
    BridgeConfig, DEFAULT_NETWORK, Driver, Endpoint, Error, Network, NetworkId, NetworkingConfig, POD_NETWORK, ipam,
    ports, rules,
};
use jiff::Timestamp;
use kernel::netlink::Route;
use kernel::netns;
use kernel::nft::{Family, Nft};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

impl Inner {
    pub(super) fn open(config: NetworkingConfig) -> Result<Arc<Self>, Error> {
        let pins = config.root.join("run/netns");
        make_directory(&pins)?;
        netns::prepare_pin_directory(&pins).map_err(Error::kernel("prepare the directory of namespaces"))?;
        let mut nft = Nft::open().map_err(Error::kernel("talk to nftables"))?;
        // The bridge family may be missing in a small kernel; containers work without it, and the log says what they lack.
        let guarded = match nft.replace(&rules::identity_table(std::iter::empty())) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "senders on bridges are not checked: the kernel has no nftables for bridges");
                false
            }
        };
        let inner = Arc::new(Self {
            journal: Journal::open(&config.root)?,
            state: Mutex::default(),
            route: Mutex::new(Route::open().map_err(Error::kernel("talk to the network stack"))?),
            nft: Mutex::new(nft),
            guarded,
            pool: Mutex::default(),
            refilling: false.into(),
            forwarder: Arc::default(),
            config,
        });
        inner.adopt_networks()?;
        netns::write_sysctl("net/ipv4/ip_forward", "1").map_err(Error::kernel("turn forwarding on"))?;
        inner.adopt_namespaces()?;
        inner.write_tables(None)?;
        inner.remove_orphan_links()?;
        inner.resume_resolvers();
        Ok(inner)
    }

    fn adopt_networks(&self) -> Result<(), Error> {
        for network in self.journal.networks()? {
            self.state().networks.insert(network.id.clone(), network);
        }
        self.ensure_predefined(DEFAULT_NETWORK, Driver::Bridge, Some(&self.config.default_bridge), false)?;
        self.ensure_predefined("host", Driver::Host, None, false)?;
        self.ensure_predefined("none", Driver::None, None, false)?;
        if let Some(pods) = &self.config.pod_bridge {
            self.ensure_predefined(POD_NETWORK, Driver::Bridge, Some(pods), true)?;
        }
        let bridges: Vec<Network> =
            self.state().networks.values().filter(|n| n.driver == Driver::Bridge).cloned().collect();
        bridges.iter().try_for_each(|network| self.ensure_bridge(network).map(|_| ()))
    }

    fn ensure_predefined(
        &self,
        name: &str,
        driver: Driver,
        bridge: Option<&BridgeConfig>,
        routed: bool,
    ) -> Result<(), Error> {
        if self.state().networks.values().any(|n| n.name == name) {
            return Ok(());
        }
        let subnet = match bridge {
            Some(bridge) => {
                let used = self.foreign_subnets()?;
                let ours = self.state().networks.values().filter_map(|n| n.subnet).collect::<Vec<_>>();
                let candidates: Vec<_> =
                    std::iter::once(bridge.subnet).chain(self.config.address_pools.iter().copied()).collect();
                // Another container engine on this machine may sit on the usual range.
                Some(if routed { bridge.subnet } else { ipam::choose_subnet(&candidates, &[used, ours].concat())? })
            }
            None => None,
        };
        let network = Network {
            id: NetworkId(random_id()),
            name: name.to_owned(),
            driver,
            created: Timestamp::now(),
            internal: false,
            attachable: false,
            interface: bridge.map(|b| b.interface.clone()).unwrap_or_default(),
            subnet,
            ip_range: None,
            gateway: subnet.map(|s| s.first_host()),
            reserved: Vec::new(),
            labels: Default::default(),
            options: Default::default(),
            user_defined: false,
            routed,
            endpoints: Vec::new(),
        };
        self.journal.save_network(&network)?;
        self.state().networks.insert(network.id.clone(), network);
        Ok(())
    }

    /// Namespaces that are still pinned live on with their endpoints; records without one (the machine was restarted) go.
    fn adopt_namespaces(&self) -> Result<(), Error> {
        let links: BTreeSet<String> =
            self.route().links().map_err(Error::kernel("list links"))?.into_iter().map(|l| l.name).collect();
        for (id, endpoints) in self.journal.namespaces()? {
            let path = self.pin(&id);
            if !netns::is_pinned(&path) {
                let _ = self.forget_namespace(&id);
                continue;
            }
            let handle = match Handle::adopt(&path) {
                Ok(handle) => Arc::new(handle),
                Err(error) => {
                    tracing::warn!(namespace = %id, %error, "a namespace could not be adopted");
                    continue;
                }
            };
            let networks = self.state().networks.keys().cloned().collect::<BTreeSet<_>>();
            // A crash between journal and kernel leaves an endpoint that never was.
            let endpoints: Vec<Endpoint> = endpoints
                .into_iter()
                .filter(|e| links.contains(&e.host_interface) && networks.contains(&e.network))
                .collect();
            self.journal.save_namespace(&id, &endpoints)?;
            let held = endpoints.iter().map(|e| (e.id.clone(), ports::hold_again(e))).collect();
            self.state().namespaces.insert(id, NamespaceState { handle, endpoints, held, resolver: None });
        }
        self.remove_orphan_pins()
    }

    fn remove_orphan_pins(&self) -> Result<(), Error> {
        let directory = self.pin_directory();
        for entry in std::fs::read_dir(&directory).map_err(Error::io("read directory", &directory))? {
            let entry = entry.map_err(Error::io("read directory", &directory))?;
            let known = entry.file_name().to_str().is_some_and(|name| self.state().namespaces.contains_key(name));
            if !known && let Err(error) = netns::unpin(&entry.path()) {
                tracing::warn!(%error, "a left-over namespace could not be removed");
            }
        }
        Ok(())
    }

    /// Ports of our bridges that no endpoint owns.
    fn remove_orphan_links(&self) -> Result<(), Error> {
        let links = self.route().links().map_err(Error::kernel("list links"))?;
        let orphans: Vec<&str> = {
            let state = self.state();
            let bridges: BTreeSet<u32> =
                links.iter().filter(|l| is_our_bridge(&state, &l.name)).map(|l| l.index).collect();
            let owned: BTreeSet<&str> =
                state.namespaces.values().flat_map(|n| &n.endpoints).map(|e| e.host_interface.as_str()).collect();
            links
                .iter()
                .filter(|l| {
                    l.name.starts_with("veth")
                        && l.master.is_some_and(|m| bridges.contains(&m))
                        && !owned.contains(l.name.as_str())
                })
                .map(|l| l.name.as_str())
                .collect()
        };
        for name in orphans {
            self.route().delete_link(name).map_err(Error::kernel("delete a left-over link"))?;
        }
        Ok(())
    }

    fn resume_resolvers(self: &Arc<Self>) {
        let wanted: Vec<String> = {
            let state = self.state();
            let named = |e: &Endpoint| state.networks.get(&e.network).is_some_and(|n| n.user_defined);
            state.namespaces.iter().filter(|(_, n)| n.endpoints.iter().any(named)).map(|(id, _)| id.clone()).collect()
        };
        for id in wanted {
            if let Err(error) = self.ensure_resolver(&id) {
                tracing::warn!(namespace = %id, %error, "a resolver could not be resumed");
            }
        }
    }

    /// Everything that is ours leaves the kernel and the disk.
    pub(super) fn purge(self: &Arc<Self>) -> Result<(), Vec<Error>> {
        let mut errors = Vec::new();
        let namespaces: Vec<String> = self.state().namespaces.keys().cloned().collect();
        for id in namespaces {
            errors.extend(self.remove_namespace(&id).err().into_iter().flatten());
        }
        errors.extend(self.remove_leaving_links().err());
        let networks = std::mem::take(&mut self.state().networks);
        for network in networks.values() {
            if network.driver == Driver::Bridge {
                errors.extend(
                    self.route().delete_link(&network.interface).map_err(Error::kernel("delete a bridge")).err(),
                );
            }
            errors.extend(self.journal.forget_network(&network.id).err());
        }
        let mut nft = self.nft();
        errors.extend(nft.delete_table(Family::Inet, TABLE).map_err(Error::kernel("delete the engine's table")).err());
        if self.guarded {
            errors.extend(
                nft.delete_table(Family::Bridge, TABLE)
                    .map_err(Error::kernel("delete the engine's bridge table"))
                    .err(),
            );
        }
        drop(nft);
        errors.extend(
            netns::release_pin_directory(&self.pin_directory())
                .map_err(Error::kernel("release the directory of namespaces"))
                .err(),
        );
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

fn is_our_bridge(state: &State, name: &str) -> bool {
    state.networks.values().any(|n| n.driver == Driver::Bridge && n.interface == name)
}

impl Networking {
    /// How many namespaces are ready to be taken.
    pub fn ready(&self) -> usize {
        self.inner.pool().len()
    }
}
