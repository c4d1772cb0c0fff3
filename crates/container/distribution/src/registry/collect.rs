//! Garbage collection while serving.
//!
//! A blob's link to its repository ends when no manifest there refers to the blob and nobody asked about it for the
//! grace period: a client that uploads, or that was told "I have it", puts its manifest in that time. Then the content
//! store takes what nothing holds; its leases exclude the race with what is being written. Collections follow deletions.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use oci::Digest;
use tokio::sync::Notify;

use super::Registry;

/// When links were last asked about, and what waits for a collection.
pub(super) struct Recent {
    began: Instant,
    touched: Mutex<HashMap<(String, Digest), Instant>>,
    pub(super) wanted: Notify,
}

impl Default for Recent {
    fn default() -> Self {
        Self { began: Instant::now(), touched: Mutex::default(), wanted: Notify::new() }
    }
}

impl Recent {
    pub(super) fn touch(&self, repository: &str, digest: &Digest) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.insert((repository.to_owned(), *digest), Instant::now());
    }
}

/// What one collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub links: usize,
    pub blobs: usize,
    pub bytes: u64,
    /// Links that nothing needs but that somebody asked about lately.
    pub waiting: usize,
}

impl Registry {
    /// Collects now. Blocks on the disk.
    pub fn collect(&self) -> crate::Result<Swept> {
        let mut swept = Swept::default();
        for (repository, digest) in self.unreferenced_links() {
            match self.unlink_if_old(&repository, &digest)? {
                true => swept.links += 1,
                false => swept.waiting += 1,
            }
        }
        let collected = self.shared.content.gc()?;
        (swept.blobs, swept.bytes) = (collected.blobs.len(), collected.bytes);
        let metrics = &self.shared.metrics;
        metrics.collections.fetch_add(1, Ordering::Relaxed);
        metrics.collected_blobs.fetch_add(swept.blobs as u64, Ordering::Relaxed);
        metrics.collected_bytes.fetch_add(swept.bytes, Ordering::Relaxed);
        Ok(swept)
    }

    fn unreferenced_links(&self) -> Vec<(String, Digest)> {
        let index = &self.shared.index;
        let mut needed: HashMap<String, HashSet<Digest>> = HashMap::new();
        let mut links = index.blob_links();
        links.retain(|(repository, digest)| {
            let held = needed.entry(repository.clone()).or_insert_with(|| index.manifest_holds(repository));
            !held.contains(digest)
        });
        links
    }

    /// Under the lock of what was touched, so that a client that asks just now is told the truth afterwards.
    fn unlink_if_old(&self, repository: &str, digest: &Digest) -> crate::Result<bool> {
        let recent = &self.shared.recent;
        let mut touched = recent.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (repository.to_owned(), *digest);
        let last = touched.get(&key).copied().unwrap_or(recent.began);
        if last.elapsed() < self.shared.config.link_grace {
            return Ok(false);
        }
        touched.remove(&key);
        self.shared.index.unlink_blob(repository, digest)?;
        Ok(true)
    }

    /// Collects after deletions, and once more when what still waited may go.
    pub(super) async fn collector(&self) {
        let mut again = false;
        loop {
            let wanted = self.shared.recent.wanted.notified();
            let woken = match again {
                true => tokio::time::timeout(self.shared.config.link_grace + Duration::from_millis(50), wanted).await,
                false => {
                    wanted.await;
                    Ok(())
                }
            };
            let registry = self.clone();
            match tokio::task::spawn_blocking(move || registry.collect()).await {
                Ok(Ok(swept)) => {
                    again = swept.waiting > 0 && (woken.is_ok() || swept.links > 0);
                    tracing::debug!(?swept, "registry collected");
                }
                Ok(Err(error)) => tracing::warn!(%error, "registry not collected; the next deletion tries again"),
                Err(error) => tracing::warn!(%error, "registry's collection broke off"),
            }
        }
    }
}
