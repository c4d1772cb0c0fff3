//! One actor's copy of the cluster: fed from the log, late, doubled and torn.
//!
//! Invariants: events of one kind come in the log's order (as a watch promises), those of different kinds do not; an
//! event that is older than what is known changes nothing; a lost event means a broken watch, which is found out later
//! and answered with a new list.

use crate::objects::{Key, Kind, Object, Typed};
use crate::random::Random;
use crate::store::{Logged, Store};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How the watches of a run misbehave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// The longest delay of an event, in milliseconds.
    pub(crate) delay_ms: u64,
    /// In thousandths of all events.
    pub(crate) doubled: u64,
    pub(crate) lost: u64,
    /// Crashes, in thousandths of all writes.
    pub(crate) crash: u64,
}

impl Faults {
    pub(crate) const NONE: Faults = Faults { delay_ms: 1, doubled: 0, lost: 0, crash: 0 };
}

#[derive(Default)]
struct Stream {
    /// How far into the log it has read.
    read: usize,
    /// What is on its way, with the time of its arrival.
    under_way: std::collections::VecDeque<(u64, Logged)>,
    /// A broken watch: nothing comes until then, and then a list.
    broken_until: Option<u64>,
    last_arrival: u64,
}

pub(crate) struct Copy {
    objects: BTreeMap<Key, Object>,
    /// The newest version that is known of each key, also of what is gone.
    versions: BTreeMap<Key, u64>,
    streams: BTreeMap<Kind, Stream>,
}

impl Copy {
    /// As after a start: everything is listed.
    pub(crate) fn fresh(store: &Store) -> Self {
        let mut copy = Copy { objects: BTreeMap::new(), versions: BTreeMap::new(), streams: BTreeMap::new() };
        for kind in Kind::ALL {
            copy.streams.insert(*kind, Stream::default());
            copy.list(*kind, store);
        }
        copy
    }

    fn list(&mut self, kind: Kind, store: &Store) {
        self.objects.retain(|(k, _), _| *k != kind);
        self.versions.retain(|(k, _), _| *k != kind);
        for object in store.of_kind(kind) {
            self.versions.insert(object.key(), object.version());
            self.objects.insert(object.key(), object.clone());
        }
        let stream = self.streams.entry(kind).or_default();
        *stream = Stream { read: store.log.len(), ..Stream::default() };
    }

    /// Takes in what has arrived by now; says whether anything changed.
    pub(crate) fn advance(&mut self, store: &Store, now_ms: u64, faults: Faults, random: &mut Random) -> bool {
        let mut changed = false;
        for kind in Kind::ALL {
            let Some(stream) = self.streams.get_mut(kind) else { continue };
            if let Some(until) = stream.broken_until {
                if now_ms >= until {
                    self.list(*kind, store);
                    changed = true;
                }
                continue;
            }
            while stream.read < store.log.len() {
                let event = &store.log[stream.read];
                stream.read += 1;
                if event.key.0 != *kind {
                    continue;
                }
                if random.chance(faults.lost) {
                    stream.broken_until = Some(now_ms + 1000 + random.below(5000));
                    break;
                }
                let arrival = (now_ms + random.below(faults.delay_ms)).max(stream.last_arrival);
                stream.last_arrival = arrival;
                stream.under_way.push_back((arrival, event.clone()));
                if random.chance(faults.doubled) {
                    stream.under_way.push_back((arrival, event.clone()));
                }
            }
            let mut arrived = Vec::new();
            while stream.under_way.front().is_some_and(|(at, _)| *at <= now_ms) {
                arrived.extend(stream.under_way.pop_front().map(|(_, event)| event));
            }
            for event in arrived {
                changed |= self.apply(event);
            }
        }
        changed
    }

    fn apply(&mut self, event: Logged) -> bool {
        let known = self.versions.get(&event.key).copied().unwrap_or(0);
        if event.version <= known {
            return false;
        }
        self.versions.insert(event.key.clone(), event.version);
        match event.object {
            Some(object) => self.objects.insert(event.key, object),
            None => self.objects.remove(&event.key),
        };
        true
    }

    /// Own writes are seen at once.
    pub(crate) fn observe(&mut self, object: &Object) {
        self.apply(Logged { version: object.version(), key: object.key(), object: Some(object.clone()) });
    }

    /// An own deletion whose answer was that nothing is left.
    pub(crate) fn observe_gone(&mut self, key: &Key, store: &Store) {
        if store.get(key).is_none() {
            self.apply(Logged { version: store.version(), key: key.clone(), object: None });
        }
    }

    pub(crate) fn typed<K: Typed>(&self) -> Vec<Arc<K>> {
        let from = (K::KIND_OF, String::new());
        let inside = self.objects.range(from..).take_while(|((k, _), _)| *k == K::KIND_OF);
        inside.filter_map(|(_, o)| K::unwrap(o)).collect()
    }

    pub(crate) fn get<K: Typed>(&self, name: &str) -> Option<Arc<K>> {
        self.objects.get(&(K::KIND_OF, name.to_owned())).and_then(K::unwrap)
    }
}
