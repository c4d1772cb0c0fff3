//! Mount points that a RUN step needs and its image lacks: known before the step, taken away after it.
//!
//! The runtime makes a file or folder wherever something is mounted. What is left of it would become part of the layer.
//! Everything is resolved below the build root, so a step that swaps a folder for a link deletes nothing elsewhere.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, OFlags, Stat, Timespec, Timestamps, statat, unlinkat};

use crate::context::{Root, normalise};

/// What every step has mounted.
const ALWAYS: [&str; 6] = ["/proc", "/sys", "/dev", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"];

/// Paths that were not there before the step, and folders whose times making them changes.
pub(crate) struct Stubs {
    missing: Vec<PathBuf>,
    parents: Vec<(PathBuf, Stat)>,
}

impl Stubs {
    /// To be called before the step runs.
    pub(crate) fn before<'a>(root: &Root, targets: impl Iterator<Item = &'a str>) -> Self {
        let mut stubs = Self { missing: Vec::new(), parents: Vec::new() };
        for target in ALWAYS.into_iter().chain(targets) {
            stubs.note(root, &normalise(target));
        }
        stubs
    }

    fn note(&mut self, root: &Root, target: &Path) {
        let mut path = PathBuf::new();
        for component in target.components() {
            let parent = path.clone();
            path.push(component);
            if root.resolve(&path, OFlags::PATH).is_ok() {
                continue;
            }
            if let Some(stat) = stat_of(root, &parent) {
                self.parents.push((parent, stat));
            }
            if !self.missing.contains(&path) {
                self.missing.push(path.clone());
            }
        }
    }

    /// To be called when the step is over. What the step itself put there stays.
    pub(crate) fn remove(&self, root: &Root) {
        for path in self.missing.iter().rev() {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let Ok(dir) = root.resolve(parent, OFlags::DIRECTORY | OFlags::RDONLY) else { continue };
            let Ok(stat) = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            // A folder that is not empty, or a file that was written, is the step's own.
            let _ = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => unlinkat(&dir, name, AtFlags::REMOVEDIR),
                FileType::RegularFile if stat.st_size == 0 => unlinkat(&dir, name, AtFlags::empty()),
                _ => Ok(()),
            };
        }
        for (path, stat) in self.parents.iter().rev() {
            let Ok(dir) = root.resolve(path, OFlags::DIRECTORY | OFlags::RDONLY) else { continue };
            let modified = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
            let _ = rustix::fs::futimens(&dir, &Timestamps { last_access: modified, last_modification: modified });
        }
    }
}

fn stat_of(root: &Root, path: &Path) -> Option<Stat> {
    let dir = root.resolve(path, OFlags::DIRECTORY | OFlags::PATH).ok()?;
    statat(&dir, "", AtFlags::EMPTY_PATH).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_go_and_what_the_step_wrote_stays_also_behind_links() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(outside.path().join("x")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::create_dir(dir.path().join("swapped")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let stubs = Stubs::before(&root, ["/mnt/a/b", "/kept", "/swapped/x", "/cache"].into_iter());
        for path in ["proc", "sys", "dev", "mnt/a/b", "kept", "cache"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        for (path, text) in [("etc/hosts", ""), ("etc/resolv.conf", "own"), ("kept/file", "")] {
            std::fs::write(dir.path().join(path), text).unwrap();
        }
        std::fs::remove_dir(dir.path().join("swapped")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("swapped")).unwrap();
        stubs.remove(&root);
        let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["etc", "kept", "swapped"]);
        assert!(dir.path().join("etc/resolv.conf").exists() && !dir.path().join("etc/hosts").exists());
        assert!(outside.path().join("x").exists(), "nothing outside the root is touched");
    }
}
