//! The store's handle, and reading blobs.
//!
//! Blobs lie in `<root>/content/blobs/sha256/<hex>`. They are read by descriptor, so that a blob that is collected while
//! it is being read stays readable to its end.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use oci::{Descriptor, Digest, ImageId};

use crate::durable::{DirSync, make_dir};
use crate::error::{At, Error, Result};
use crate::gc::Touches;
use crate::images::{Images, NewImage};
use crate::ingest::{self, Ingest};
use crate::records::{self, Records};

/// The content store. A handle: clones share everything.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) blobs: PathBuf,
    pub(crate) blobs_sync: DirSync,
    pub(crate) ingests: PathBuf,
    quarantine: PathBuf,
    pub(crate) ingest_counter: AtomicU64,
    pub(crate) busy: ingest::Busy,
    /// Blobs that this process has hashed as it wrote them.
    pub(crate) hashed: Mutex<HashSet<Digest>>,
    pub(crate) touches: Touches,
    pub(crate) records: records::Shelf,
    pub(crate) images: Images,
}

/// An open blob.
#[derive(Debug)]
pub struct Blob {
    pub file: File,
    pub size: u64,
}

impl Store {
    /// Opens (or makes) the store in `<root>/content` and sweeps what a crash left half-written.
    pub fn open(root: &Path) -> Result<Self> {
        let base = root.join("content");
        let (blobs, ingests) = (base.join("blobs/sha256"), base.join("ingest"));
        for dir in [&base, &blobs, &ingests] {
            make_dir(dir)?;
        }
        ingest::sweep(&ingests)?;
        let shared = Shared {
            images: Images::open(&base.join("images"), &blobs)?,
            blobs_sync: DirSync::open(&blobs)?,
            blobs,
            ingests,
            quarantine: base.join("quarantine"),
            ingest_counter: AtomicU64::new(0),
            busy: ingest::Busy::default(),
            hashed: Mutex::default(),
            touches: Touches::default(),
            records: records::Shelf::open(&base.join("records"))?,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.shared.blobs.join(digest.hex())
    }

    /// Opens a blob.
    pub fn get(&self, digest: &Digest) -> Result<Blob> {
        self.touch(digest);
        let path = self.blob_path(digest);
        let file = File::open(&path).map_err(|error| not_found(error, *digest, &path))?;
        let size = file.metadata().at("read", &path)?.len();
        Ok(Blob { file, size })
    }

    /// The size of a blob, or `None` where there is none.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.touch(digest);
        fs::metadata(self.blob_path(digest)).ok().map(|m| m.len())
    }

    pub fn contains(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    /// Whether this very process has written the blob, and so hashed it: its bytes need no second look.
    pub fn was_hashed_here(&self, digest: &Digest) -> bool {
        self.shared.hashed.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    /// Bytes that all blobs take on the disk, with what is being written and what is in quarantine.
    pub fn disk_bytes(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        let quarantine = self.shared.quarantine.clone();
        let mut bytes = 0;
        for dir in [&self.shared.blobs, &self.shared.ingests, &quarantine] {
            let entries = match fs::read_dir(dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).at("list", dir),
            };
            // A file that goes away meanwhile takes nothing.
            bytes += entries.filter_map(|e| e.ok()?.metadata().ok()).map(|m| m.blocks() * 512).sum::<u64>();
        }
        Ok(bytes)
    }

    /// Reads a small blob whole; one that is larger than `limit` is an error.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let blob = self.get(digest)?;
        if blob.size > limit {
            return Err(Error::SizeMismatch { expected: limit, actual: blob.size });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0));
        blob.file.take(limit).read_to_end(&mut bytes).at("read", &self.blob_path(digest))?;
        Ok(bytes)
    }

    /// Stores a small blob whole.
    pub fn put_bytes(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let descriptor = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
        if self.size(&descriptor.digest) == Some(descriptor.size) {
            return Ok(descriptor);
        }
        let mut ingest = self.ingest(Some(descriptor))?;
        ingest.append(bytes)?;
        ingest.commit(media_type)
    }

    /// Starts writing a blob. With `expected`, size and digest are checked, and no byte beyond the size is accepted.
    pub fn ingest(&self, expected: Option<Descriptor>) -> Result<Ingest> {
        Ingest::begin(self, expected)
    }

    /// Goes on with an interrupted ingest of this very content, or starts one; see [`Ingest::offset`].
    pub fn resume(&self, expected: &Descriptor) -> Result<Ingest> {
        Ingest::resume(self, expected)
    }

    pub fn images(&self) -> &Images {
        &self.shared.images
    }

    /// Records an image; see [`NewImage`].
    pub fn create_image(&self, new: NewImage) -> Result<ImageId> {
        self.images().create(self, new)
    }

    /// Small durable records of one kind (`build-cache`, `registry-tags`); see [`Records`].
    pub fn records(&self, namespace: &str) -> Result<Records> {
        self.shared.records.namespace(self, namespace)
    }
}

fn not_found(error: std::io::Error, digest: Digest, path: &Path) -> Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        Error::NoBlob(digest)
    } else {
        Error::Io { what: "open", path: path.to_owned(), source: error }
    }
}
