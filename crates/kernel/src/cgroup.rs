//! Control groups, version 1, hybrid and 2, behind one type.
//!
//! Used by the monitors (create, limit, join, kill), by the engine and the CRI (statistics, pause, removal). A cgroup is named by
//! a path below every hierarchy (`/gantry/<id>`). Deliberately no cache: the kernel is asked each time, so anyone may look.

mod device_filter;
mod hierarchies;
mod limits_v1;
mod limits_v2;
mod resources;
mod stats;

use std::{
    fs,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};

pub use hierarchies::{Hierarchies, Version};
pub use resources::{DeviceRule, Resources, ThrottleRate};
pub use stats::{BlockIo, Stats};

/// A file of a cgroup that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cgroup {path}: {what}: {source}", path = .path.display())]
pub struct Error {
    pub path: PathBuf,
    pub what: String,
    pub source: io::Error,
}

impl Error {
    pub(crate) fn new(path: &Path, what: impl Into<String>, source: io::Error) -> Self {
        Error { path: path.to_path_buf(), what: what.into(), source }
    }
}

/// One cgroup in all hierarchies. It need not exist.
#[derive(Debug, Clone)]
pub struct Cgroup {
    hierarchies: Hierarchies,
    path: PathBuf,
}

impl Cgroup {
    /// `path` is below every hierarchy's mount, such as `/gantry/<id>`; `..` has no place in it.
    pub fn new(hierarchies: &Hierarchies, path: &str) -> Result<Self, Error> {
        let relative = PathBuf::from(path.trim_start_matches('/'));
        let plain = relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !plain || relative.as_os_str().is_empty() {
            return Err(Error::new(Path::new(path), "path", io::Error::from(io::ErrorKind::InvalidInput)));
        }
        Ok(Cgroup { hierarchies: hierarchies.clone(), path: relative })
    }

    /// The same, with the hierarchies looked up now.
    pub fn find(path: &str) -> Result<Self, Error> {
        Self::new(&Hierarchies::detect()?, path)
    }

    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// The directory in the hierarchy of v1 controller `name`.
    pub fn v1_dir(&self, name: &str) -> Option<PathBuf> {
        self.hierarchies.v1_mount(name).map(|mount| mount.join(&self.path))
    }

    pub fn v2_dir(&self) -> Option<PathBuf> {
        (self.hierarchies.version() == Version::V2)
            .then(|| self.hierarchies.v2_mount().map(|mount| mount.join(&self.path)))
            .flatten()
    }

    /// One directory for each hierarchy.
    pub fn dirs(&self) -> Vec<PathBuf> {
        self.hierarchies.mounts().iter().map(|mount| mount.join(&self.path)).collect()
    }

    pub fn exists(&self) -> bool {
        self.dirs().iter().any(|dir| dir.exists())
    }

    /// Makes the directories and, on v2, hands the controllers down to them. Idempotent.
    pub fn create(&self) -> Result<(), Error> {
        match self.hierarchies.version() {
            Version::V2 => limits_v2::create(&self.hierarchies, &self.path),
            Version::V1 | Version::Hybrid => limits_v1::create(&self.hierarchies, &self.path),
        }
    }

    /// Sets the limits that `resources` names; others stay.
    pub fn limit(&self, resources: &Resources) -> Result<(), Error> {
        match self.v2_dir() {
            Some(dir) => limits_v2::apply(&dir, resources),
            None => limits_v1::apply(self, resources),
        }
    }

    /// Moves process `pid` in. On v1 the first of these writes waits for a grace period of the kernel (5–12 ms); the following are free.
    pub fn join(&self, pid: i32) -> Result<(), Error> {
        for dir in self.dirs() {
            write(&dir.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Moves the calling process in; it must have one thread. Unlike [`Cgroup::join`] this takes no lock of the whole machine on v1: a single
    /// thread that moves itself cannot fork or end meanwhile, and the kernel knows it.
    pub fn join_self(&self) -> Result<(), Error> {
        let file = if self.hierarchies.version() == Version::V2 { "cgroup.procs" } else { "tasks" };
        for dir in self.dirs() {
            write(&dir.join(file), "0")?;
        }
        Ok(())
    }

    /// The v2 directory, to clone into; `None` on v1.
    pub fn open_v2(&self) -> Result<Option<OwnedFd>, Error> {
        let Some(dir) = self.v2_dir() else {
            return Ok(None);
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&dir, flags, Mode::empty()).map(Some).map_err(|error| Error::new(&dir, "open", error.into()))
    }

    /// All processes, those of cgroups below included.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let mut found = Vec::new();
        if let Some(dir) = self.process_dir() {
            collect_pids(&dir, &mut found)?;
        }
        Ok(found)
    }

    /// The hierarchy whose member list is read: pids or memory on v1, the only one on v2.
    fn process_dir(&self) -> Option<PathBuf> {
        self.v2_dir()
            .or_else(|| self.v1_dir("pids"))
            .or_else(|| self.v1_dir("memory"))
            .or_else(|| self.dirs().into_iter().next())
    }

    pub fn freeze(&self) -> Result<(), Error> {
        self.set_frozen(true)
    }

    pub fn thaw(&self) -> Result<(), Error> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), Error> {
        if let Some(dir) = self.v2_dir() {
            return write(&dir.join("cgroup.freeze"), if frozen { "1" } else { "0" });
        }
        let Some(dir) = self.v1_dir("freezer") else {
            return Err(Error::new(&self.path, "freezer", io::Error::from(io::ErrorKind::Unsupported)));
        };
        let (file, wanted) = (dir.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" });
        // A process that forks meanwhile leaves the state at FREEZING; asking again is what the kernel documents.
        for _ in 0..1000 {
            write(&file, wanted)?;
            let state = fs::read_to_string(&file).map_err(|error| Error::new(&file, "read", error))?;
            if state.trim() == wanted {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        write(&file, "THAWED")?;
        Err(Error::new(&file, "freeze", io::Error::from(io::ErrorKind::TimedOut)))
    }

    pub fn is_frozen(&self) -> bool {
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        match (self.v2_dir(), self.v1_dir("freezer")) {
            (Some(dir), _) => read(dir.join("cgroup.freeze")).trim() == "1",
            (None, Some(dir)) => read(dir.join("freezer.state")).trim() != "THAWED" && dir.exists(),
            (None, None) => false,
        }
    }

    /// Signals every process. For SIGKILL it goes on until none is left or `patience` is over, since a process may fork meanwhile.
    pub fn signal_all(&self, signal: i32, patience: Duration) -> Result<(), Error> {
        if signal != libc::SIGKILL {
            for pid in self.pids()? {
                // Gone meanwhile is what was wanted.
                let _ = crate::process::signal(pid, signal);
            }
            return Ok(());
        }
        if let Some(dir) = self.v2_dir()
            && dir.join("cgroup.kill").exists()
        {
            write(&dir.join("cgroup.kill"), "1")?;
        }
        let deadline = Instant::now() + patience;
        loop {
            let pids = self.pids()?;
            if pids.is_empty() {
                return Ok(());
            }
            for pid in pids {
                let _ = crate::process::signal(pid, signal);
            }
            if self.is_frozen() {
                self.thaw()?;
            }
            if Instant::now() >= deadline {
                return Err(Error::new(&self.path, "kill", io::Error::from(io::ErrorKind::TimedOut)));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    pub fn stats(&self) -> Stats {
        match self.v2_dir() {
            Some(dir) => stats::read_v2(&dir),
            None => stats::read_v1(self),
        }
    }

    /// How often the kernel killed for want of memory in here.
    pub fn oom_kills(&self) -> u64 {
        let (file, key) = match (self.v2_dir(), self.v1_dir("memory")) {
            (Some(dir), _) => (dir.join("memory.events"), "oom_kill"),
            (None, Some(dir)) => (dir.join("memory.oom_control"), "oom_kill"),
            (None, None) => return 0,
        };
        stats::keyed(&file, key).unwrap_or(0)
    }

    /// Removes the directories, those below first. Processes must be gone; a last one that is being reaped is waited for briefly.
    pub fn remove(&self) -> Vec<Error> {
        self.dirs().iter().filter_map(|dir| remove_tree(dir).err()).collect()
    }
}

fn collect_pids(dir: &Path, found: &mut Vec<i32>) -> Result<(), Error> {
    let file = dir.join("cgroup.procs");
    match fs::read_to_string(&file) {
        Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0)),
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(Error::new(&file, "read", error)),
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_pids(&entry.path(), found)?;
        }
    }
    Ok(())
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn remove_tree(dir: &Path) -> Result<(), Error> {
    // A killed process leaves its cgroup some time after its parent saw it die.
    let deadline = Instant::now() + Duration::from_millis(500);
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        remove_tree(&entry.path())?;
                    }
                }
                std::thread::sleep(Duration::from_micros(300));
            }
            Err(error) => return Err(Error::new(dir, "remove", error)),
        }
    }
}

/// One open, one write: a cgroup's file is neither made nor truncated.
pub(crate) fn write(path: &Path, value: &str) -> Result<(), Error> {
    let written = fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|error| Error::new(path, format!("write {value:?}"), error))
}

#[cfg(test)]
mod tests;
