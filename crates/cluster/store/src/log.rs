//! Files of the store's directory: names, creation, durable appends, reads at an offset.
//!
//! Used by `writer` (append), `compaction` (snapshots), `recover` (replay) and `index` (old values).
//! Invariant: a file that is named without `.tmp` has a durable directory entry before anything in it is acknowledged.

use crate::frame::{FILE_HEADER, FileHeader, FrameBuilder};
use crate::seal::Sealer;
use crate::{Result, StoreError};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileKind {
    Snapshot,
    Log,
}

impl FileKind {
    fn prefix(self) -> &'static str {
        match self {
            FileKind::Snapshot => "snapshot-",
            FileKind::Log => "log-",
        }
    }

    pub(crate) fn path(self, dir: &Path, base: u64) -> PathBuf {
        dir.join(format!("{}{base:020}", self.prefix()))
    }

    /// What a file's name says, if it is one of ours.
    pub(crate) fn parse(name: &str) -> Option<(FileKind, u64)> {
        [FileKind::Snapshot, FileKind::Log].into_iter().find_map(|kind| {
            let base = name.strip_prefix(kind.prefix())?;
            (base.len() == 20).then(|| base.parse().ok())?.map(|base| (kind, base))
        })
    }
}

/// A file that is only read from now on (or, for the active log, read behind the writer).
#[derive(Debug)]
pub(crate) struct LogFile {
    pub(crate) kind: FileKind,
    pub(crate) base: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

/// Where a value stands. Keeps its file open, so that compaction may unlink it under a reader.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    pub(crate) file: std::sync::Arc<LogFile>,
    pub(crate) offset: u64,
    pub(crate) len: u32,
    /// The value is encrypted on disk, by one of these keys.
    pub(crate) sealer: Option<std::sync::Arc<Sealer>>,
}

impl Location {
    /// The value, which is `key`'s.
    pub(crate) fn read(&self, key: &[u8]) -> Result<bytes::Bytes> {
        let mut value = vec![0; self.len as usize];
        let read = self.file.file.read_exact_at(&mut value, self.offset);
        read.map_err(io_error(&self.file.path, "read an old value"))?;
        match &self.sealer {
            None => Ok(value.into()),
            Some(sealer) => sealer.open_value(key, &value).map(Into::into).ok_or_else(|| StoreError::Corrupt {
                path: self.file.path.clone(),
                offset: self.offset,
                reason: "an encrypted value does not open with any of the keys",
            }),
        }
    }
}

/// The file that is being written.
pub(crate) struct Appender {
    pub(crate) log: std::sync::Arc<LogFile>,
    pub(crate) nonce: u64,
    pub(crate) offset: u64,
}

impl Appender {
    /// Makes an empty log file whose first revision will be `base`.
    pub(crate) fn create(dir: &Path, base: u64) -> Result<Self> {
        let path = FileKind::Log.path(dir, base);
        let header = FileHeader::fresh(base);
        let file = create_file(&path)?;
        file.write_all_at(&header.encode(), 0).map_err(io_error(&path, "write"))?;
        file.sync_all().map_err(io_error(&path, "sync"))?;
        sync_dir(dir)?;
        let log = LogFile { kind: FileKind::Log, base, path, file };
        Ok(Appender { log: log.into(), nonce: header.nonce, offset: FILE_HEADER as u64 })
    }

    /// Appends the frame and waits for the disk. On an error the file ends where it did before, or `Err(true)` says
    /// that this could not be made sure of and nothing may be appended any more.
    pub(crate) fn append(&mut self, frame: &mut FrameBuilder) -> Result<(), (StoreError, bool)> {
        let bytes = frame.finish(self.nonce, self.offset);
        let path = &self.log.path;
        if let Err(source) = self.log.file.write_all_at(bytes, self.offset) {
            let undone = self.log.file.set_len(self.offset).is_ok();
            return Err((io_error(path, "append")(source), !undone));
        }
        // After a failed sync the kernel may have dropped the dirty pages: what is on disk is unknown, so never retry.
        self.log.file.sync_data().map_err(|source| (io_error(path, "sync")(source), true))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

pub(crate) fn create_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(io_error(path, "create"))
}

pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(io_error(dir, "create the directory"))
}

pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(io_error(dir, "sync the directory"))
}

pub(crate) fn directory_size(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries.flatten().filter_map(|e| e.metadata().ok()).filter(|m| m.is_file()).map(|m| m.len()).sum()
}

pub(crate) fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io { path, action, source }
}
