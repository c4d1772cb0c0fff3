//! Where builds keep what is not an image: temporary folders with their mounts, and the folders of cache mounts.
//!
//! Invariants: a [`TempSpace`] unmounts before it removes, so nothing that was bound into it is ever deleted; what a
//! killed process left is swept when the next one starts; a cache folder's name says nothing that a user chose.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, OFlags, statat};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};
use sha2::{Digest as _, Sha256};

use crate::BuildError;
use crate::context::Root;

/// The builder's own folders.
#[derive(Clone)]
pub struct Space {
    dir: PathBuf,
    /// One lock a cache folder, for `sharing=locked` and `private`.
    locks: Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

/// A temporary folder, in which other trees may be mounted; gone when dropped.
pub struct TempSpace {
    dir: PathBuf,
    mounts: Vec<PathBuf>,
    next: usize,
}

/// A cache mount's folder, for as long as it is used.
pub(crate) struct CacheDir {
    pub dir: PathBuf,
    pub fresh: bool,
    /// Counts as a user, so that a prune leaves the folder alone.
    _used: Arc<tokio::sync::Mutex<()>>,
    _lock: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Space {
    pub(crate) fn open(dir: &Path) -> Result<Self, BuildError> {
        let space = Self { dir: dir.to_owned(), locks: Arc::default() };
        let (temp, caches) = (space.temp(), space.caches());
        sweep(&temp)?;
        for dir in [&temp, &caches] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(BuildError::io("cannot make the folder", dir))?;
        }
        Ok(space)
    }

    fn temp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    fn caches(&self) -> PathBuf {
        self.dir.join("cache")
    }

    /// A new temporary folder. Its path is short: sockets stand in it.
    pub fn temporary(&self) -> Result<TempSpace, BuildError> {
        let dir = self.temp().join(hex::encode(rand::random::<[u8; 6]>()));
        std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(BuildError::io("cannot make the folder", &dir))?;
        Ok(TempSpace { dir, mounts: Vec::new(), next: 0 })
    }

    fn lock(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().clone()
    }

    /// The folder of a cache mount. `locked` waits for other users; `private` takes another folder where one is in use.
    pub(crate) async fn cache_dir(&self, id: &str, locked: bool, private: bool) -> Result<CacheDir, BuildError> {
        let mut name = hex::encode(Sha256::digest(id.as_bytes()));
        let mut guard = None;
        if locked {
            guard = Some(self.lock(&name).lock_owned().await);
        } else if private {
            let base = name.clone();
            for number in 0.. {
                name = if number == 0 { base.clone() } else { format!("{base}.{number}") };
                if let Ok(free) = self.lock(&name).try_lock_owned() {
                    guard = Some(free);
                    break;
                }
            }
        }
        let used = self.lock(&name);
        let dir = self.caches().join(name);
        let fresh = match std::fs::create_dir(&dir) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(BuildError::io("cannot make the folder", &dir)(error)),
        };
        Ok(CacheDir { dir, fresh, _used: used, _lock: guard })
    }

    /// Names of the cache mounts' folders, with the bytes in each.
    pub fn cache_mounts(&self) -> Vec<(String, u64)> {
        let Ok(entries) = std::fs::read_dir(self.caches()) else { return Vec::new() };
        let sized =
            |entry: std::fs::DirEntry| (entry.file_name().to_string_lossy().into_owned(), bytes_in(&entry.path()));
        entries.flatten().map(sized).collect()
    }

    /// Removes the cache mounts that nobody uses. Returns their names and the bytes that were in them.
    pub fn clear_cache_mounts(&self) -> Result<Vec<(String, u64)>, BuildError> {
        let mut removed = Vec::new();
        let locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, size) in self.cache_mounts() {
            if locks.get(&name).is_some_and(|lock| Arc::strong_count(lock) > 1) {
                continue;
            }
            let dir = self.caches().join(&name);
            let doomed = self.temp().join(hex::encode(rand::random::<[u8; 6]>()));
            std::fs::rename(&dir, &doomed).map_err(BuildError::io("cannot remove", &dir))?;
            std::fs::remove_dir_all(&doomed).map_err(BuildError::io("cannot remove", &doomed))?;
            removed.push((name, size));
        }
        Ok(removed)
    }
}

impl TempSpace {
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// A name in the folder that nothing has yet.
    pub(crate) fn fresh_path(&mut self) -> PathBuf {
        self.next += 1;
        self.dir.join(self.next.to_string())
    }

    /// Binds what a path inside a confined tree leads to. The tree's owner may swap links afterwards: the mount stays
    /// what it was found to be.
    pub(crate) fn bind(&mut self, root: &Root, path: &Path) -> Result<PathBuf, BuildError> {
        let failed = |what| BuildError::io(what, path);
        let found = root.resolve(path, OFlags::PATH).map_err(failed("cannot mount"))?;
        let stat = statat(&found, "", AtFlags::EMPTY_PATH).map_err(|e| failed("cannot look at")(e.into()))?;
        let point = self.fresh_path();
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => std::fs::create_dir(&point),
            FileType::RegularFile => std::fs::File::create(&point).map(drop),
            _ => Err(std::io::Error::other("only files and folders can be mounted")),
        }
        .map_err(failed("cannot mount"))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = rustix::mount::open_tree(&found, c"", flags).map_err(|e| failed("cannot mount")(e.into()))?;
        self.attach(&tree, point)
    }

    /// A small file system in memory: what must never reach a disk.
    pub(crate) fn memory(&mut self) -> Result<PathBuf, BuildError> {
        let point = self.fresh_path();
        let failed = |error: rustix::io::Errno| BuildError::io("cannot mount a tmpfs at", &point)(error.into());
        std::fs::create_dir(&point).map_err(BuildError::io("cannot make the folder", &point))?;
        let context = rustix::mount::fsopen("tmpfs", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
        for (key, value) in [("mode", "0700"), ("size", "16m")] {
            rustix::mount::fsconfig_set_string(&context, key, value).map_err(failed)?;
        }
        rustix::mount::fsconfig_create(&context).map_err(failed)?;
        let attributes =
            rustix::mount::MountAttrFlags::MOUNT_ATTR_NOSUID | rustix::mount::MountAttrFlags::MOUNT_ATTR_NODEV;
        let tree = rustix::mount::fsmount(&context, rustix::mount::FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(failed)?;
        self.attach(&tree, point.clone())
    }

    fn attach(&mut self, tree: &impl std::os::fd::AsFd, point: PathBuf) -> Result<PathBuf, BuildError> {
        rustix::mount::move_mount(tree, c"", CWD, &point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|e| BuildError::io("cannot mount at", &point)(e.into()))?;
        self.mounts.push(point.clone());
        Ok(point)
    }
}

impl Drop for TempSpace {
    fn drop(&mut self) {
        for mount in self.mounts.iter().rev() {
            if let Err(error) = unmount(mount) {
                // Not removed, then: what is mounted there is somebody else's.
                tracing::warn!(path = %mount.display(), %error, "a build's mount stays until the next start");
                return;
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(path = %self.dir.display(), %error, "a build's folder stays until the next start");
        }
    }
}

fn unmount(point: &Path) -> rustix::io::Result<()> {
    match rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes away what a killed process left: mounts first, then files.
fn sweep(dir: &Path) -> Result<(), BuildError> {
    let table = Path::new("/proc/self/mountinfo");
    let mounts = std::fs::read_to_string(table).map_err(BuildError::io("cannot read", table))?;
    let below: Vec<PathBuf> = mounts.lines().filter_map(mount_point).filter(|point| point.starts_with(dir)).collect();
    for point in below.iter().rev() {
        unmount(point).map_err(|error| BuildError::io("cannot unmount", point)(error.into()))?;
    }
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(BuildError::io("cannot remove", dir)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The fifth field of a line of mountinfo, in which white space is written in octal.
fn mount_point(line: &str) -> Option<PathBuf> {
    let field = line.split(' ').nth(4)?;
    Some(field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\").into())
}

fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_in(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn locked_caches_wait_and_private_ones_part() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::open(dir.path()).unwrap();
        let first = space.cache_dir("../../etc", false, true).await.unwrap();
        assert!(first.fresh && first.dir.starts_with(dir.path()));
        let second = space.cache_dir("../../etc", false, true).await.unwrap();
        assert_ne!(first.dir, second.dir);
        drop(first);
        assert!(!space.cache_dir("../../etc", false, true).await.unwrap().fresh);
        let held = space.cache_dir("l", true, false).await.unwrap();
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(50), space.cache_dir("l", true, false));
        assert!(waiting.await.is_err());
        drop(held);
        assert!(!space.cache_dir("l", true, false).await.unwrap().fresh);
    }

    #[test]
    fn what_a_killed_process_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let left = Space::open(dir.path()).unwrap().temporary().unwrap();
        std::fs::write(left.path().join("file"), "x").unwrap();
        let path = left.path().to_owned();
        std::mem::forget(left);
        Space::open(dir.path()).unwrap();
        assert!(!path.exists());
    }
}
