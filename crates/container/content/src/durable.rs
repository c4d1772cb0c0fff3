//! Durable file operations: atomic replacement, and directory syncs shared by everybody who waits for one.
//!
//! After `replace` returns, the file holds the new bytes after any crash; before, it holds the old ones.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::{At, Result};

pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).at("create directory", path)
}

pub(crate) fn create_new(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path).at("create", path)
}

/// Writes `bytes` to `path` atomically and durably. `sync` must be of the directory that holds `path`.
pub(crate) fn replace(path: &Path, bytes: &[u8], sync: &DirSync) -> Result<()> {
    let temporary = path.with_extension("new");
    // A leftover of a crash; nobody else writes it (one writer a directory).
    let _ = fs::remove_file(&temporary);
    let mut file = create_new(&temporary)?;
    file.write_all(bytes).at("write", &temporary)?;
    file.sync_data().at("sync", &temporary)?;
    fs::rename(&temporary, path).at("replace", path)?;
    sync.wait()
}

/// Removes a file durably; a file that is gone already is fine.
pub(crate) fn remove(path: &Path, sync: &DirSync) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).at("remove", path),
        Ok(()) => sync.wait(),
    }
}

/// Group commit of directory entries: any number of concurrent renames in one directory share one fsync.
pub(crate) struct DirSync {
    path: PathBuf,
    dir: File,
    rounds: Mutex<Rounds>,
    done: Condvar,
}

#[derive(Default)]
struct Rounds {
    running: bool,
    /// Syncs started so far; a waiter needs one that started after its rename.
    started: u64,
    finished: u64,
}

impl DirSync {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let dir = File::open(path).at("open", path)?;
        Ok(Self { path: path.to_owned(), dir, rounds: Mutex::default(), done: Condvar::new() })
    }

    /// Returns once the directory's entries as of this call are on disk.
    pub(crate) fn wait(&self) -> Result<()> {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = rounds.started + 1;
        while rounds.finished < needed {
            if rounds.running {
                rounds = self.done.wait(rounds).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            rounds.running = true;
            rounds.started += 1;
            let mine = rounds.started;
            drop(rounds);
            let result = self.dir.sync_all();
            rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
            rounds.running = false;
            if result.is_ok() {
                rounds.finished = mine;
            }
            self.done.notify_all();
            result.at("sync", &self.path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_syncs_of_one_directory_all_return() {
        let dir = tempfile::tempdir().unwrap();
        let sync = DirSync::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| sync.wait().unwrap());
            }
        });
        let rounds = sync.rounds.lock().unwrap();
        assert!(rounds.started <= 16 && rounds.started == rounds.finished);
    }
}
