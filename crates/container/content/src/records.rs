//! Small durable records: a key, a JSON value, and the digests that the record keeps from being collected.
//!
//! The registry's tags, the build cache and the table of compressed layers are such records. All of a namespace is in
//! memory; each record is a file of its own, replaced atomically. Keys are free text: the file's name is its digest.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Store;
use crate::durable::{DirSync, make_dir, remove, replace};
use crate::error::{At, Error, Result};

/// All namespaces.
pub(crate) struct Shelf {
    dir: PathBuf,
    namespaces: Mutex<BTreeMap<String, Arc<Namespace>>>,
}

struct Namespace {
    dir: PathBuf,
    sync: DirSync,
    entries: Mutex<BTreeMap<String, Stored>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    key: String,
    /// Not collected while this record stands.
    holds: Vec<Digest>,
    /// If set, `holds` counts only while this digest is itself held by something else: a derived record, a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    while_held: Option<Digest>,
    value: Value,
}

/// One namespace of records. A handle.
#[derive(Clone)]
pub struct Records {
    store: Store,
    namespace: Arc<Namespace>,
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<T> {
    pub key: String,
    pub holds: Vec<Digest>,
    pub value: T,
}

impl Shelf {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        make_dir(dir)?;
        let mut namespaces = BTreeMap::new();
        for entry in fs::read_dir(dir).at("list", dir)? {
            let entry = entry.at("list", dir)?;
            if let Some(name) = entry.file_name().to_str() {
                namespaces.insert(name.to_owned(), Arc::new(Namespace::open(&entry.path())?));
            }
        }
        Ok(Self { dir: dir.to_owned(), namespaces: Mutex::new(namespaces) })
    }

    pub(crate) fn namespace(&self, store: &Store, name: &str) -> Result<Records> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
            return Err(Error::Key(name.to_owned()));
        }
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if !namespaces.contains_key(name) {
            namespaces.insert(name.to_owned(), Arc::new(Namespace::open(&self.dir.join(name))?));
        }
        Ok(Records { store: store.clone(), namespace: Arc::clone(&namespaces[name]) })
    }

    /// Digests that records hold. Derived records (`while_held`) are taken by the caller's roots in `held_derived`.
    pub(crate) fn holds(&self) -> HashSet<Digest> {
        let namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = HashSet::new();
        for namespace in namespaces.values() {
            held.extend(
                namespace.entries().values().filter(|s| s.while_held.is_none()).flat_map(|s| s.holds.iter().copied()),
            );
        }
        held
    }

    /// Adds what derived records hold, for those whose source is in `held`.
    pub(crate) fn add_derived(&self, held: &mut HashSet<Digest>) {
        let namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        for namespace in namespaces.values() {
            for stored in namespace.entries().values() {
                if stored.while_held.is_some_and(|source| held.contains(&source)) {
                    held.extend(stored.holds.iter().copied());
                }
            }
        }
    }
}

impl Namespace {
    fn open(dir: &Path) -> Result<Self> {
        make_dir(dir)?;
        let mut entries = BTreeMap::new();
        for entry in fs::read_dir(dir).at("list", dir)? {
            let path = entry.at("list", dir)?.path();
            if path.extension().is_none_or(|e| e != "json") {
                fs::remove_file(&path).at("remove", &path)?;
                continue;
            }
            let bytes = fs::read(&path).at("read", &path)?;
            let stored: Stored =
                serde_json::from_slice(&bytes).map_err(|source| Error::Damaged { path: path.clone(), source })?;
            entries.insert(stored.key.clone(), stored);
        }
        Ok(Self { dir: dir.to_owned(), sync: DirSync::open(dir)?, entries: Mutex::new(entries) })
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(format!("{}.json", Digest::of(key.as_bytes()).hex()))
    }
}

impl Records {
    /// Writes a record durably. `holds` (blobs, chain IDs) are kept from collection until it is removed.
    pub fn put<T: Serialize>(&self, key: &str, value: &T, holds: &[Digest]) -> Result<()> {
        self.write(key, value, holds, None)
    }

    /// Writes a record of something derived from `source`: `holds` are kept as long as `source` is held otherwise.
    pub fn put_derived<T: Serialize>(&self, key: &str, value: &T, holds: &[Digest], source: Digest) -> Result<()> {
        self.write(key, value, holds, Some(source))
    }

    fn write<T: Serialize>(&self, key: &str, value: &T, holds: &[Digest], while_held: Option<Digest>) -> Result<()> {
        let path = self.namespace.path(key);
        let damaged = |source| Error::Damaged { path: path.clone(), source };
        let value = serde_json::to_value(value).map_err(damaged)?;
        let stored = Stored { key: key.to_owned(), holds: holds.to_vec(), while_held, value };
        let bytes = serde_json::to_vec(&stored).map_err(damaged)?;
        for digest in holds {
            self.store.touch(digest);
        }
        // Under the lock: two writers of one key must not share the temporary file.
        let mut entries = self.namespace.entries();
        replace(&path, &bytes, &self.namespace.sync)?;
        entries.insert(stored.key.clone(), stored);
        Ok(())
    }

    /// Reads a record; `None` if there is none, or it is not a `T` any more.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let stored = self.namespace.entries().get(key).cloned()?;
        stored.holds.iter().for_each(|digest| self.store.touch(digest));
        serde_json::from_value(stored.value).ok()
    }

    pub fn contains(&self, key: &str) -> bool {
        self.namespace.entries().contains_key(key)
    }

    /// All records whose key starts with `prefix`, in order.
    pub fn list<T: DeserializeOwned>(&self, prefix: &str) -> Vec<Record<T>> {
        let entries = self.namespace.entries();
        let matching = entries.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let read = |stored: &Stored| {
            let value = serde_json::from_value(stored.value.clone()).ok()?;
            Some(Record { key: stored.key.clone(), holds: stored.holds.clone(), value })
        };
        matching.filter_map(|(_, stored)| read(stored)).collect()
    }

    /// Removes a record; whether there was one.
    pub fn remove(&self, key: &str) -> Result<bool> {
        let mut entries = self.namespace.entries();
        remove(&self.namespace.path(key), &self.namespace.sync)?;
        Ok(entries.remove(key).is_some())
    }
}
