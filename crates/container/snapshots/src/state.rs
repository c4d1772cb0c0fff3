//! What the snapshot store remembers: a record for each layer and for each writable snapshot, a file each.
//!
//! A directory without a record is a leftover of a crash, and so is a record without its directory; opening sweeps both.
//! Records are written after the directory is complete and removed before it is, so that a record never lies.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use oci::{ChainId, Digest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};
use crate::{mount, tree};

/// Stays empty: the lower of a snapshot that has no parent (overlayfs demands one).
const EMPTY: u64 = 0;

/// One unpacked layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LayerRecord {
    pub(crate) number: u64,
    pub(crate) chain_id: ChainId,
    pub(crate) parent: Option<ChainId>,
    pub(crate) diff_id: Digest,
    pub(crate) size: u64,
    pub(crate) has_root: bool,
}

/// One writable snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ActiveRecord {
    pub(crate) key: String,
    pub(crate) number: u64,
    pub(crate) parent: Option<ChainId>,
}

pub(crate) struct State {
    base: PathBuf,
    pub(crate) layers: BTreeMap<ChainId, LayerRecord>,
    pub(crate) active: BTreeMap<String, ActiveRecord>,
    next: u64,
}

impl State {
    /// Reads the records and sweeps what a crash left: stale mounts, half-made layers, orphans.
    pub(crate) fn open(base: &Path) -> Result<Self> {
        for dir in ["l", "a", "m", "empty", "layers", "active"] {
            make_dir(&base.join(dir))?;
        }
        for (path, _) in list(&base.join("m"))? {
            mount::detach(&path)?;
        }
        let layers: Vec<LayerRecord> = load(&base.join("layers"))?;
        let active: Vec<ActiveRecord> = load(&base.join("active"))?;
        let mut state =
            Self { base: base.to_owned(), layers: BTreeMap::new(), active: BTreeMap::new(), next: EMPTY + 1 };
        make_dir(&state.layer_dir(EMPTY))?;
        let layers =
            layers.into_iter().filter(|l| state.layer_dir(l.number).is_dir()).map(|l| (l.chain_id, l)).collect();
        let active =
            active.into_iter().filter(|a| state.active_dir(a.number).is_dir()).map(|a| (a.key.clone(), a)).collect();
        (state.layers, state.active) = (layers, active);
        let used = state.layers.values().map(|l| l.number).chain(state.active.values().map(|a| a.number));
        state.next = used.max().unwrap_or(EMPTY) + 1;
        state.sweep()?;
        Ok(state)
    }

    fn sweep(&self) -> Result<()> {
        let known_layer = |n: u64| n == EMPTY || self.layers.values().any(|l| l.number == n);
        let known_active = |n: u64| self.active.values().any(|a| a.number == n);
        for (path, name) in list(&self.base.join("l"))? {
            if !name.parse().is_ok_and(known_layer) {
                remove_leftover(&path)?;
            }
        }
        for (path, name) in list(&self.base.join("a"))? {
            if !name.parse().is_ok_and(known_active) {
                remove_leftover(&path)?;
            }
        }
        Ok(())
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    pub(crate) fn layer_dir(&self, number: u64) -> PathBuf {
        self.base.join(format!("l/{number}"))
    }

    pub(crate) fn active_dir(&self, number: u64) -> PathBuf {
        self.base.join(format!("a/{number}"))
    }

    pub(crate) fn mount_dir(&mut self) -> PathBuf {
        let number = self.number();
        self.base.join(format!("m/{number}"))
    }

    /// The layers of a chain, topmost first.
    pub(crate) fn chain(&self, top: Option<&ChainId>) -> Result<Vec<&LayerRecord>> {
        let mut chain = Vec::new();
        let mut next = top.copied();
        while let Some(id) = next {
            let layer = self.layers.get(&id).ok_or(Error::NoLayer(id))?;
            chain.push(layer);
            next = layer.parent;
        }
        Ok(chain)
    }

    /// Directories for overlayfs, topmost first; the empty one where there are fewer than `at_least`.
    pub(crate) fn lowers(&self, top: Option<&ChainId>, at_least: usize) -> Result<Vec<PathBuf>> {
        let mut lowers: Vec<PathBuf> = self.chain(top)?.iter().map(|l| self.layer_dir(l.number)).collect();
        if lowers.len() > oci::MAX_LAYERS {
            return Err(Error::TooManyLayers(lowers.len()));
        }
        if lowers.len() < at_least {
            lowers.push(self.layer_dir(EMPTY));
        }
        Ok(lowers)
    }

    pub(crate) fn put_layer(&mut self, record: LayerRecord) -> Result<()> {
        write(&self.layer_record(&record.chain_id), &record)?;
        self.layers.insert(record.chain_id, record);
        Ok(())
    }

    pub(crate) fn remove_layer(&mut self, chain: &ChainId) -> Result<Option<LayerRecord>> {
        unlink(&self.layer_record(chain))?;
        Ok(self.layers.remove(chain))
    }

    pub(crate) fn put_active(&mut self, record: ActiveRecord) -> Result<()> {
        write(&self.active_record(&record.key), &record)?;
        self.active.insert(record.key.clone(), record);
        Ok(())
    }

    pub(crate) fn remove_active(&mut self, key: &str) -> Result<Option<ActiveRecord>> {
        unlink(&self.active_record(key))?;
        Ok(self.active.remove(key))
    }

    pub(crate) fn active(&self, key: &str) -> Result<&ActiveRecord> {
        self.active.get(key).ok_or_else(|| Error::NoSnapshot(key.to_owned()))
    }

    fn layer_record(&self, chain: &ChainId) -> PathBuf {
        self.base.join(format!("layers/{}.json", chain.0.hex()))
    }

    fn active_record(&self, key: &str) -> PathBuf {
        self.base.join(format!("active/{key}.json"))
    }
}

/// An unpacker of the process that was killed may write for an instant longer than that held its lock.
fn remove_leftover(path: &Path) -> Result<()> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
    loop {
        match tree::remove_tree(path) {
            Err(Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::DirectoryNotEmpty && std::time::Instant::now() < deadline =>
            {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            done => return done,
        }
    }
}

/// Keys become file names: `[A-Za-z0-9_.-]`, 1 to 128, no leading dot.
pub(crate) fn check_key(key: &str) -> Result<()> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if key.is_empty() || key.len() > 128 || key.starts_with('.') || !key.bytes().all(fine) {
        return Err(Error::Key(key.to_owned()));
    }
    Ok(())
}

pub(crate) fn make_dir(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path).at("create directory", path)
}

fn list(dir: &Path) -> Result<Vec<(PathBuf, String)>> {
    let entry = |e: std::io::Result<fs::DirEntry>| e.map(|e| (e.path(), e.file_name().to_string_lossy().into_owned()));
    fs::read_dir(dir).at("list", dir)?.map(|e| entry(e).at("list", dir)).collect()
}

fn load<T: DeserializeOwned>(dir: &Path) -> Result<Vec<T>> {
    let mut records = Vec::new();
    for (path, name) in list(dir)? {
        if name.ends_with(".json") {
            let bytes = fs::read(&path).at("read", &path)?;
            records
                .push(serde_json::from_slice(&bytes).map_err(|source| Error::Damaged { path: path.clone(), source })?);
        } else {
            fs::remove_file(&path).at("remove", &path)?;
        }
    }
    Ok(records)
}

fn write<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    let bytes = serde_json::to_vec(record).map_err(|source| Error::Damaged { path: path.to_owned(), source })?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary).at("create", &temporary)?;
    file.write_all(&bytes).at("write", &temporary)?;
    file.sync_data().at("sync", &temporary)?;
    fs::rename(&temporary, path).at("replace", path)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir).and_then(|d| d.sync_all()).at("sync", dir)
}

fn unlink(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}
