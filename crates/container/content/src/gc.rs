//! Garbage collection, and the leases that keep it away from work in progress.
//!
//! Roots are images, records' `holds`, and leases. A [`Lease`] holds *everything that is written or looked up while it
//! lives*, so that a pull or a build need not list its blobs. This is how the race is excluded: every touch of a digest
//! gets a growing number. A collection first fixes its [`Horizon`] (the oldest living lease's number, or now), then
//! gathers the roots, then deletes only what is not a root *and* was last touched before the horizon. Whatever a lease
//! covers was touched after the lease began; whatever became a root after the roots were gathered was touched after that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::sync::{Mutex, PoisonError};

use oci::{Digest, ImageConfig, chain_ids};

use crate::Store;
use crate::error::{At, Result};

#[derive(Default)]
pub(crate) struct Touches(Mutex<TouchState>);

#[derive(Default)]
struct TouchState {
    now: u64,
    last: HashMap<Digest, u64>,
    /// Living leases: when each began, and what for (for the log).
    leases: BTreeMap<u64, String>,
}

/// Keeps what is written or read in its lifetime from being collected. Lost with the process, as the work is.
#[must_use = "a lease ends when it is dropped"]
pub struct Lease {
    store: Store,
    began: u64,
}

/// The moment before which an untouched digest may go. Get it before gathering roots.
#[derive(Clone, Copy, Debug)]
pub struct Horizon(u64);

/// What a collection removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub blobs: Vec<Digest>,
    pub bytes: u64,
}

impl Store {
    /// Begins a lease; `purpose` is for the log.
    pub fn lease(&self, purpose: &str) -> Lease {
        let mut state = self.touch_state();
        state.now += 1;
        let began = state.now;
        state.leases.insert(began, purpose.to_owned());
        Lease { store: self.clone(), began }
    }

    /// Notes that a digest (of a blob, or a chain ID) is in use now.
    pub fn touch(&self, digest: &Digest) {
        let mut state = self.touch_state();
        state.now += 1;
        let now = state.now;
        state.last.insert(*digest, now);
    }

    /// Fixes the horizon of a collection that is about to gather its roots. `snapshots` collects layers by it too.
    pub fn horizon(&self) -> Horizon {
        let mut state = self.touch_state();
        state.now += 1;
        Horizon(state.leases.keys().next().copied().unwrap_or(state.now))
    }

    /// Whether a digest was in use after the horizon. Calls `delete` under the lock when it was not.
    pub fn unless_recent<T>(&self, digest: &Digest, horizon: Horizon, delete: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.touch_state();
        if state.last.get(digest).is_some_and(|touched| *touched >= horizon.0) {
            return None;
        }
        state.last.remove(digest);
        Some(delete())
    }

    /// Every digest that images and records hold: configurations, manifests, layers, diff IDs and chain IDs.
    pub fn roots(&self) -> HashSet<Digest> {
        let mut roots: HashSet<Digest> = self.shared.records.holds();
        for image in self.images().list() {
            roots.extend([Some(image.id.0), image.manifest_digest].into_iter().flatten());
            roots.extend(image.layers.iter().map(|l| l.digest));
            roots.extend(stack(&image.config));
        }
        self.shared.records.add_derived(&mut roots);
        roots
    }

    /// Removes the blobs that nothing needs.
    pub fn gc(&self) -> Result<Collected> {
        let horizon = self.horizon();
        let roots = self.roots();
        let mut collected = Collected::default();
        let dir = &self.shared.blobs;
        for entry in fs::read_dir(dir).at("list", dir)? {
            let entry = entry.at("list", dir)?;
            let Some(digest) = entry.file_name().to_str().and_then(|n| Digest::from_hex(n).ok()) else {
                continue;
            };
            if roots.contains(&digest) {
                continue;
            }
            let size = entry.metadata().map_or(0, |m| m.len());
            if let Some(result) = self.unless_recent(&digest, horizon, || fs::remove_file(entry.path())) {
                result.at("remove", &entry.path())?;
                self.shared.hashed.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
                collected.blobs.push(digest);
                collected.bytes += size;
            }
        }
        if !collected.blobs.is_empty() {
            tracing::info!(blobs = collected.blobs.len(), bytes = collected.bytes, "content collected");
        }
        Ok(collected)
    }

    fn touch_state(&self) -> std::sync::MutexGuard<'_, TouchState> {
        self.shared.touches.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Diff IDs and chain IDs of an image: layers' snapshots and compressed forms are kept by them.
fn stack(config: &ImageConfig) -> impl Iterator<Item = Digest> {
    let diff_ids = config.rootfs.diff_ids.clone();
    let chains = chain_ids(&diff_ids);
    diff_ids.into_iter().chain(chains.into_iter().map(|c| c.0))
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.store.touch_state().leases.remove(&self.began);
    }
}
