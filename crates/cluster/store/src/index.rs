//! The key space in memory: every key's latest value, and where its earlier values stand on disk.
//!
//! The writer applies what has become durable; readers look under a read lock and load old values after releasing it.
//! Invariants: `versions` is in ascending order and its last element describes `current`; `changes` holds every
//! (revision, key) after the compacted revision; nothing here is visible before it is on disk.
//! No I/O happens here.

use crate::log::Location;
use crate::types::{Compacted, KeyValue, ReadError};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

#[derive(Default)]
pub(crate) struct Index {
    keys: BTreeMap<Bytes, Entry>,
    changes: VecDeque<(u64, Bytes)>,
    live: usize,
    revision: u64,
    compacted: u64,
}

#[derive(Default)]
struct Entry {
    current: Option<KeyValue>,
    versions: Vec<Version>,
}

struct Version {
    mod_revision: u64,
    create_revision: u64,
    /// None: the key was deleted here.
    location: Option<Location>,
}

/// One durable change.
pub(crate) struct Change {
    pub(crate) key: Bytes,
    pub(crate) mod_revision: u64,
    pub(crate) put: Option<(KeyValue, Location)>,
}

/// A value that is at hand, or that has to be read from disk.
pub(crate) enum Found {
    Here(KeyValue),
    OnDisk { key: Bytes, create_revision: u64, mod_revision: u64, location: Location },
}

impl Found {
    pub(crate) fn load(self) -> crate::Result<KeyValue> {
        match self {
            Found::Here(kv) => Ok(kv),
            Found::OnDisk { key, create_revision, mod_revision, location } => {
                let value = location.read(&key)?;
                Ok(KeyValue { key, value, create_revision, mod_revision })
            }
        }
    }
}

pub(crate) struct Page {
    pub(crate) found: Vec<Found>,
    pub(crate) revision: u64,
    pub(crate) more: bool,
}

/// A change out of the history, its values not loaded yet.
pub(crate) struct PastChange {
    pub(crate) revision: u64,
    pub(crate) key: Bytes,
    pub(crate) new: Option<Found>,
    pub(crate) prev: Option<Found>,
}

impl Entry {
    fn found(&self, key: &Bytes, version: usize) -> Option<Found> {
        let v = self.versions.get(version)?;
        if version + 1 == self.versions.len()
            && let Some(current) = &self.current
        {
            return Some(Found::Here(current.clone()));
        }
        v.location.as_ref().map(|location| Found::OnDisk {
            key: key.clone(),
            create_revision: v.create_revision,
            mod_revision: v.mod_revision,
            location: location.clone(),
        })
    }

    /// The position of the version that was valid at `revision`.
    fn position(&self, revision: u64) -> Option<usize> {
        self.versions.partition_point(|v| v.mod_revision <= revision).checked_sub(1)
    }
}

impl Index {
    /// An empty key space whose history begins at `compacted`.
    pub(crate) fn starting_at(compacted: u64) -> Self {
        Index { revision: compacted, compacted, ..Index::default() }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key)?.current.as_ref()
    }

    pub(crate) fn at(&self, key: &[u8], revision: u64) -> Result<Option<Found>, ReadError> {
        self.check(revision)?;
        let Some((key, entry)) = self.keys.get_key_value(key) else {
            return Ok(None);
        };
        Ok(entry.position(revision).and_then(|p| entry.found(key, p)))
    }

    fn check(&self, requested: u64) -> Result<(), ReadError> {
        if requested > self.revision {
            return Err(ReadError::Future { requested, current: self.revision });
        }
        Ok(self.check_history(requested)?)
    }

    pub(crate) fn check_history(&self, requested: u64) -> Result<(), Compacted> {
        if requested < self.compacted {
            return Err(Compacted { requested, oldest: self.compacted });
        }
        Ok(())
    }

    pub(crate) fn range(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        limit: usize,
        at: Option<u64>,
    ) -> Result<Page, ReadError> {
        let revision = at.unwrap_or(self.revision);
        self.check(revision)?;
        let newest = revision == self.revision;
        let mut matching = self.below(prefix, start_after).filter_map(|(key, entry)| {
            if newest {
                return entry.current.clone().map(Found::Here);
            }
            entry.position(revision).and_then(|p| entry.found(key, p))
        });
        let found: Vec<Found> = matching.by_ref().take(limit).collect();
        Ok(Page { found, revision, more: matching.next().is_some() })
    }

    pub(crate) fn count(&self, prefix: &[u8], start_after: Option<&[u8]>) -> usize {
        if prefix.is_empty() && start_after.is_none() {
            return self.live;
        }
        self.below(prefix, start_after).filter(|(_, entry)| entry.current.is_some()).count()
    }

    fn below<'a>(
        &'a self,
        prefix: &'a [u8],
        start_after: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Entry)> {
        let start = match start_after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let range = self.keys.range::<[u8], _>((start, Bound::Unbounded));
        range.take_while(move |(key, _)| key.starts_with(prefix))
    }

    pub(crate) fn apply(&mut self, change: Change) {
        let Change { key, mod_revision, put } = change;
        self.revision = self.revision.max(mod_revision);
        // The map's own copy of the key is the one that history refers to.
        let key = self.keys.get_key_value(&key).map_or(key, |(kept, _)| kept.clone());
        if mod_revision > self.compacted {
            self.changes.push_back((mod_revision, key.clone()));
        }
        let entry = self.keys.entry(key.clone()).or_default();
        self.live -= usize::from(entry.current.is_some());
        let (current, location) = put.unzip();
        entry.current = current.map(|kv| KeyValue { key, ..kv });
        self.live += usize::from(entry.current.is_some());
        entry.versions.push(Version {
            mod_revision,
            create_revision: entry.current.as_ref().map_or(0, |kv| kv.create_revision),
            location,
        });
    }

    /// Changes after `after` below `prefix`, looking at about `scan` changes and never splitting a revision.
    /// The second value is the revision up to which the answer is complete.
    pub(crate) fn history(&self, after: u64, prefix: &[u8], scan: usize) -> Result<(Vec<PastChange>, u64), Compacted> {
        self.check_history(after)?;
        let start = self.changes.partition_point(|(revision, _)| *revision <= after);
        let mut past = Vec::new();
        let mut through = self.revision;
        for (seen, (revision, key)) in self.changes.range(start..).enumerate() {
            if seen >= scan && self.changes[start + seen - 1].0 != *revision {
                through = revision - 1;
                break;
            }
            if key.starts_with(prefix)
                && let Some(change) = self.past_change(*revision, key)
            {
                past.push(change);
            }
        }
        Ok((past, through))
    }

    fn past_change(&self, revision: u64, key: &Bytes) -> Option<PastChange> {
        let entry = self.keys.get(key)?;
        let position = entry.position(revision)?;
        let prev = position.checked_sub(1).and_then(|p| entry.found(key, p));
        Some(PastChange { revision, key: key.clone(), new: entry.found(key, position), prev })
    }

    /// Up to `limit` keys after `after` as they were at `revision`; the second value is where to go on.
    pub(crate) fn chunk_at(&self, after: Option<&Bytes>, limit: usize, revision: u64) -> (Vec<Found>, Option<Bytes>) {
        let mut found = Vec::new();
        let mut last = None;
        for (key, entry) in self.below(&[], after.map(|k| &k[..])).take(limit) {
            last = Some(key.clone());
            found.extend(entry.position(revision).and_then(|p| entry.found(key, p)));
        }
        (found, last)
    }

    /// From now on nothing older than `revision` is promised.
    pub(crate) fn forget_before(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision);
    }

    /// Drops up to `limit` keys' versions that the compacted revision hides; `moved` says where the value that a key
    /// had at that revision now stands. Returns where to go on.
    pub(crate) fn prune(
        &mut self,
        after: Option<&Bytes>,
        limit: usize,
        moved: &BTreeMap<Bytes, Location>,
    ) -> Option<Bytes> {
        let compacted = self.compacted;
        let keys: Vec<Bytes> = self.below(&[], after.map(|k| &k[..])).take(limit).map(|(k, _)| k.clone()).collect();
        for key in &keys {
            let Some(entry) = self.keys.get_mut(key) else {
                continue;
            };
            if let Some(base) = entry.position(compacted) {
                entry.versions.drain(..base);
                if let (Some(first), Some(location)) = (entry.versions.first_mut(), moved.get(key)) {
                    first.location = Some(location.clone());
                }
            }
            if entry.versions.len() == 1 && entry.current.is_none() && entry.versions[0].mod_revision <= compacted {
                self.keys.remove(key);
            }
        }
        keys.last().cloned()
    }

    pub(crate) fn prune_changes(&mut self) {
        let gone = self.changes.partition_point(|(revision, _)| *revision <= self.compacted);
        self.changes.drain(..gone);
        self.changes.shrink_to(self.changes.len() * 2);
    }
}
