//! What the kernel has, and the smallest batch that makes it what it should be.
//!
//! Invariant: after a successful apply the kernel's table equals `rendered`; after a failed one the whole table is written anew.

use crate::ProxyConfig;
use crate::render::{self, Rendered, TABLE, element_at, place, render};
use kernel::netlink::Error;
use kernel::nft::{Batch, Chain, Data, Element, Family, Key, Nft, Set, Table};
use service_plan::{PortPlan, Protocol, ServicePlan, Target};
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

/// Namespace and name.
pub(crate) type ServiceKey = (String, String);

#[derive(Debug)]
pub(crate) struct Applier {
    nft: Nft,
    config: ProxyConfig,
    services: BTreeMap<ServiceKey, Known>,
    /// Who wants an element, in order of arrival: the first one's data counts (two services may claim one address and port).
    claims: HashMap<(&'static str, Key), Vec<Data>>,
    /// The kernel has our table.
    written: bool,
}

#[derive(Debug, Default)]
struct Known {
    plan: ServicePlan,
    rendered: Vec<Rendered>,
}

/// UDP addresses whose translations are to be looked through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StaleUdp {
    pub(crate) addresses: Vec<Ipv4Addr>,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
    pub(crate) targets: Vec<(Ipv4Addr, u16)>,
}

impl Applier {
    pub(crate) fn new(config: ProxyConfig) -> Result<Self, Error> {
        Ok(Self { nft: Nft::open()?, config, services: BTreeMap::new(), claims: HashMap::new(), written: false })
    }

    /// Takes in the plans of services that changed. Returns what UDP has to forget; writes nothing where no plan differs.
    pub(crate) fn apply(&mut self, changes: Vec<(ServiceKey, ServicePlan)>) -> Result<Vec<StaleUdp>, Error> {
        let mut batch = Batch::new(Family::Inet, TABLE);
        let mut stale = Vec::new();
        for (key, plan) in changes {
            if self.services.get(&key).map(|k| &k.plan).unwrap_or(&ServicePlan::default()) == &plan {
                continue;
            }
            let new = Known { rendered: plan.ports.iter().map(|p| render(p, &self.config)).collect(), plan };
            let old = self.services.remove(&key).unwrap_or_default();
            stale.extend(stale_udp(&old.plan, &new.plan));
            self.patch(&mut batch, &old.rendered, &new.rendered);
            if !new.plan.ports.is_empty() {
                self.services.insert(key, new);
            }
        }
        if !self.written {
            self.replace()?;
            return Ok(stale);
        }
        if let Err(error) = self.nft.apply(&batch) {
            tracing::warn!(%error, "the table of services was not as it should be and is written anew");
            self.written = false;
            self.replace()?;
        }
        Ok(stale)
    }

    /// The whole table from what is known.
    pub(crate) fn replace(&mut self) -> Result<(), Error> {
        let mut sets = render::fixed_sets();
        for set in &mut sets {
            set.elements = self
                .claims
                .iter()
                .filter(|((name, _), _)| *name == set.name)
                .filter_map(|((_, key), data)| Some(element_at(key, data.first()?)))
                .collect();
        }
        let mut chains = render::fixed_chains();
        for rendered in self.services.values().flat_map(|k| &k.rendered) {
            sets.extend(rendered.sets.iter().cloned());
            chains.extend(rendered.chains.iter().cloned());
        }
        let table =
            Table { family: Family::Inet, name: TABLE.into(), comment: Some("cluster services".into()), sets, chains };
        self.nft.replace(&table)?;
        self.written = true;
        Ok(())
    }

    /// Whether any service in the kernel sends new connections to one of these addresses.
    pub(crate) fn sends_to(&self, addresses: &[Ipv4Addr]) -> bool {
        let hit = |targets: &[Target]| targets.iter().any(|target| addresses.contains(&target.address));
        self.services
            .values()
            .flat_map(|known| &known.plan.ports)
            .any(|port| hit(&port.internal) || hit(port.external.targets()))
    }

    pub(crate) fn purge(&mut self) -> Result<(), Error> {
        self.written = false;
        self.nft.delete_table(Family::Inet, TABLE)
    }

    /// Order matters: what is referred to comes before what refers to it, and goes after it.
    fn patch(&mut self, batch: &mut Batch, old: &[Rendered], new: &[Rendered]) {
        let (old_chains, new_chains) =
            (by_name(old, |r| &r.chains, |c: &Chain| &c.name), by_name(new, |r| &r.chains, |c: &Chain| &c.name));
        let (old_sets, new_sets) =
            (by_name(old, |r| &r.sets, |s: &Set| &s.name), by_name(new, |r| &r.sets, |s: &Set| &s.name));
        for (name, set) in &new_sets {
            if !old_sets.contains_key(name) {
                batch.add_set(set);
            }
        }
        for (name, chain) in &new_chains {
            if !old_chains.contains_key(name) {
                batch.declare_chain(chain);
            }
        }
        self.patch_elements(batch, old, new);
        for (name, chain) in &old_chains {
            if new_chains.get(name).is_none_or(|c| c.rules != chain.rules) {
                batch.flush_chain(name);
            }
        }
        for (name, chain) in &new_chains {
            if old_chains.get(name).is_none_or(|c| c.rules != chain.rules) {
                batch.add_rules(name, &chain.rules);
            }
        }
        for name in old_chains.keys().filter(|n| !new_chains.contains_key(*n)) {
            batch.delete_chain(name);
        }
        for name in old_sets.keys().filter(|n| !new_sets.contains_key(*n)) {
            batch.delete_set(name);
        }
    }

    fn patch_elements(&mut self, batch: &mut Batch, old: &[Rendered], new: &[Rendered]) {
        let mut touched: HashMap<(&'static str, Key), Option<Data>> = HashMap::new();
        let all = |rendered: &[Rendered]| {
            rendered.iter().flat_map(|r| r.elements.clone()).collect::<Vec<(&'static str, Element)>>()
        };
        // New claims first, so that an element that stays keeps its place in the order.
        for (set, element) in all(new) {
            let claim = self.claims.entry(place(set, &element)).or_default();
            touched.entry(place(set, &element)).or_insert_with(|| claim.first().cloned());
            claim.push(element.data);
        }
        for (set, element) in all(old) {
            let at = place(set, &element);
            let Some(claim) = self.claims.get_mut(&at) else {
                continue;
            };
            touched.entry(at.clone()).or_insert_with(|| claim.first().cloned());
            if let Some(index) = claim.iter().position(|d| *d == element.data) {
                claim.remove(index);
            }
            if claim.is_empty() {
                self.claims.remove(&at);
            }
        }
        for (at, before) in touched {
            let after = self.claims.get(&at).and_then(|c| c.first());
            if before.as_ref() == after {
                continue;
            }
            if before.is_some() {
                batch.delete_elements(at.0, &[Element::key(at.1.clone())]);
            }
            if let Some(data) = after {
                batch.add_elements(at.0, &[element_at(&at.1, data)]);
            }
        }
    }
}

fn by_name<'a, T: 'a>(
    rendered: &'a [Rendered],
    all: impl Fn(&'a Rendered) -> &'a Vec<T>,
    name: impl Fn(&'a T) -> &'a String,
) -> BTreeMap<&'a str, &'a T> {
    rendered.iter().flat_map(|r| all(r).iter()).map(|item| (name(item).as_str(), item)).collect()
}

/// Ports whose UDP clients may be bound to an endpoint that is gone, or to none because there was none.
fn stale_udp(old: &ServicePlan, new: &ServicePlan) -> Vec<StaleUdp> {
    let targets = |plan: &PortPlan| {
        plan.internal.iter().chain(plan.external.targets()).map(|t| (t.address, t.port)).collect::<Vec<_>>()
    };
    let udp =
        |plan: &'_ ServicePlan| plan.ports.iter().filter(|p| p.protocol == Protocol::Udp).cloned().collect::<Vec<_>>();
    let new_ports = udp(new);
    let current = |title: &str| new_ports.iter().find(|p| p.title == title);
    let mut stale: Vec<StaleUdp> = Vec::new();
    for port in udp(old).iter().chain(&new_ports) {
        let addresses = std::iter::once(port.cluster_ip).chain(port.external_ips.iter().copied()).collect();
        let entry = StaleUdp {
            addresses,
            port: port.port,
            node_port: port.node_port,
            targets: current(&port.title).map(targets).unwrap_or_default(),
        };
        if !stale.contains(&entry) {
            stale.push(entry);
        }
    }
    stale
}

#[cfg(test)]
mod tests;
