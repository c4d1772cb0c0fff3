//! The snapshot store: unpack, prepare, commit, collect.
//!
//! Layout of `<root>/snapshots`: `l/<n>` unpacked layers, `a/<n>/{fs,work}` writable snapshots, `m/<n>` mount points for
//! the host, `layers/` and `active/` their records. Numbers instead of digests keep an overlay's option line short.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci::{ChainId, Descriptor, Digest, chain_ids, media_type};

use crate::changes::{self, Change};
use crate::error::{At, Error, Result};
use crate::limits::{Limits, Metered, read_error};
use crate::mount::{Mount, MountedDir};
use crate::state::{ActiveRecord, LayerRecord, State, check_key, make_dir};
use crate::{capture, confine, tree, unpack};

/// The snapshot store. A handle: clones share everything.
#[derive(Clone)]
pub struct Snapshots {
    shared: Arc<Shared>,
}

struct Shared {
    base: PathBuf,
    content: content::Store,
    limits: Limits,
    state: Mutex<State>,
    /// Disk bytes of layers by number; numbers are not used again in one process.
    measured: Mutex<HashMap<u64, u64>>,
}

/// A snapshot that has become a layer.
#[derive(Clone, Debug)]
pub struct Committed {
    pub diff_id: Digest,
    pub chain_id: ChainId,
    /// The layer's archive in the content store, uncompressed.
    pub blob: Descriptor,
    /// Bytes in its regular files.
    pub size: u64,
}

/// A layer unpacked but not recorded yet; give it to [`Snapshots::record`]. Dropped, it is swept.
#[must_use = "a staged layer is removed unless it is recorded"]
pub struct Staged {
    dir: Option<PathBuf>,
    record: LayerRecord,
}

/// A layer unpacked on its own, before it is known what lies below it.
#[must_use = "it is removed unless it finds its place"]
pub struct Alone {
    staged: Staged,
    hides: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir
            && let Err(error) = tree::remove_tree(dir)
        {
            tracing::warn!(path = %dir.display(), %error, "half-made layer not removed");
        }
    }
}

impl Snapshots {
    /// Opens (or makes) the store in `<root>/snapshots` and sweeps what a crash left.
    pub fn open(root: &Path, content: content::Store) -> Result<Self> {
        Self::with_limits(root, content, Limits::default())
    }

    pub fn with_limits(root: &Path, content: content::Store, limits: Limits) -> Result<Self> {
        let base = root.join("snapshots");
        make_dir(&base)?;
        let state = Mutex::new(State::open(&base)?);
        Ok(Self { shared: Arc::new(Shared { base, content, limits, state, measured: Mutex::default() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unpacks what is not unpacked yet, several layers at once. The whole image's chain ID; `None` without layers.
    pub fn ensure_unpacked(&self, image: &content::Image) -> Result<Option<ChainId>> {
        self.ensure_layers(&image.layers, &image.config.rootfs.diff_ids)
    }

    /// The same for layers that are no image yet (a pull, a load).
    pub fn ensure_layers(&self, layers: &[Descriptor], diff_ids: &[Digest]) -> Result<Option<ChainId>> {
        self.ensure_with(layers, diff_ids, &mut HashMap::new())
    }

    /// The same, with what was unpacked ahead; what finds its place is taken out.
    pub fn ensure_with(
        &self,
        layers: &[Descriptor],
        diff_ids: &[Digest],
        ahead: &mut HashMap<Digest, Alone>,
    ) -> Result<Option<ChainId>> {
        if layers.len() != diff_ids.len() {
            return Err(content::Error::LayerCount { diff_ids: diff_ids.len(), layers: layers.len() }.into());
        }
        let _lease = self.shared.content.lease("unpack");
        let chains = chain_ids(diff_ids);
        let mut missing: Vec<usize> = (0..layers.len()).filter(|i| !self.has_layer(&chains[*i])).collect();
        let mut placed = Vec::new();
        missing.retain(|index| {
            let found = ahead.remove(&layers[*index].digest).and_then(|alone| self.place(alone, diff_ids, *index));
            let is_missing = found.is_none();
            placed.extend(found);
            is_missing
        });
        self.record(placed)?;
        if !missing.is_empty() {
            self.unpack_all(layers, diff_ids, &missing)?;
        }
        Ok(chains.last().copied())
    }

    fn unpack_all(&self, layers: &[Descriptor], diff_ids: &[Digest], missing: &[usize]) -> Result<()> {
        let queue = Mutex::new(missing.iter());
        let work = || -> Result<Vec<Staged>> {
            let mut done = Vec::new();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next().copied();
                let Some(index) = next else { return Ok(done) };
                done.extend(self.stage(&layers[index], diff_ids, index)?);
            }
        };
        let workers = std::thread::available_parallelism().map_or(2, usize::from).min(missing.len());
        let results: Vec<_> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            handles.into_iter().map(|h| h.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        let staged = results.into_iter().collect::<Result<Vec<_>>>()?;
        self.record(staged.into_iter().flatten().collect())
    }

    /// Whether this stack's top layer is unpacked.
    pub fn has_layer(&self, chain: &ChainId) -> bool {
        self.shared.content.touch(&chain.0);
        self.state().layers.contains_key(chain)
    }

    /// Unpacks a blob that may be a layer of something, unless a layer of this content is there already.
    pub(crate) fn stage_alone(&self, digest: &Digest) -> Result<Alone> {
        if self.state().layers.values().any(|layer| layer.diff_id == *digest) {
            return Err(Error::Exists(digest.to_string()));
        }
        let (staged, hides) = self.unpack_blob(digest, None, false)?;
        Ok(Alone { staged, hides })
    }

    /// The layer at `index` of a stack, if `alone` is it. A layer that hides nothing is the same wherever it stands.
    fn place(&self, alone: Alone, diff_ids: &[Digest], index: usize) -> Option<Staged> {
        let Alone { mut staged, hides } = alone;
        if staged.record.diff_id != diff_ids[index] || (hides && index == 0) {
            return None;
        }
        let chains = chain_ids(&diff_ids[..=index]);
        staged.record.parent = index.checked_sub(1).map(|i| chains[i]);
        staged.record.chain_id = chains[index];
        self.shared.content.touch(&chains[index].0);
        Some(staged)
    }

    /// Unpacks one layer of a stack, apart from the others; `None` if it is there already.
    pub fn stage(&self, layer: &Descriptor, diff_ids: &[Digest], index: usize) -> Result<Option<Staged>> {
        let chains = chain_ids(&diff_ids[..=index]);
        let (chain_id, parent) = (chains[index], index.checked_sub(1).map(|i| chains[i]));
        if self.has_layer(&chain_id) {
            return Ok(None);
        }
        let with_layer = |source| Error::Layer { layer: layer.digest, source: Box::new(source) };
        let (staged, _) = self.unpack_blob(&layer.digest, parent, parent.is_none()).map_err(with_layer)?;
        let actual = staged.record.diff_id;
        if actual != diff_ids[index] {
            return Err(with_layer(Error::DiffId { expected: diff_ids[index], actual }));
        }
        Ok(Some(staged))
    }

    /// Unpacks a blob (of any compression) on top of `parent`; its diff ID comes out of it.
    /// With it: whether it hides what lies below.
    fn unpack_blob(&self, digest: &Digest, parent: Option<ChainId>, is_base: bool) -> Result<(Staged, bool)> {
        let blob = self.shared.content.get(digest)?;
        let (number, dir) = {
            let mut state = self.state();
            let number = state.number();
            (number, state.active_dir(number))
        };
        make_root(&dir)?;
        // From here on the directory is removed on every way out but `record`.
        let record = LayerRecord {
            number,
            chain_id: ChainId(Digest::of(b"")),
            parent,
            diff_id: Digest::of(b""),
            size: 0,
            has_root: false,
        };
        let mut staged = Staged { dir: Some(dir.clone()), record };
        let unpacked = confine::unpack_file(
            blob.file,
            blob.size,
            &dir,
            is_base,
            &self.shared.limits,
            Some(*digest).filter(|digest| self.shared.content.was_hashed_here(digest)),
        )?;
        let chain_id = ChainId::on(parent.as_ref(), unpacked.diff_id);
        self.shared.content.touch(&chain_id.0);
        staged.record = LayerRecord {
            chain_id,
            diff_id: unpacked.diff_id,
            size: unpacked.size,
            has_root: unpacked.has_root,
            ..staged.record.clone()
        };
        Ok((staged, unpacked.hides))
    }

    /// Makes staged layers durable and visible.
    pub fn record(&self, staged: Vec<Staged>) -> Result<()> {
        if staged.is_empty() {
            return Ok(());
        }
        // One sync for all of them: a record must not outlive the files that it promises.
        let base = tree::open_dir(&self.shared.base)?;
        rustix::fs::syncfs(&base).at("sync", &self.shared.base)?;
        let mut state = self.state();
        for mut layer in staged {
            if state.layers.contains_key(&layer.record.chain_id) {
                // Somebody else was faster; the drop removes ours.
                continue;
            }
            let target = state.layer_dir(layer.record.number);
            if let Some(dir) = layer.dir.take() {
                std::fs::rename(&dir, &target).at("move layer to", &target)?;
            }
            let record = layer.record.clone();
            tracing::debug!(chain = %record.chain_id, size = record.size, "layer unpacked");
            state.put_layer(record)?;
        }
        Ok(())
    }

    /// A writable snapshot for `key` on top of a stack (`None`: on nothing). The same call again gives the same one.
    pub fn prepare(&self, key: &str, parent: Option<&ChainId>) -> Result<Mount> {
        check_key(key)?;
        let mut state = self.state();
        if let Some(active) = state.active.get(key) {
            if active.parent.as_ref() != parent {
                return Err(Error::Exists(key.to_owned()));
            }
            return mount_of(&state, active);
        }
        // Before anything is made: the stack must be whole.
        let template = root_template(&state, parent)?;
        let number = state.number();
        let dir = state.active_dir(number);
        make_dir(&dir.join("work"))?;
        let upper = dir.join("fs");
        make_root(&upper)?;
        if let Some(template) = template {
            copy_attributes(&template, &upper)?;
        }
        let record = ActiveRecord { key: key.to_owned(), number, parent: parent.copied() };
        state.put_active(record.clone())?;
        mount_of(&state, &record)
    }

    /// The mount of a prepared snapshot.
    pub fn get(&self, key: &str) -> Result<Mount> {
        let state = self.state();
        mount_of(&state, state.active(key)?)
    }

    /// All prepared keys: what the engine does not know of, it may remove.
    pub fn keys(&self) -> Vec<String> {
        self.state().active.keys().cloned().collect()
    }

    fn upper_and_lowers(&self, key: &str) -> Result<(PathBuf, Vec<PathBuf>, Option<ChainId>)> {
        let state = self.state();
        let active = state.active(key)?;
        let upper = state.active_dir(active.number).join("fs");
        Ok((upper, state.lowers(active.parent.as_ref(), 0)?, active.parent))
    }

    /// Turns a snapshot that nobody uses any more into a layer, with its archive in the content store. The key is gone
    /// afterwards. Hold a lease until an image or a record refers to the result.
    pub fn commit(&self, key: &str) -> Result<Committed> {
        let (upper, _, parent) = self.upper_and_lowers(key)?;
        let committed = self.archive_of(key, parent.as_ref())?;
        rustix::fs::syncfs(tree::open_dir(&upper)?).at("sync", &upper)?;
        let mut state = self.state();
        let active = state.active(key)?.clone();
        if !state.layers.contains_key(&committed.chain_id) {
            let target = state.layer_dir(active.number);
            std::fs::rename(&upper, &target).at("move layer to", &target)?;
            let Committed { diff_id, chain_id, size, .. } = committed;
            // The upper's root was copied from below when it was prepared, so it speaks for the whole stack.
            state.put_layer(LayerRecord { number: active.number, chain_id, parent, diff_id, size, has_root: true })?;
        }
        state.remove_active(key)?;
        let dir = state.active_dir(active.number);
        drop(state);
        tree::remove_tree(&dir)?;
        Ok(committed)
    }

    /// A layer from a snapshot that stays in use (`docker commit`).
    pub fn capture(&self, key: &str) -> Result<Committed> {
        let (_, _, parent) = self.upper_and_lowers(key)?;
        let committed = self.archive_of(key, parent.as_ref())?;
        let (staged, _) = self.unpack_blob(&committed.blob.digest, parent, parent.is_none())?;
        self.record(vec![staged])?;
        Ok(committed)
    }

    fn archive_of(&self, key: &str, parent: Option<&ChainId>) -> Result<Committed> {
        let (upper, lowers, _) = self.upper_and_lowers(key)?;
        let mut ingest = self.shared.content.ingest(None)?;
        let size = capture::write_archive(&upper, &lowers, &mut ingest)?;
        let blob = ingest.commit(media_type::OCI_LAYER)?;
        let (diff_id, chain_id) = (blob.digest, ChainId::on(parent, blob.digest));
        self.shared.content.touch(&chain_id.0);
        Ok(Committed { diff_id, chain_id, blob, size })
    }

    /// A root filesystem archive (of any compression) as a layer of its own: stored uncompressed, then unpacked.
    pub fn import(&self, archive: &mut dyn std::io::Read) -> Result<Committed> {
        let mut ingest = self.shared.content.ingest(None)?;
        // The ingest hashes what is stored; this reader only counts.
        let mut plain =
            Metered::new(unpack::decompress(archive)?, &self.shared.limits, u64::MAX, Some(Digest::of(b"")));
        std::io::copy(&mut plain, &mut std::io::BufWriter::with_capacity(256 << 10, &mut ingest))
            .map_err(read_error)?;
        let blob = ingest.commit(media_type::OCI_LAYER)?;
        let (staged, _) = self.unpack_blob(&blob.digest, None, true)?;
        let (diff_id, chain_id, size) = (staged.record.diff_id, staged.record.chain_id, staged.record.size);
        self.record(vec![staged])?;
        Ok(Committed { diff_id, chain_id, blob, size })
    }

    /// The snapshot's changes as a layer archive.
    pub fn diff(&self, key: &str, out: &mut dyn Write) -> Result<()> {
        let (upper, lowers, _) = self.upper_and_lowers(key)?;
        capture::write_archive(&upper, &lowers, out).map(drop)
    }

    /// The snapshot's changes as a list (`docker diff`).
    pub fn changes(&self, key: &str) -> Result<Vec<Change>> {
        let (upper, lowers, _) = self.upper_and_lowers(key)?;
        changes::changes(&upper, &lowers)
    }

    /// Bytes on disk that the snapshot itself takes.
    pub fn usage(&self, key: &str) -> Result<u64> {
        changes::usage(&self.upper_and_lowers(key)?.0)
    }

    /// Bytes on disk of all unpacked layers. Layers do not change: each is walked once a process.
    pub fn layers_disk_bytes(&self) -> Result<u64> {
        let layers: Vec<(u64, PathBuf)> = {
            let state = self.state();
            state.layers.values().map(|l| (l.number, state.layer_dir(l.number))).collect()
        };
        let mut total = 0;
        for (number, dir) in layers {
            let known = self.shared.measured.lock().unwrap_or_else(PoisonError::into_inner).get(&number).copied();
            total += match known {
                Some(bytes) => bytes,
                // Collected meanwhile: it takes nothing any more.
                None if !dir.exists() => 0,
                None => {
                    let own = std::fs::metadata(&dir).map_or(0, |m| m.blocks() * 512);
                    let bytes = own + changes::usage(&dir)?;
                    self.shared.measured.lock().unwrap_or_else(PoisonError::into_inner).insert(number, bytes);
                    bytes
                }
            };
        }
        Ok(total)
    }

    /// Bytes in the regular files of a whole stack; layers that are not unpacked count nothing.
    pub fn stack_size(&self, chain: Option<&ChainId>) -> u64 {
        self.state().chain(chain).map_or(0, |layers| layers.iter().map(|l| l.size).sum())
    }

    /// Bytes in the regular files of one layer, if it is unpacked.
    pub fn layer_size(&self, chain: &ChainId) -> Option<u64> {
        self.state().layers.get(chain).map(|l| l.size)
    }

    /// Removes a snapshot and all that was written to it; one that is gone already is fine.
    pub fn remove(&self, key: &str) -> Result<()> {
        check_key(key)?;
        let mut state = self.state();
        let Some(record) = state.remove_active(key)? else {
            return Ok(());
        };
        let dir = state.active_dir(record.number);
        drop(state);
        tree::remove_tree(&dir)
    }

    /// Mounts a snapshot for the host's own access. Not while a container runs on it: overlayfs forbids a second mount.
    pub fn mount(&self, key: &str) -> Result<MountedDir> {
        let mut state = self.state();
        let mount = mount_of(&state, state.active(key)?)?;
        let path = state.mount_dir();
        drop(state);
        MountedDir::new(&mount, path)
    }

    /// Mounts a stack of layers read-only.
    pub fn view(&self, chain: Option<&ChainId>) -> Result<MountedDir> {
        let mut state = self.state();
        let mut lowers = state.lowers(chain, 2)?;
        if lowers.len() < 2 {
            // Without an upper, overlayfs wants two; the same empty directory may not stand twice.
            lowers.push(self.shared.base.join("empty"));
        }
        let path = state.mount_dir();
        drop(state);
        MountedDir::new(&Mount { lowers, upper: None, work: None }, path)
    }

    /// Removes the layers that no image, record, lease or snapshot needs.
    pub fn gc(&self) -> Result<Vec<ChainId>> {
        let horizon = self.shared.content.horizon();
        let mut needed = self.shared.content.roots();
        let mut removed = Vec::new();
        let mut directories = Vec::new();
        {
            let mut state = self.state();
            let tops: Vec<ChainId> = state.active.values().filter_map(|a| a.parent).collect();
            for top in tops {
                needed.extend(state.chain(Some(&top)).into_iter().flatten().map(|l| l.chain_id.0));
            }
            let candidates: Vec<ChainId> = state.layers.keys().filter(|c| !needed.contains(&c.0)).copied().collect();
            for chain in candidates {
                let result = self.shared.content.unless_recent(&chain.0, horizon, || state.remove_layer(&chain));
                if let Some(record) = result.transpose()?.flatten() {
                    directories.push(state.layer_dir(record.number));
                    removed.push(chain);
                }
            }
        }
        for dir in directories {
            tree::remove_tree(&dir)?;
        }
        Ok(removed)
    }
}

fn mount_of(state: &State, active: &ActiveRecord) -> Result<Mount> {
    let dir = state.active_dir(active.number);
    Ok(Mount {
        lowers: state.lowers(active.parent.as_ref(), 1)?,
        upper: Some(dir.join("fs")),
        work: Some(dir.join("work")),
    })
}

/// The topmost layer that says what the root directory is like: its owner and mode.
fn root_template(state: &State, parent: Option<&ChainId>) -> Result<Option<PathBuf>> {
    Ok(state.chain(parent)?.iter().find(|l| l.has_root).map(|l| state.layer_dir(l.number)))
}

fn make_root(path: &Path) -> Result<()> {
    make_dir(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).at("change mode of", path)
}

fn copy_attributes(from: &Path, to: &Path) -> Result<()> {
    let metadata = std::fs::metadata(from).at("stat", from)?;
    std::os::unix::fs::chown(to, Some(metadata.uid()), Some(metadata.gid())).at("change owner of", to)?;
    std::fs::set_permissions(to, metadata.permissions()).at("change mode of", to)
}
