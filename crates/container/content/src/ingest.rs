//! Writing blobs: to a temporary file, hashed on the way, verified, synced, then renamed to where readers look.
//!
//! A [`Store::resume`]d ingest keeps its file when it is dropped, so that an interrupted pull goes on where it stopped;
//! every other ingest removes its file. What a crash left is swept when the store opens.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use oci::{Descriptor, Digest, DigestHasher};

use crate::Store;
use crate::durable::create_new;
use crate::error::{At, Error, Result};

const PARTIAL_PREFIX: &str = "part-";
/// Partial content that nobody asked for again in this time is swept at the next start.
const PARTIAL_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Digests with a resumable ingest open; one writer at a time each.
#[derive(Default)]
pub(crate) struct Busy(Mutex<HashSet<Digest>>);

/// A blob being written. Dropped without commit, nothing of it becomes visible.
pub struct Ingest {
    store: Store,
    file: File,
    path: PathBuf,
    hasher: DigestHasher,
    offset: u64,
    expected: Option<Descriptor>,
    resumable: bool,
    committed: bool,
}

impl Ingest {
    pub(crate) fn begin(store: &Store, expected: Option<Descriptor>) -> Result<Self> {
        let number = store.shared.ingest_counter.fetch_add(1, Ordering::Relaxed);
        let path = store.shared.ingests.join(format!("new-{number}"));
        let file = create_new(&path)?;
        Ok(Self {
            store: store.clone(),
            file,
            path,
            hasher: DigestHasher::default(),
            offset: 0,
            expected,
            resumable: false,
            committed: false,
        })
    }

    pub(crate) fn resume(store: &Store, expected: &Descriptor) -> Result<Self> {
        let digest = expected.digest;
        if !store.shared.busy.0.lock().unwrap_or_else(PoisonError::into_inner).insert(digest) {
            return Err(Error::Busy(digest));
        }
        let path = store.shared.ingests.join(format!("{PARTIAL_PREFIX}{}", digest.hex()));
        Self::reopen(store, &path, expected).inspect_err(|_| store.shared.busy.release(&digest))
    }

    fn reopen(store: &Store, path: &Path, expected: &Descriptor) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).at("open", path)?;
        let mut ingest = Self {
            store: store.clone(),
            file,
            path: path.to_owned(),
            hasher: DigestHasher::default(),
            offset: 0,
            expected: Some(expected.clone()),
            resumable: true,
            committed: false,
        };
        if let Err(error) = ingest.rehash() {
            // The caller releases the key on error; the drop must not do so as well.
            ingest.resumable = false;
            return Err(error);
        }
        Ok(ingest)
    }

    /// Hashes what an earlier attempt left. Content that is too long already cannot be right.
    fn rehash(&mut self) -> Result<()> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = self.file.read(&mut buffer).at("read", &self.path)?;
            if n == 0 {
                break;
            }
            self.hasher.update(&buffer[..n]);
            self.offset += n as u64;
        }
        if self.expected.as_ref().is_some_and(|e| self.offset > e.size) {
            self.restart()?;
        }
        Ok(())
    }

    /// Forgets everything written so far (the peer cannot resume).
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).at("truncate", &self.path)?;
        self.file.seek(SeekFrom::Start(0)).at("seek", &self.path)?;
        self.hasher = DigestHasher::default();
        self.offset = 0;
        Ok(())
    }

    /// Bytes written so far; after a resume, where the peer should go on from.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends. More than the expected size is refused at once, so that a peer cannot fill the disk.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let after = self.offset + bytes.len() as u64;
        if let Some(expected) = &self.expected
            && after > expected.size
        {
            return Err(Error::SizeMismatch { expected: expected.size, actual: after });
        }
        self.file.write_all(bytes).at("write", &self.path)?;
        self.hasher.update(bytes);
        self.offset = after;
        Ok(())
    }

    /// Verifies and makes the blob visible and durable.
    pub fn commit(mut self, media_type: &str) -> Result<Descriptor> {
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = self.expected.take()
            && let Err(error) = verify(&expected, self.offset, digest)
        {
            // Bad bytes must not be resumed from.
            let _ = self.file.set_len(0);
            return Err(error);
        }
        self.store.touch(&digest);
        self.file.sync_data().at("sync", &self.path)?;
        let target = self.store.blob_path(&digest);
        fs::rename(&self.path, &target).at("commit", &target)?;
        self.committed = true;
        self.store.shared.blobs_sync.wait()?;
        self.store.shared.hashed.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
        Ok(Descriptor::new(media_type, digest, self.offset))
    }

    /// The digest of what has been written so far.
    pub fn digest_so_far(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Demands this digest at commit (a registry's client names it last).
    pub fn expect_digest(&mut self, digest: Digest) {
        self.expected = Some(Descriptor::new("", digest, self.offset));
    }
}

fn verify(expected: &Descriptor, size: u64, digest: Digest) -> Result<()> {
    if expected.size != size {
        return Err(Error::SizeMismatch { expected: expected.size, actual: size });
    }
    if expected.digest != digest {
        return Err(Error::DigestMismatch { expected: expected.digest, actual: digest });
    }
    Ok(())
}

impl Busy {
    fn release(&self, digest: &Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if self.resumable {
            // The file's name is the key, for a resumable ingest.
            let name = self.path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if let Ok(digest) = Digest::from_hex(name.trim_start_matches(PARTIAL_PREFIX)) {
                self.store.shared.busy.release(&digest);
            }
        } else if !self.committed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes what a crash left, except partial pulls of the last days.
pub(crate) fn sweep(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        let partial = entry.file_name().to_str().is_some_and(|n| n.starts_with(PARTIAL_PREFIX));
        let age =
            entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| SystemTime::now().duration_since(t).ok());
        if !partial || age.is_some_and(|a| a > PARTIAL_KEPT) {
            fs::remove_file(entry.path()).at("remove", &entry.path())?;
        }
    }
    Ok(())
}
