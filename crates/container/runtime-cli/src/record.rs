//! What is remembered of a container between commands: one directory below the root, with a record and, until it is started, its gate.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

use kernel::cgroup::Cgroup;
use oci::runtime_spec::Process;
use runtime::{Failure, hooks::Hooks, seccomp::Filter};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with},
};
use serde::{Deserialize, Serialize};

use crate::{error::Error, global::Global};

const FILE: &str = "state.json";
const GATE: &str = "gate.sock";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) pid: i32,
    /// Tells the process from a later one of the same number.
    pub(crate) start_time: u64,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: String,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) cgroup: String,
    /// Bits of the namespaces that are not the host's.
    pub(crate) namespaces: u64,
    /// Whether the kernel ends all processes with the first one.
    pub(crate) own_pids: bool,
    pub(crate) hooks: Option<Hooks>,
    /// What an exec is like unless it says otherwise.
    pub(crate) process: Process,
    pub(crate) seccomp: Option<Filter>,
    pub(crate) personality: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// The directory of one container.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    id: String,
    dir: PathBuf,
}

impl Place {
    /// The id becomes a name in the file system: nothing but runc's alphabet.
    pub(crate) fn of(global: &Global, id: &str) -> Result<Self, Error> {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
        if id.is_empty() || id.len() > 1024 || !id.chars().all(valid) || matches!(id, "." | "..") {
            return Err(Error::InvalidId(id.to_owned()));
        }
        Ok(Place { id: id.to_owned(), dir: global.root.join(id) })
    }

    /// Makes the directory; the id is taken from then on.
    pub(crate) fn reserve(&self) -> Result<(), Error> {
        let make = || DirBuilder::new().mode(0o700).create(&self.dir);
        let made = match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = self.dir.parent().unwrap_or(Path::new("/"));
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(parent)
                    .map_err(|error| Error::io("make", parent, error))?;
                make()
            }
            other => other,
        };
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists(self.id.clone())),
            other => other.map_err(|error| Error::io("make", &self.dir, error)),
        }
    }

    pub(crate) fn load(&self) -> Result<Record, Error> {
        let path = self.dir.join(FILE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoSuchContainer(self.id.clone()));
            }
            other => other.map_err(|error| Error::io("read", &path, error))?,
        };
        serde_json::from_slice(&text).map_err(|source| Error::Json { path, source })
    }

    pub(crate) fn save(&self, record: &Record) -> Result<(), Error> {
        let path = self.dir.join(FILE);
        let text = serde_json::to_vec(record).map_err(|source| Error::Json { path: path.clone(), source })?;
        replace(&path, &text)
    }

    pub(crate) fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &self.dir, error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.dir.exists()
    }

    /// The socket at which an init waits to be started. (Named through a descriptor: the path may be too long for an address.)
    pub(crate) fn make_gate(&self) -> Result<OwnedFd, Error> {
        let failed = |error: rustix::io::Errno| Error::io("listen on", self.dir.join(GATE), error);
        let (_dir, address) = self.gate_address()?;
        let socket = seqpacket().map_err(failed)?;
        bind(&socket, &address).map_err(failed)?;
        listen(&socket, 1).map_err(failed)?;
        Ok(socket)
    }

    pub(crate) fn has_gate(&self) -> bool {
        fs::symlink_metadata(self.dir.join(GATE)).is_ok()
    }

    /// Lets the init go on; the program was executed when this returns.
    pub(crate) fn open_gate(&self) -> Result<(), Error> {
        let failed = |error: rustix::io::Errno| Error::io("connect to", self.dir.join(GATE), error);
        let (_dir, address) = self.gate_address()?;
        let socket = seqpacket().map_err(failed)?;
        connect(&socket, &address).map_err(failed)?;
        let opened = runtime::container::open_gate(&socket);
        // Whatever came of it: nobody waits there any more.
        let _ = fs::remove_file(self.dir.join(GATE));
        opened.map_err(Error::Create)
    }

    fn gate_address(&self) -> Result<(OwnedFd, SocketAddrUnix), Error> {
        let failed = |error: rustix::io::Errno| Error::io("open", &self.dir, error);
        let dir = openat(CWD, &self.dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed)?;
        let path = format!("/proc/self/fd/{}/{GATE}", dir.as_fd().as_raw_fd());
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        Ok((dir, address))
    }
}

fn seqpacket() -> Result<OwnedFd, rustix::io::Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Whoever reads `path` sees the old content or the new one.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    fs::write(&temporary, content)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|error| Error::io("write", path, error))
}

impl Record {
    pub(crate) fn cgroup(&self) -> Result<Cgroup, Error> {
        Ok(Cgroup::find(&self.cgroup)?)
    }

    pub(crate) fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    pub(crate) fn status(&self, place: &Place) -> Result<Status, Error> {
        if !self.is_alive() {
            return Ok(Status::Stopped);
        }
        if place.has_gate() {
            return Ok(Status::Created);
        }
        Ok(if self.cgroup()?.is_frozen() { Status::Paused } else { Status::Running })
    }

    pub(crate) fn run_hooks(
        &self,
        name: &str,
        pick: impl Fn(&Hooks) -> &[runtime::hooks::Hook],
        status: &str,
    ) -> Result<(), Failure> {
        let pid = if status == "stopped" { 0 } else { self.pid };
        self.hooks.as_ref().map_or(Ok(()), |hooks| hooks.run(name, pick(hooks), status, pid))
    }
}

/// Of a process that lives; `None` when there is none, or only its remains.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X" | "x")).then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_the_22nd_field_and_ids_are_names() {
        let own = start_time(std::process::id() as i32).unwrap();
        assert!(own > 0 && start_time(i32::MAX).is_none());
        let global = Global::parse(&["--root".to_owned(), "/r".to_owned()]).unwrap().0;
        for bad in ["", "..", "a/b", "a b", "\u{e4}"] {
            assert!(Place::of(&global, bad).is_err(), "{bad}");
        }
        assert!(Place::of(&global, "A_b+c-1.2").is_ok());
    }
}
