//! Named and anonymous volumes of the `local` driver.
//!
//! The engine makes, resolves and removes them; `docker-api` lists them. A volume is
//! `<root>/volumes/<name>/` with its record and `_data`. A volume exists exactly when its record does: the
//! record is written last at create and removed first at removal, and `open` sweeps the rest.
//! Who uses a volume is the engine's knowledge and is handed in where it matters.

mod copy;
mod name;
mod source;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use copy::copy_up;
pub use name::VolumeName;
pub use source::Source;

const RECORD: &str = "volume.json";

/// What a volume is asked to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Made up (64 hex digits) by the caller for anonymous volumes.
    pub name: String,
    /// `local` or empty.
    pub driver: String,
    /// `type`, `o`, `device`.
    pub driver_opts: BTreeMap<String, String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

/// A volume's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: VolumeName,
    /// When it was made.
    pub created_at: Timestamp,
    /// Driver options as given.
    #[serde(default)]
    pub driver_opts: BTreeMap<String, String>,
    /// Labels as given.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What can go wrong with volumes; the wording is Docker's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such volume.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// The name cannot be a file name.
    #[error(
        "create {0}: \"{0}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )]
    InvalidName(String),
    /// Only `local` is served.
    #[error("error looking up volume plugin {0}: plugin \"{0}\" not found")]
    UnknownDriver(String),
    /// Driver options that make no sense.
    #[error("create {name}: {reason}")]
    InvalidOptions {
        /// The volume.
        name: String,
        /// Why.
        reason: String,
    },
    /// Containers use it.
    #[error("remove {name}: volume is in use - [{}]", users.join(", "))]
    InUse {
        /// The volume.
        name: String,
        /// Container IDs.
        users: Vec<String>,
    },
    /// The file system said no.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

impl Error {
    fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Error::Io { action, path: path.into(), source }
    }
}

/// The volumes of one root. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Volumes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    known: Mutex<BTreeMap<VolumeName, Volume>>,
}

impl Volumes {
    /// Opens `<root>/volumes`, sweeping what a crash left without a record.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let root = root.join("volumes");
        make_dir(&root)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&root).map_err(|e| Error::io("read", &root, e))? {
            let dir = entry.map_err(|e| Error::io("read", &root, e))?.path();
            match fs::read(dir.join(RECORD)).ok().and_then(|bytes| serde_json::from_slice::<Volume>(&bytes).ok()) {
                Some(volume) => {
                    known.insert(volume.name.clone(), volume);
                }
                None => {
                    tracing::warn!(dir = %dir.display(), "sweeping a volume without a record");
                    source::unmount_quietly(&dir.join("_data"));
                    let _ = fs::remove_dir_all(&dir);
                }
            }
        }
        Ok(Self(Arc::new(Inner { root, known: Mutex::new(known) })))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<VolumeName, Volume>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a volume, or answers the one that already has the name. True when it was made now.
    pub fn create(&self, spec: &VolumeSpec) -> Result<(Volume, bool), Error> {
        if !spec.driver.is_empty() && spec.driver != "local" {
            return Err(Error::UnknownDriver(spec.driver.clone()));
        }
        let name = VolumeName::parse(&spec.name)?;
        source::validate(&name, &spec.driver_opts)?;
        let mut known = self.known();
        if let Some(volume) = known.get(&name) {
            return Ok((volume.clone(), false));
        }
        let volume = Volume {
            name: name.clone(),
            created_at: Timestamp::now(),
            driver_opts: spec.driver_opts.clone(),
            labels: spec.labels.clone(),
        };
        let dir = self.dir(&name);
        make_dir(&dir)?;
        make_data_dir(&dir.join("_data"))?;
        write_record(&dir, &volume)?;
        known.insert(name, volume.clone());
        tracing::info!(volume = %volume.name, "volume created");
        Ok((volume, true))
    }

    /// One volume.
    pub fn get(&self, name: &str) -> Result<Volume, Error> {
        let missing = || Error::NotFound(name.to_owned());
        let key = VolumeName::parse(name).map_err(|_| missing())?;
        self.known().get(&key).cloned().ok_or_else(missing)
    }

    /// All volumes, by name.
    pub fn list(&self) -> Vec<Volume> {
        self.known().values().cloned().collect()
    }

    /// Removes a volume that nobody uses; `force` tolerates that it does not exist.
    pub fn remove(&self, name: &str, users: &[String], force: bool) -> Result<(), Error> {
        let volume = match self.get(name) {
            Ok(volume) => volume,
            Err(Error::NotFound(_)) if force => return Ok(()),
            Err(error) => return Err(error),
        };
        if !users.is_empty() {
            return Err(Error::InUse { name: name.to_owned(), users: users.to_vec() });
        }
        let dir = self.dir(&volume.name);
        let record = dir.join(RECORD);
        fs::remove_file(&record).map_err(|e| Error::io("remove", &record, e))?;
        self.known().remove(&volume.name);
        source::unmount_quietly(&dir.join("_data"));
        fs::remove_dir_all(&dir).map_err(|e| Error::io("remove", &dir, e))?;
        tracing::info!(volume = %volume.name, "volume removed");
        Ok(())
    }

    /// Where the data of a volume is seen on the host.
    pub fn mountpoint(&self, volume: &Volume) -> PathBuf {
        self.dir(&volume.name).join("_data")
    }

    /// What to mount into a container; mounts a device-backed volume at its mountpoint first.
    pub fn source(&self, volume: &Volume) -> Result<Source, Error> {
        source::resolve(volume, &self.mountpoint(volume))
    }

    /// Bytes that a volume holds.
    pub fn usage(&self, volume: &Volume) -> u64 {
        copy::size_bytes(&self.mountpoint(volume))
    }

    fn dir(&self, name: &VolumeName) -> PathBuf {
        self.0.root.join(name.as_str())
    }
}

fn make_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| Error::io("create", path, e))
}

/// `_data` itself is open as Docker's is: its parents are 0700, and a container's user must reach it.
fn make_data_dir(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(|e| Error::io("chmod", path, e))
}

fn write_record(dir: &Path, volume: &Volume) -> Result<(), Error> {
    let path = dir.join(RECORD);
    let temporary = dir.join("volume.json.new");
    let bytes = serde_json::to_vec(volume).map_err(|e| Error::io("encode", &path, io::Error::other(e)))?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(|e| Error::io("create", &temporary, e))?;
    io::Write::write_all(&mut file, &bytes).map_err(|e| Error::io("write", &temporary, e))?;
    file.sync_all().map_err(|e| Error::io("sync", &temporary, e))?;
    fs::rename(&temporary, &path).map_err(|e| Error::io("rename", &path, e))
}

#[cfg(test)]
mod tests;
