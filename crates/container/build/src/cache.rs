//! The layer cache: what a chain of instructions over a base came to.
//!
//! A record is written after the layer that it names, so a killed build leaves no record without a layer, and it holds
//! that layer against garbage collection.

use std::collections::BTreeMap;

use content::{Records, Store};
use oci::{Descriptor, Digest, ImageConfig, RunConfig};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::BuildError;
use crate::events::{BuildEvent, Events};
use crate::execute::Builder;
use crate::runner::Client;

/// The field of an image's configuration that holds the records of its own chain.
pub(crate) const INLINE: &str = "io.gantry.build-cache.v1";
/// Records that one image may bring along.
const MAX_IMPORTED: usize = 10_000;

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

    /// A key that does not depend on what lies below: a linked layer's.
    pub(crate) fn alone(part: &[u8]) -> Self {
        Self::base("link").then(&[part])
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

    /// Forgets everything (`docker builder prune`). Returns the keys of what there was.
    pub fn clear(&self) -> content::Result<Vec<String>> {
        let all = self.records.list::<serde::de::IgnoredAny>("");
        let mut keys = Vec::with_capacity(all.len());
        for record in all {
            self.records.remove(&record.key)?;
            keys.push(record.key);
        }
        Ok(keys)
    }

    /// What there is, for `docker system df` and `buildx du`: key, description, and the bytes of the step's own layer.
    pub fn entries(&self) -> Vec<CacheEntry> {
        let describe = |record: content::Record<Record>| {
            let last = record.value.config.history.last();
            let layer = last.filter(|history| !history.empty_layer).and(record.value.layers.last());
            CacheEntry {
                description: last.and_then(|history| history.created_by.clone()).unwrap_or_default(),
                size_bytes: layer.map_or(0, |layer| layer.size),
                created: record.value.config.created,
                layer: layer.map(|layer| layer.digest),
                key: record.key,
            }
        };
        self.records.list::<Record>("").into_iter().map(describe).collect()
    }
}

/// One record, as the user is told of it.
#[derive(Debug, Clone)]
pub struct CacheEntry {
    pub key: String,
    pub description: String,
    pub size_bytes: u64,
    pub created: Option<jiff::Timestamp>,
    pub layer: Option<Digest>,
}

/// A record inside an image: what its configuration was then, as far as the image's own does not tell.
#[derive(Serialize, Deserialize)]
struct InlineRecord {
    key: String,
    config: RunConfig,
    /// How many of the image's history entries and layers there were.
    history: usize,
    layers: usize,
}

/// Records that travel inside images.
pub(crate) struct Imported;

impl Imported {
    /// Only what is part of the image's own chain goes along.
    pub(crate) fn encode(made: &[(CacheKey, Record)], diff_ids: &[Digest]) -> serde_json::Value {
        let own = made.iter().filter(|(_, record)| diff_ids.starts_with(&record.config.rootfs.diff_ids));
        let record = |(key, record): &(CacheKey, Record)| InlineRecord {
            key: key.0.clone(),
            config: record.config.config.clone(),
            history: record.config.history.len(),
            layers: record.layers.len(),
        };
        let records: Vec<InlineRecord> = own.map(record).collect();
        serde_json::to_value(records).unwrap_or_default()
    }

    /// The records that images bring. An image that is not to be had is no error, as with every cache.
    pub(crate) async fn of(
        builder: &Builder,
        names: &[String],
        client: &dyn Client,
        events: &Events,
    ) -> Result<BTreeMap<String, Record>, BuildError> {
        let mut found = BTreeMap::new();
        for name in names {
            match builder.images.image(name, false, client, events).await {
                Ok(image) => {
                    found.extend(decode(&image.config, &image.layers));
                }
                Err(error) => {
                    let text = format!("[Warning] cannot use {name} as a cache: {error}");
                    events.tell(BuildEvent::Warning { text }).await?;
                }
            }
        }
        Ok(found)
    }
}

/// The image is hostile: a record that does not fit its layers is left out.
fn decode(image: &ImageConfig, layers: &[Descriptor]) -> Vec<(String, Record)> {
    let records = image.extra.get(INLINE).cloned().unwrap_or_default();
    let records: Vec<InlineRecord> = serde_json::from_value(records).unwrap_or_default();
    let whole = layers.len() == image.rootfs.diff_ids.len();
    let fits = |record: &InlineRecord| whole && record.layers <= layers.len() && record.history <= image.history.len();
    let record = |record: InlineRecord| {
        let mut config = image.clone();
        config.extra.remove(INLINE);
        config.config = record.config;
        config.history.truncate(record.history);
        config.rootfs.diff_ids.truncate(record.layers);
        config.created = config.history.last().and_then(|last| last.created);
        (record.key, Record { config, layers: layers[..record.layers].to_vec() })
    };
    records.into_iter().take(MAX_IMPORTED).filter(fits).map(record).collect()
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
    fn records_inside_an_image_come_back_and_false_ones_do_not() {
        let layer = |n: u8| Descriptor::new("t", Digest::of(&[n]), 1);
        let mut config = ImageConfig::default();
        config.config.env.push("A=1".to_owned());
        config.rootfs.diff_ids = vec![Digest::of(b"1"), Digest::of(b"2")];
        config.history = vec![oci::History::default(); 3];
        let mut early = Record { config: config.clone(), layers: vec![layer(1)] };
        early.config.rootfs.diff_ids.truncate(1);
        early.config.history.truncate(1);
        let mut stranger = early.clone();
        stranger.config.rootfs.diff_ids = vec![Digest::of(b"9")];
        let made = [(CacheKey::base("e"), early.clone()), (CacheKey::base("s"), stranger)];
        let encoded = Imported::encode(&made, &config.rootfs.diff_ids);
        config.extra.insert(INLINE.to_owned(), encoded);
        let layers = [layer(1), layer(2)];
        assert_eq!(decode(&config, &layers), [(CacheKey::base("e").0, early)]);
        assert!(decode(&config, &layers[..1]).is_empty(), "layers are missing");
        config
            .extra
            .insert(INLINE.to_owned(), serde_json::json!([{"key": "k", "config": {}, "history": 0, "layers": 7}]));
        assert!(decode(&config, &layers).is_empty());
    }

    #[test]
    fn records_survive_and_are_forgotten_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let key = CacheKey::base("x");
        let record = Record { config: ImageConfig::default(), layers: Vec::new() };
        Cache::open(&Store::open(dir.path()).unwrap()).unwrap().put(&key, &record).unwrap();
        let cache = Cache::open(&Store::open(dir.path()).unwrap()).unwrap();
        assert_eq!(cache.get(&key), Some(record));
        assert_eq!(cache.clear().unwrap(), [key.as_str()]);
        assert_eq!(cache.get(&key), None);
    }
}
