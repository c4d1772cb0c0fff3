//! Checking a content store: every blob against the digest in its name, every promise against what is there.
//!
//! `gantry fsck` calls it, also beside a running instance: it opens no store, blobs never change once they are visible,
//! and a damaged one is moved away by one rename. What is moved away is fetched again by the next pull. Unpacked layers
//! are not checked: nothing says what their bytes were.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use oci::{Digest, DigestHasher};
use serde_json::Value;

use crate::durable::{DirSync, make_dir};
use crate::error::{At, Result};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub blobs: u64,
    pub bytes: u64,
    /// Blobs whose bytes are not what their name says, and where they are now (`None`: left where they were).
    pub damaged: Vec<(Digest, Option<PathBuf>)>,
    /// Digests that a record promises and that are not there (any more), with the record.
    pub missing: Vec<(Digest, String)>,
}

impl Checked {
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.missing.is_empty()
    }
}

/// Checks the store below `root`. With `repair`, damaged blobs go to `content/quarantine`.
pub fn fsck(root: &Path, repair: bool) -> Result<Checked> {
    let base = root.join("content");
    let dir = base.join("blobs/sha256");
    let mut names: Vec<Digest> = Vec::new();
    for entry in fs::read_dir(&dir).at("list", &dir)? {
        let entry = entry.at("list", &dir)?;
        names.extend(entry.file_name().to_str().and_then(|n| Digest::from_hex(n).ok()));
    }
    names.sort();
    let mut checked = hash_all(&dir, &names)?;
    if repair && !checked.damaged.is_empty() {
        quarantine(&base, &dir, &mut checked.damaged)?;
    }
    for (digest, record) in promises(&base)? {
        if !dir.join(digest.hex()).exists() {
            checked.missing.push((digest, record));
        }
    }
    Ok(checked)
}

fn hash_all(dir: &Path, names: &[Digest]) -> Result<Checked> {
    let queue = Mutex::new(names.iter());
    let work = || -> Result<Checked> {
        let mut done = Checked::default();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next().copied();
            let Some(digest) = next else { return Ok(done) };
            // Collected since it was listed: no damage.
            let Some((size, actual)) = hash(&dir.join(digest.hex()), &mut buffer)? else { continue };
            done.blobs += 1;
            done.bytes += size;
            if actual != Some(digest) {
                done.damaged.push((digest, None));
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(2, usize::from).min(names.len().max(1));
    let results: Vec<Result<Checked>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        handles.into_iter().map(|h| h.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut all = Checked::default();
    for result in results {
        let part = result?;
        all.blobs += part.blobs;
        all.bytes += part.bytes;
        all.damaged.extend(part.damaged);
    }
    all.damaged.sort();
    Ok(all)
}

/// Size and digest; no digest where the disk gives the bytes no more, nothing where there is no file.
fn hash(path: &Path, buffer: &mut [u8]) -> Result<Option<(u64, Option<Digest>)>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("open", path),
    };
    let (mut hasher, mut size) = (DigestHasher::default(), 0);
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(Some((size, Some(hasher.finish())))),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "blob cannot be read");
                return Ok(Some((size, None)));
            }
        }
    }
}

fn quarantine(base: &Path, dir: &Path, damaged: &mut [(Digest, Option<PathBuf>)]) -> Result<()> {
    let away = base.join("quarantine");
    make_dir(&away)?;
    for (digest, place) in damaged {
        let target = away.join(digest.hex());
        fs::rename(dir.join(digest.hex()), &target).at("quarantine", &target)?;
        *place = Some(target);
    }
    DirSync::open(&away)?.wait()?;
    DirSync::open(dir)?.wait()
}

/// Blobs that images and the registry need, each with the record that says so.
fn promises(base: &Path) -> Result<BTreeMap<Digest, String>> {
    let mut promised = BTreeMap::new();
    let mut add = |value: &Value, record: &str| {
        if let Some(digest) = value.as_str().and_then(|text| text.parse::<Digest>().ok()) {
            promised.entry(digest).or_insert_with(|| record.to_owned());
        }
    };
    for (name, record) in records(&base.join("images"))? {
        let label = format!("image {}", name.get(..12).unwrap_or(&name));
        add(&record["id"], &label);
        for layer in record["layers"].as_array().into_iter().flatten() {
            add(&layer["digest"], &label);
        }
    }
    for (_, record) in records(&base.join("records/registry"))? {
        let key = record["key"].as_str().unwrap_or_default();
        // Layers of a manifest have links of their own; a foreign one is nowhere.
        let own = key.rsplit('\n').next().unwrap_or_default();
        let label = format!("registry {}", key.split('\n').take(2).collect::<Vec<_>>().join(" "));
        if key.starts_with("blob\n") || key.starts_with("manifest\n") {
            add(&Value::from(own), &label);
        }
    }
    Ok(promised)
}

/// The JSON records of a folder, by file name; one that cannot be read is the opening's to complain about.
fn records(dir: &Path) -> Result<Vec<(String, Value)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).at("list", dir),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.at("list", dir)?.path();
        let value = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let name = path.file_stem().and_then(|n| n.to_str()).map(str::to_owned);
        found.extend(name.zip(value));
    }
    Ok(found)
}
