//! One instance a root: the lock that says who holds it, and the card that a running instance leaves for `status` and `env`.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::paths::Paths;

/// How long a killed instance may take to be gone.
const DYING: Duration = Duration::from_secs(5);

/// What a running instance says about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Card {
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) started: jiff::Timestamp,
    /// Milliseconds from start to ready.
    pub(crate) ready_ms: u64,
    pub(crate) api_server: String,
    /// `host:port` of the registry.
    pub(crate) registry: String,
    pub(crate) node: String,
}

impl Card {
    pub(crate) fn write(&self, paths: &Paths) -> Result<()> {
        let path = paths.instance();
        let part = path.with_extension("part");
        std::fs::write(&part, serde_json::to_vec_pretty(self)?)
            .and_then(|()| std::fs::rename(&part, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The card of the last instance on this root, running or not; `None` where there was none.
    pub(crate) fn read(paths: &Paths) -> Result<Option<Self>> {
        let path = paths.instance();
        match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

/// Holds a root for as long as it lives. The kernel lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the root, or says who has it.
    pub(crate) fn take(paths: &Paths) -> Result<Self> {
        let path = paths.lock();
        let mut file = open(paths)?;
        let end = Instant::now() + DYING;
        while rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            let holder = holder(&mut file);
            // Killed, and the kernel is still taking it apart: it lets go of the lock in a moment.
            if holder.is_some_and(is_dying) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            let holder = holder.map_or("another process".to_owned(), |pid| format!("process {pid}"));
            bail!(
                "{} is held by {holder}: Gantry runs on this root already; see `gantry status`, or choose another with --root",
                paths.root.display()
            );
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { _file: file })
    }

    /// The process that holds the root now.
    pub(crate) fn held_by(paths: &Paths) -> Result<Option<u32>> {
        if !paths.lock().exists() {
            return Ok(None);
        }
        let mut file = open(paths)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(_) => Ok(holder(&mut file)),
        }
    }

    /// A process that holds this root's lock although the file was deleted: its root was taken away while it ran.
    pub(crate) fn stray(paths: &Paths) -> Option<u32> {
        let deleted = format!("{} (deleted)", paths.lock().display());
        let holds = |pid: u32| {
            let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            descriptors
                .filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok())
                .any(|target| target.as_os_str() == deleted.as_str())
        };
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        processes.filter_map(|process| process.file_name().to_str()?.parse().ok()).find(|pid| holds(*pid))
    }
}

/// It has given its memory back, and so its program, but not yet everything else.
fn is_dying(pid: u32) -> bool {
    let gone = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    std::fs::read_link(format!("/proc/{pid}/exe")).is_err_and(gone)
}

fn open(paths: &Paths) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = paths.lock();
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_on_a_root_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path()).unwrap();
        paths.make().unwrap();
        let lock = Lock::take(&paths).unwrap();
        let error = Lock::take(&paths).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert_eq!(Lock::held_by(&paths).unwrap(), Some(std::process::id()));
        assert_eq!(Lock::stray(&paths), None);
        std::fs::remove_file(paths.lock()).unwrap();
        assert_eq!(Lock::stray(&paths), Some(std::process::id()));
        drop(lock);
        assert_eq!(Lock::stray(&paths), None);
        assert_eq!(Lock::held_by(&paths).unwrap(), None);
    }
}
