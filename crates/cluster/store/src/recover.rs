//! Opening a store: lock, newest snapshot, then the logs behind it.
//!
//! Called by `Store::open` and `Store::restore`. Invariants: what was acknowledged is replayed or opening fails; a torn
//! tail (a frame that was never acknowledged, at the very end of the last log) is cut; revisions have no gap.

use crate::frame::{self, FILE_HEADER, FileHeader};
use crate::index::{Change, Index};
use crate::log::{self, Appender, FileKind, Location, LogFile};
use crate::seal::Sealer;
use crate::types::KeyValue;
use crate::{Result, StoreError};
use bytes::Bytes;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) files: Vec<Arc<LogFile>>,
    pub(crate) active: Appender,
    pub(crate) lock: File,
}

pub(crate) fn recover(dir: &Path, sealer: Option<&Arc<Sealer>>) -> Result<Recovered> {
    log::create_dir(dir)?;
    let lock = lock(dir)?;
    let (snapshots, mut logs) = list(dir)?;
    let mut files = Vec::new();
    let mut index = Index::default();
    if let Some(newest) = snapshots.last() {
        index = Index::starting_at(*newest);
        files.push(load_snapshot(dir, *newest, sealer, &mut index)?);
        remove_older(dir, &snapshots, &mut logs, *newest);
    }
    let mut active = None;
    for (position, base) in logs.iter().enumerate() {
        let last = position + 1 == logs.len();
        let appender = load_log(dir, *base, last, sealer, &mut index)?;
        if last {
            active = Some(appender);
        } else {
            files.push(appender.log);
        }
    }
    let active = match active {
        Some(active) => active,
        None => Appender::create(dir, index.revision() + 1)?,
    };
    Ok(Recovered { index, files, active, lock })
}

/// Puts a snapshot file into a fresh directory under the name that `recover` looks for.
pub(crate) fn restore(snapshot: &Path, into: &Path, bump: u64) -> Result<u64> {
    log::create_dir(into)?;
    let _lock = lock(into)?;
    let (snapshots, logs) = list(into)?;
    if !snapshots.is_empty() || !logs.is_empty() {
        let source = std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty);
        return Err(StoreError::Io { path: into.into(), action: "restore into", source });
    }
    let bytes = std::fs::read(snapshot).map_err(log::io_error(snapshot, "read"))?;
    let header = FileHeader::parse(&bytes).ok_or_else(|| corrupt(snapshot, 0, "this is no snapshot"))?;
    // Read it as an opening would, so that a damaged backup is found now and not at the next start.
    let bytes = Bytes::from(bytes);
    let end = replay(snapshot, &bytes, header, &mut |_, _| Ok(()))?;
    if end != bytes.len() {
        return Err(corrupt(snapshot, end, "the snapshot's checksum does not match"));
    }
    // Frames are sealed by the file's nonce and their place, so a header with another revision fits them as well.
    let header = FileHeader { base: header.base + bump, ..header };
    let path = FileKind::Snapshot.path(into, header.base);
    let temporary = path.with_extension("tmp");
    let file = log::create_file(&temporary)?;
    let write = |bytes: &[u8], at: usize| {
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, at as u64).map_err(log::io_error(&temporary, "write"))
    };
    write(&header.encode(), 0)?;
    write(&bytes[FILE_HEADER..], FILE_HEADER)?;
    file.sync_all().map_err(log::io_error(&temporary, "sync"))?;
    std::fs::rename(&temporary, &path).map_err(log::io_error(&path, "rename the snapshot to"))?;
    log::sync_dir(into)?;
    Ok(header.base)
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("LOCK");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(log::io_error(&path, "open"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: dir.into() }),
        Err(TryLockError::Error(source)) => Err(StoreError::Io { path, action: "lock", source }),
    }
}

/// The bases of the snapshots and of the logs, in order. Leftovers of interrupted work are removed.
fn list(dir: &Path) -> Result<(Vec<u64>, Vec<u64>)> {
    let (mut snapshots, mut logs) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(dir).map_err(log::io_error(dir, "list"))? {
        let entry = entry.map_err(log::io_error(dir, "list"))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        match FileKind::parse(&name) {
            Some((FileKind::Snapshot, base)) => snapshots.push(base),
            Some((FileKind::Log, base)) => logs.push(base),
            None if name.ends_with(".tmp") => {
                std::fs::remove_file(entry.path()).map_err(log::io_error(&entry.path(), "remove"))?;
            }
            None => {}
        }
    }
    snapshots.sort_unstable();
    logs.sort_unstable();
    Ok((snapshots, logs))
}

/// Finishes a compaction that was cut short between its snapshot and its clean-up.
fn remove_older(dir: &Path, snapshots: &[u64], logs: &mut Vec<u64>, newest: u64) {
    let old = snapshots.iter().filter(|base| **base < newest).map(|base| FileKind::Snapshot.path(dir, *base));
    let covered: Vec<u64> = logs.windows(2).filter(|pair| pair[1] <= newest + 1).map(|pair| pair[0]).collect();
    for path in old.chain(covered.iter().map(|base| FileKind::Log.path(dir, *base))) {
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove a compacted file");
        }
    }
    logs.retain(|base| !covered.contains(base));
}

fn load_snapshot(dir: &Path, base: u64, sealer: Option<&Arc<Sealer>>, index: &mut Index) -> Result<Arc<LogFile>> {
    let path = FileKind::Snapshot.path(dir, base);
    let (file, bytes) = read(&path)?;
    let header = FileHeader::parse(&bytes).filter(|h| h.base == base);
    let header = header.ok_or_else(|| corrupt(&path, 0, "the file's header is damaged"))?;
    let log = Arc::new(LogFile { kind: FileKind::Snapshot, base, path: path.clone(), file });
    let end = replay(&path, &bytes, header, &mut |record, value_offset| {
        index.apply(change(record, &log, value_offset, sealer)?);
        Ok(())
    })?;
    if end != bytes.len() {
        return Err(corrupt(&path, end, "the snapshot's checksum does not match"));
    }
    Ok(log)
}

fn load_log(
    dir: &Path,
    base: u64,
    last: bool,
    sealer: Option<&Arc<Sealer>>,
    index: &mut Index,
) -> Result<Appender> {
    let path = FileKind::Log.path(dir, base);
    let (file, bytes) = read(&path)?;
    let Some(header) = FileHeader::parse(&bytes).filter(|h| h.base == base) else {
        // A crash right after the file was made: its header never reached the disk, so nothing else did.
        if last && bytes.len() <= FILE_HEADER && base == index.revision() + 1 {
            return Appender::create(dir, base);
        }
        return Err(corrupt(&path, 0, "the file's header is damaged"));
    };
    let log = Arc::new(LogFile { kind: FileKind::Log, base, path: path.clone(), file });
    let end = replay(&path, &bytes, header, &mut |record, value_offset| {
        if record.mod_revision <= index.compacted() {
            return Ok(());
        }
        if record.mod_revision > index.revision() + 1 || record.mod_revision < index.revision() {
            return Err("a revision is missing before this frame");
        }
        index.apply(change(record, &log, value_offset, sealer)?);
        Ok(())
    })?;
    if end < bytes.len() {
        if !last || frame::valid_frame_after(&bytes, header.nonce, end) {
            return Err(corrupt(&path, end, "the frame's checksum does not match"));
        }
        tracing::warn!(path = %path.display(), offset = end, cut_bytes = bytes.len() - end,
            "cut an unfinished write from the end of the store's log");
        log.file.set_len(end as u64).map_err(log::io_error(&path, "cut"))?;
        log.file.sync_all().map_err(log::io_error(&path, "sync"))?;
    }
    Ok(Appender { log, nonce: header.nonce, offset: end as u64 })
}

type Sink<'a> = &'a mut dyn FnMut(frame::Record, u64) -> Result<(), &'static str>;

/// Gives every record of every valid frame to `sink`; says where the first invalid byte stands.
fn replay(path: &Path, bytes: &Bytes, header: FileHeader, sink: Sink<'_>) -> Result<usize> {
    let mut at = FILE_HEADER;
    while let Some(payload) = frame::payload_at(bytes, header.nonce, at) {
        let start = at + frame::FRAME_HEADER;
        let records = frame::records(&payload).ok_or_else(|| corrupt(path, at, "the frame makes no sense"))?;
        for record in records {
            let value_at = start as u64 + record.put.as_ref().map_or(0, |put| put.value_offset);
            sink(record, value_at).map_err(|reason| corrupt(path, at, reason))?;
        }
        at = start + payload.len();
    }
    Ok(at)
}

fn change(
    record: frame::Record,
    file: &Arc<LogFile>,
    offset: u64,
    sealer: Option<&Arc<Sealer>>,
) -> Result<Change, &'static str> {
    // Copied out: a slice would keep the whole file's bytes in memory.
    let key = Bytes::copy_from_slice(&record.key);
    let mod_revision = record.mod_revision;
    let Some(put) = record.put else {
        return Ok(Change { key, mod_revision, put: None });
    };
    let len = put.value.len() as u32;
    let (value, sealer) = if put.sealed {
        let sealer = sealer.ok_or("a value is encrypted, and the store was opened without keys")?;
        let value = sealer.open_value(&key, &put.value);
        (Bytes::from(value.ok_or("an encrypted value does not open with any of the keys")?), Some(sealer.clone()))
    } else {
        (Bytes::copy_from_slice(&put.value), None)
    };
    let location = Location { file: file.clone(), offset, len, sealer };
    let value = KeyValue { key: key.clone(), value, create_revision: put.create_revision, mod_revision };
    Ok(Change { key, mod_revision, put: Some((value, location)) })
}

fn read(path: &PathBuf) -> Result<(File, Bytes)> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(log::io_error(path, "open"))?;
    let bytes = std::fs::read(path).map_err(log::io_error(path, "read"))?;
    Ok((file, bytes.into()))
}

fn corrupt(path: &Path, offset: usize, reason: &'static str) -> StoreError {
    StoreError::Corrupt { path: path.into(), offset: offset as u64, reason }
}
