//! Image records: which images there are, what they are called, and where they came from.
//!
//! An image is its configuration's digest. `images/<hex>.json` holds what the configuration does not say (where the
//! layers' bytes are, the origin); `images/names.json` maps tags and repository digests to images. Deleting a record
//! frees nothing by itself: [`crate::Store::gc`] does. Whether a container uses an image is the engine's to check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use oci::{ChainId, Descriptor, Digest, ImageConfig, ImageId, Reference, chain_ids, media_type};
use serde::{Deserialize, Serialize};

use crate::Store;
use crate::durable::{DirSync, make_dir, remove, replace};
use crate::error::{At, Error, Result};

const MAX_CONFIG_BYTES: u64 = 8 << 20;
const NAMES: &str = "names.json";

/// Where an image came from. What was made here satisfies every pull policy; what was pulled is asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// Built, committed, imported or loaded on this machine.
    Local,
    Pulled {
        registry: String,
    },
}

/// An image as it stands now. A copy: later changes do not show in it.
#[derive(Clone, Debug)]
pub struct Image {
    pub id: ImageId,
    pub config: Arc<ImageConfig>,
    /// The manifest that it was pulled or pushed as, if it ever was.
    pub manifest_digest: Option<Digest>,
    /// Stored layer blobs, lowest first, one for each diff ID.
    pub layers: Vec<Descriptor>,
    /// Tags.
    pub names: Vec<Reference>,
    /// `name@digest` for every repository that it was pulled from or pushed to.
    pub repo_digests: Vec<Reference>,
    /// Bytes of all layers unpacked, as far as known.
    pub size: u64,
    pub origin: Origin,
    /// When the configuration says it was made.
    pub created: Option<Timestamp>,
    /// When this store got it.
    pub stored: Timestamp,
}

/// What [`Images::create`] needs.
#[derive(Clone, Debug)]
pub struct NewImage {
    /// The configuration, byte for byte: its digest is the image's ID.
    pub config: Vec<u8>,
    pub layers: Vec<Descriptor>,
    pub manifest_digest: Option<Digest>,
    pub origin: Origin,
    /// Unpacked size; the sum of the layers' blobs if not known.
    pub size: Option<u64>,
}

/// One line of what a removal did, as `docker rmi` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// A name, in its familiar form.
    Untagged(String),
    Deleted(ImageId),
    /// A layer that no other image has; its space comes back with the next collection.
    Layer(ChainId),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    id: ImageId,
    manifest_digest: Option<Digest>,
    layers: Vec<Descriptor>,
    origin: Origin,
    size: u64,
    stored: Timestamp,
}

struct Entry {
    stored: Stored,
    config: Arc<ImageConfig>,
}

#[derive(Default)]
struct Table {
    images: BTreeMap<ImageId, Entry>,
    names: BTreeMap<Reference, ImageId>,
}

/// The table of images of a store; see [`crate::Store::images`].
pub struct Images {
    dir: PathBuf,
    sync: DirSync,
    table: Mutex<Table>,
}

impl Images {
    /// Reads the records. One whose configuration is gone is dropped: it could not be run or pushed.
    pub(crate) fn open(dir: &Path, blobs: &Path) -> Result<Self> {
        make_dir(dir)?;
        let mut table = Table::default();
        for entry in fs::read_dir(dir).at("list", dir)? {
            let path = entry.at("list", dir)?.path();
            if path.file_name().is_some_and(|n| n == NAMES) {
                continue;
            }
            let entry = path.extension().filter(|e| *e == "json").and_then(|_| load_entry(&path, blobs));
            match entry {
                Some(entry) => drop(table.images.insert(entry.stored.id, entry)),
                None => fs::remove_file(&path).at("remove", &path)?,
            }
        }
        table.names = load_names(&dir.join(NAMES))?;
        table.names.retain(|_, id| table.images.contains_key(id));
        Ok(Self { dir: dir.to_owned(), sync: DirSync::open(dir)?, table: Mutex::new(table) })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every image, oldest ID first.
    pub fn list(&self) -> Vec<Image> {
        let table = self.table();
        table.images.values().map(|entry| table.image(entry)).collect()
    }

    pub fn get(&self, id: &ImageId) -> Result<Image> {
        let table = self.table();
        table.images.get(id).map(|entry| table.image(entry)).ok_or_else(|| Error::NoImage(id.to_string()))
    }

    /// Finds an image by name, `name@digest`, ID or unambiguous ID prefix (with or without `sha256:`).
    pub fn resolve(&self, text: &str) -> Result<Image> {
        let table = self.table();
        let id = table.find(text)?;
        Ok(table.image(&table.images[&id]))
    }

    /// The image that carries exactly this name.
    pub fn named(&self, name: &Reference) -> Option<Image> {
        let table = self.table();
        let id = table.lookup(name)?;
        table.images.get(&id).map(|entry| table.image(entry))
    }

    /// Points `name` at an image, durably; the name may have pointed elsewhere. A digest reference is kept as such.
    pub fn tag(&self, id: &ImageId, name: &Reference) -> Result<()> {
        let mut table = self.table();
        if !table.images.contains_key(id) {
            return Err(Error::NoImage(id.to_string()));
        }
        let name = stored_name(name);
        if table.names.get(&name) == Some(id) {
            return Ok(());
        }
        let previous = table.names.insert(name.clone(), *id);
        self.save_names(&table.names).inspect_err(|_| {
            match previous {
                Some(previous) => table.names.insert(name.clone(), previous),
                None => table.names.remove(&name),
            };
        })?;
        tracing::info!(image = %id.0.short(), name = %name.familiar(), "image tagged");
        Ok(())
    }

    /// Removes one name. The image goes with its last name.
    pub fn untag(&self, name: &Reference) -> Result<Vec<Deleted>> {
        let name = stored_name(name);
        let mut table = self.table();
        let id = *table.names.get(&name).ok_or_else(|| Error::NoImage(name.familiar()))?;
        let mut gone = vec![name.clone()];
        let same_repository = |other: &Reference| other.name() == name.name();
        let tags_left = table.names_of(id).into_iter().filter(|n| *n != name && n.tag().is_some()).collect::<Vec<_>>();
        if !tags_left.iter().any(&same_repository) {
            // The repository's digests go with its last tag, as Docker does it.
            gone.extend(
                table.names_of(id).into_iter().filter(|n| n.digest().is_some() && *n != name && same_repository(n)),
            );
        }
        self.remove_names(&mut table, id, gone)
    }

    /// `docker rmi`: by name it untags (the image goes with its last name), by ID it removes all names of one repository
    /// and the image; names in several repositories need `force`.
    pub fn remove(&self, text: &str, force: bool) -> Result<Vec<Deleted>> {
        let by_name =
            Reference::parse(text).ok().map(|n| stored_name(&n)).filter(|n| self.table().names.contains_key(n));
        if let Some(name) = by_name {
            return self.untag(&name);
        }
        let mut table = self.table();
        let id = table.find(text)?;
        let names = table.names_of(id);
        let repositories: BTreeSet<String> = names.iter().map(Reference::name).collect();
        if repositories.len() > 1 && !force {
            return Err(Error::ReferencedInRepositories(id));
        }
        self.remove_names(&mut table, id, names)
    }

    /// Removes names, then the image if none is left. Names first: a crash between leaves an image without a name.
    fn remove_names(&self, table: &mut Table, id: ImageId, gone: Vec<Reference>) -> Result<Vec<Deleted>> {
        let mut left = table.names.clone();
        left.retain(|name, _| !gone.contains(name));
        self.save_names(&left)?;
        table.names = left;
        let mut done: Vec<Deleted> = gone.iter().map(|name| Deleted::Untagged(name.familiar())).collect();
        if table.names_of(id).is_empty() {
            remove(&self.path(&id), &self.sync)?;
            let gone = table.images.remove(&id);
            tracing::info!(image = %id.0.short(), "image deleted");
            done.push(Deleted::Deleted(id));
            let chains = gone.map(|gone| chain_ids(&gone.config.rootfs.diff_ids)).unwrap_or_default();
            let used: BTreeSet<ChainId> =
                table.images.values().flat_map(|other| chain_ids(&other.config.rootfs.diff_ids)).collect();
            done.extend(chains.into_iter().rev().filter(|chain| !used.contains(chain)).map(Deleted::Layer));
        }
        Ok(done)
    }

    /// Records an image whose layers are in the store. Recording the same configuration again keeps the older layers
    /// if their bytes are still there, and what was made here stays local.
    pub(crate) fn create(&self, store: &Store, new: NewImage) -> Result<ImageId> {
        let config = ImageConfig::parse(&new.config).map_err(Error::Config)?;
        if config.rootfs.diff_ids.len() != new.layers.len() {
            return Err(Error::LayerCount { diff_ids: config.rootfs.diff_ids.len(), layers: new.layers.len() });
        }
        if let Some(missing) = new.layers.iter().find(|l| !store.contains(&l.digest)) {
            return Err(Error::NoBlob(missing.digest));
        }
        let id = ImageId(store.put_bytes(media_type::OCI_CONFIG, &new.config)?.digest);
        let mut table = self.table();
        let stored = merge(table.images.get(&id).map(|e| &e.stored), id, new, store);
        let path = self.path(&id);
        let bytes = serde_json::to_vec(&stored).map_err(|source| Error::Damaged { path: path.clone(), source })?;
        replace(&path, &bytes, &self.sync)?;
        table.images.insert(id, Entry { stored, config: Arc::new(config) });
        Ok(id)
    }

    fn path(&self, id: &ImageId) -> PathBuf {
        self.dir.join(format!("{}.json", id.0.hex()))
    }

    fn save_names(&self, names: &BTreeMap<Reference, ImageId>) -> Result<()> {
        let path = self.dir.join(NAMES);
        let bytes = serde_json::to_vec(names).map_err(|source| Error::Damaged { path: path.clone(), source })?;
        replace(&path, &bytes, &self.sync)
    }
}

impl Table {
    fn names_of(&self, id: ImageId) -> Vec<Reference> {
        self.names.iter().filter(|(_, named)| **named == id).map(|(name, _)| name.clone()).collect()
    }

    fn image(&self, entry: &Entry) -> Image {
        let stored = entry.stored.clone();
        let (repo_digests, names) = self.names_of(stored.id).into_iter().partition(|n| n.digest().is_some());
        Image {
            id: stored.id,
            config: Arc::clone(&entry.config),
            manifest_digest: stored.manifest_digest,
            layers: stored.layers,
            names,
            repo_digests,
            size: stored.size,
            origin: stored.origin,
            created: entry.config.created,
            stored: stored.stored,
        }
    }

    fn lookup(&self, name: &Reference) -> Option<ImageId> {
        self.names.get(&stored_name(name)).copied()
    }

    fn find(&self, text: &str) -> Result<ImageId> {
        if let Ok(id) = text.parse::<ImageId>().or_else(|_| Digest::from_hex(text).map(ImageId)) {
            return if self.images.contains_key(&id) { Ok(id) } else { Err(Error::NoImage(text.to_owned())) };
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let is_prefix =
            !prefix.is_empty() && prefix.len() < 64 && prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let shown = match Reference::parse(text) {
            Ok(name) => match self.lookup(&name) {
                Some(id) => return Ok(id),
                None => name.or_latest().familiar(),
            },
            Err(_) if is_prefix => text.to_owned(),
            Err(error) => return Err(error.into()),
        };
        if !is_prefix {
            return Err(Error::NoImage(shown));
        }
        let mut matching = self.images.keys().filter(|id| id.0.hex().starts_with(prefix));
        match (matching.next(), matching.next()) {
            (Some(id), None) => Ok(*id),
            (Some(_), Some(_)) => Err(Error::AmbiguousPrefix(text.to_owned())),
            (None, _) => Err(Error::NoImage(shown)),
        }
    }
}

/// Names are kept as `name:tag` or `name@digest`; a tag beside a digest says nothing more.
fn stored_name(name: &Reference) -> Reference {
    match name.digest() {
        Some(digest) => name.with_digest(*digest),
        None => name.clone().or_latest(),
    }
}

fn merge(old: Option<&Stored>, id: ImageId, new: NewImage, store: &Store) -> Stored {
    let kept = old.filter(|old| old.layers.iter().all(|l| store.contains(&l.digest)));
    let origin = match old {
        Some(Stored { origin: Origin::Local, .. }) => Origin::Local,
        Some(_) | None => new.origin,
    };
    let layers = kept.map_or(new.layers, |old| old.layers.clone());
    let size = new.size.or(old.map(|o| o.size)).unwrap_or_else(|| layers.iter().map(|l| l.size).sum());
    Stored {
        id,
        manifest_digest: new.manifest_digest.or(old.and_then(|o| o.manifest_digest)),
        layers,
        origin,
        size,
        stored: old.map_or_else(Timestamp::now, |o| o.stored),
    }
}

fn load_entry(path: &Path, blobs: &Path) -> Option<Entry> {
    let stored: Stored = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let blob = blobs.join(stored.id.0.hex());
    let readable = fs::metadata(&blob).is_ok_and(|m| m.len() <= MAX_CONFIG_BYTES);
    let config = readable.then(|| fs::read(&blob).ok()).flatten().and_then(|bytes| ImageConfig::parse(&bytes).ok());
    match config {
        Some(config) => Some(Entry { stored, config: Arc::new(config) }),
        None => {
            tracing::warn!(image = %stored.id, "image dropped: its configuration is missing or damaged");
            None
        }
    }
}

fn load_names(path: &Path) -> Result<BTreeMap<Reference, ImageId>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Error::Damaged { path: path.to_owned(), source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).at("read", path),
    }
}
