//! The records on disk: one file a network, one file a namespace.
//!
//! Written by `manager` before the kernel is changed, removed after. Invariant: a record is whole or absent (written aside, then
//! renamed). No fsync: a record need only outlive the process, because namespaces do not outlive the machine.

use crate::{Endpoint, Error, Network, NetworkId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(crate) struct Journal {
    networks: PathBuf,
    namespaces: PathBuf,
}

impl Journal {
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let networks = root.join("networks");
        let namespaces = networks.join("namespaces");
        make_directory(&namespaces)?;
        Ok(Self { networks, namespaces })
    }

    pub(crate) fn networks(&self) -> Result<Vec<Network>, Error> {
        Ok(read_all(&self.networks)?.into_iter().map(|(_, network)| network).collect())
    }

    /// Namespace and its endpoints.
    pub(crate) fn namespaces(&self) -> Result<Vec<(String, Vec<Endpoint>)>, Error> {
        read_all(&self.namespaces)
    }

    pub(crate) fn save_network(&self, network: &Network) -> Result<(), Error> {
        write(&self.networks, network.id.as_str(), network)
    }

    pub(crate) fn forget_network(&self, id: &NetworkId) -> Result<(), Error> {
        remove(&self.networks.join(format!("{id}.json")))
    }

    pub(crate) fn save_namespace(&self, id: &str, endpoints: &[Endpoint]) -> Result<(), Error> {
        write(&self.namespaces, id, &endpoints)
    }

    pub(crate) fn forget_namespace(&self, id: &str) -> Result<(), Error> {
        remove(&self.namespaces.join(format!("{id}.json")))
    }
}

pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("create directory", path))
}

/// A record that cannot be read is set aside, not fatal: everything else must still be adopted.
fn read_all<T: DeserializeOwned>(directory: &Path) -> Result<Vec<(String, T)>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io("read directory", directory))? {
        let path = entry.map_err(Error::io("read directory", directory))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".json")) else {
            continue;
        };
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        match serde_json::from_slice(&bytes) {
            Ok(record) => found.push((name.to_owned(), record)),
            Err(source) => {
                tracing::warn!(path = %path.display(), error = %source, "a network record is damaged and set aside");
                let _ = fs::rename(&path, path.with_extension("damaged"));
            }
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

fn write<T: Serialize>(directory: &Path, name: &str, record: &T) -> Result<(), Error> {
    let path = directory.join(format!("{name}.json"));
    let aside = directory.join(format!(".{name}.new"));
    let bytes = serde_json::to_vec(record).map_err(|source| Error::Journal { path: path.clone(), source })?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .map_err(Error::io("create", &aside))?;
    file.write_all(&bytes).map_err(Error::io("write", &aside))?;
    fs::rename(&aside, &path).map_err(Error::io("rename to", &path))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
