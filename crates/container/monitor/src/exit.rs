//! The exit record of a container, and the teardown of what a container leaves behind.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::Duration,
};

use kernel::cgroup::Cgroup;
use serde::{Deserialize, Serialize};

use crate::{Error, protocol::SOCKET_NAME};

const FILE_NAME: &str = "exit.json";

/// How a container (or an exec) ended. `code` is what a shell would show: 128 + signal for a killed process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    pub code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    pub finished_at: jiff::Timestamp,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { what, path: path.to_path_buf(), source }
}

/// The exit of the container in `dir`, `None` while it runs (or was never made).
pub fn exit_status(dir: &Path) -> Result<Option<ExitStatus>, Error> {
    let path = dir.join(FILE_NAME);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed("parse", &path)(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", &path)(error)),
    }
}

/// Durable and complete, or not there: written aside, synced, renamed.
pub(crate) fn record(dir: &Path, status: &ExitStatus) -> io::Result<()> {
    let aside = dir.join("exit.json.new");
    let mut file = File::create(&aside)?;
    file.write_all(&serde_json::to_vec(status)?)?;
    file.sync_all()?;
    fs::rename(&aside, dir.join(FILE_NAME))?;
    File::open(dir)?.sync_all()
}

/// Before a container is made (again) in `dir`: what an earlier run left.
pub(crate) fn forget(dir: &Path) -> io::Result<()> {
    remove_if_there(&dir.join(FILE_NAME))?;
    remove_if_there(&dir.join(SOCKET_NAME))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Kill what is left in the cgroup, remove it, and remove the monitor's files. Goes on after a failure and collects every error. Idempotent.
pub fn delete(dir: &Path, cgroup: &str) -> Result<(), Vec<Error>> {
    let mut errors = Vec::new();
    let of_cgroup = |error: kernel::cgroup::Error| Error::Io {
        what: "remove cgroup",
        path: error.path.clone(),
        source: io::Error::other(error.to_string()),
    };
    match Cgroup::find(cgroup) {
        Ok(cgroup) => {
            if let Err(error) = cgroup.signal_all(9, Duration::from_secs(10)) {
                errors.push(of_cgroup(error));
            }
            errors.extend(cgroup.remove().into_iter().map(of_cgroup));
        }
        Err(error) => errors.push(of_cgroup(error)),
    }
    for name in [SOCKET_NAME, FILE_NAME, "exit.json.new"] {
        let path = dir.join(name);
        if let Err(error) = remove_if_there(&path) {
            errors.push(failed("remove", &path)(error));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}
