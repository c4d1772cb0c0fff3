//! The layer cache: what a chain of instructions over a base came to.
//!
//! A record is written after the layer that it names, so a killed build leaves no record without a layer, and it holds
//! that layer against garbage collection.

use content::{Records, Store};
use oci::{Descriptor, ImageConfig};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::BuildError;

/// A place in the chain: the base and every instruction up to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheKey(String);

impl CacheKey {
    /// The key of a base: an image's ID, or `scratch`.
    pub(crate) fn base(name: &str) -> Self {
        Self(hex::encode(Sha256::digest(format!("base\0{name}").as_bytes())))
    }

    /// The key after one more instruction; `parts` are everything that its result depends on.
    pub(crate) fn then(&self, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0.as_bytes());
        for part in parts {
            // Lengths keep ["ab", "c"] and ["a", "bc"] apart.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hex::encode(hash.finalize()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A stage's result so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub config: ImageConfig,
    pub layers: Vec<Descriptor>,
}

/// The records of all builds.
#[derive(Clone)]
pub struct Cache {
    records: Records,
}

impl Cache {
    pub(crate) fn open(content: &Store) -> Result<Self, BuildError> {
        let records = content.records("build-cache").map_err(|error| BuildError::Storage(error.to_string()))?;
        Ok(Self { records })
    }

    pub(crate) fn get(&self, key: &CacheKey) -> Option<Record> {
        // A record that this version cannot read is a miss: the step is simply run again.
        self.records.get(&key.0)
    }

    /// The record holds its layers, packed and unpacked: garbage collection keeps them for as long as it stands.
    pub(crate) fn put(&self, key: &CacheKey, record: &Record) -> content::Result<()> {
        let blobs = record.layers.iter().map(|layer| layer.digest);
        let chains = oci::chain_ids(&record.config.rootfs.diff_ids).into_iter().map(|chain| chain.0);
        let holds: Vec<_> = blobs.chain(chains).collect();
        self.records.put(&key.0, record, &holds)
    }

    /// Forgets everything (`docker builder prune`). Returns how many records there were.
    pub fn clear(&self) -> content::Result<usize> {
        let all = self.records.list::<serde::de::IgnoredAny>("");
        for record in &all {
            self.records.remove(&record.key)?;
        }
        Ok(all.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_boundaries_apart() {
        let base = CacheKey::base("scratch");
        assert_ne!(base.then(&[b"ab", b"c"]), base.then(&[b"a", b"bc"]));
        assert_eq!(base.then(&[b"ab"]), base.then(&[b"ab"]));
    }

    #[test]
    fn records_survive_and_are_forgotten_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let key = CacheKey::base("x");
        let record = Record { config: ImageConfig::default(), layers: Vec::new() };
        Cache::open(&Store::open(dir.path()).unwrap()).unwrap().put(&key, &record).unwrap();
        let cache = Cache::open(&Store::open(dir.path()).unwrap()).unwrap();
        assert_eq!(cache.get(&key), Some(record));
        assert_eq!(cache.clear().unwrap(), 1);
        assert_eq!(cache.get(&key), None);
    }
}
