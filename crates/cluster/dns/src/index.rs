//! All names of the cluster, by service, with the way back from addresses.

use service_plan::dns::{Data, ServiceRecords};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Namespace and name.
type Key = (String, String);

#[derive(Debug, Default)]
pub(crate) struct Index {
    services: BTreeMap<Key, ServiceRecords>,
    reverse: BTreeMap<Ipv4Addr, BTreeSet<String>>,
    /// Everything has been told once.
    pub(crate) complete: bool,
}

impl Index {
    /// Replaces what is known of one service; empty records forget it.
    pub(crate) fn set(&mut self, key: Key, records: ServiceRecords) {
        if let Some(old) = self.services.remove(&key) {
            for (address, names) in old.reverse {
                if let Some(known) = self.reverse.get_mut(&address) {
                    known.retain(|name| !names.contains(name));
                    if known.is_empty() {
                        self.reverse.remove(&address);
                    }
                }
            }
        }
        if records == ServiceRecords::default() {
            return;
        }
        for (address, names) in &records.reverse {
            self.reverse.entry(*address).or_default().extend(names.iter().cloned());
        }
        self.services.insert(key, records);
    }

    pub(crate) fn find(&self, namespace: &str, service: &str, name: &str) -> Option<&Data> {
        self.services.get(&(namespace.to_owned(), service.to_owned()))?.names.get(name)
    }

    /// Has no data of its own, but names below it do.
    pub(crate) fn is_passage(&self, namespace: &str, service: &str, name: &str) -> bool {
        self.services.get(&(namespace.to_owned(), service.to_owned())).is_some_and(|r| r.has_below(name))
    }

    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.services
            .range((namespace.to_owned(), String::new())..)
            .next()
            .is_some_and(|((found, _), _)| found == namespace)
    }

    pub(crate) fn names_of(&self, address: Ipv4Addr) -> Option<&BTreeSet<String>> {
        self.reverse.get(&address)
    }
}
