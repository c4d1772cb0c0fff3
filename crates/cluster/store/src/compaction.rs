//! Compaction and snapshots: everything as of one revision, written to one file while the store serves.
//!
//! Called by `Store::compact` and `Store::snapshot`, and by the writer when it begins a new log file.
//! Invariant: log files go only after a snapshot that covers them is durable under its final name; a crash at any
//! point leaves either the old files or the snapshot whole.

use crate::frame::{FILE_HEADER, FileHeader, FrameBuilder};
use crate::index::Found;
use crate::log::{self, FileKind, Location, LogFile};
use crate::{Result, Shared, StoreError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

/// Keys that are handled while one lock is held.
const CHUNK: usize = 256;

/// Compacts in a thread of its own once more than twice the history to keep has piled up.
pub(crate) fn start_if_due(shared: &Arc<Shared>) {
    let keep = shared.options.retain_revisions;
    let (revision, compacted) = {
        let index = shared.index();
        (index.revision(), index.compacted())
    };
    let Some(target) = revision.checked_sub(keep).filter(|target| *target > compacted + keep) else {
        return;
    };
    let shared = shared.clone();
    let work = move || {
        if let Err(error) = compact(&shared, target) {
            tracing::warn!(%error, "the store could not be compacted; it will be tried again");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("store-compact".into()).spawn(work) {
        tracing::warn!(%error, "cannot start compaction");
    }
}

/// Drops what `revision` hides. Compacting to an older revision than the last time does nothing.
pub(crate) fn compact(shared: &Shared, revision: u64) -> Result<()> {
    let _one = shared.compacting.lock().unwrap_or_else(PoisonError::into_inner);
    {
        let mut index = shared.index_mut();
        let revision = revision.min(index.revision());
        if revision <= index.compacted() {
            return Ok(());
        }
        index.forget_before(revision);
    }
    let revision = shared.index().compacted();
    let path = FileKind::Snapshot.path(&shared.dir, revision);
    let (file, offsets) = write_picture(shared, revision, &path)?;
    let snapshot = Arc::new(LogFile { kind: FileKind::Snapshot, base: revision, path, file });
    prune(shared, &snapshot, offsets);
    remove_covered(shared, snapshot);
    Ok(())
}

/// A picture of now, for a backup.
pub(crate) fn snapshot(shared: &Shared, to: &Path) -> Result<u64> {
    // Compaction must not drop the values that the picture is still to read.
    let _one = shared.compacting.lock().unwrap_or_else(PoisonError::into_inner);
    let revision = shared.index().revision();
    write_picture(shared, revision, to)?;
    Ok(revision)
}

type Offsets = Vec<(Bytes, u64, u32)>;

/// Writes `path` by way of a temporary file. Says where each key's value stands.
fn write_picture(shared: &Shared, revision: u64, path: &Path) -> Result<(File, Offsets)> {
    let temporary = path.with_extension("tmp");
    let written = fill_picture(shared, revision, &temporary).and_then(|done| {
        std::fs::rename(&temporary, path).map_err(log::io_error(path, "rename the snapshot to"))?;
        log::sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        Ok(done)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn fill_picture(shared: &Shared, revision: u64, path: &Path) -> Result<(File, Offsets)> {
    let file = log::create_file(path)?;
    let header = FileHeader::fresh(revision);
    file.write_all_at(&header.encode(), 0).map_err(log::io_error(path, "write"))?;
    let mut end = FILE_HEADER as u64;
    let mut offsets = Vec::new();
    let mut frame = FrameBuilder::new();
    let mut after = None;
    loop {
        let (found, last) = shared.index().chunk_at(after.as_ref(), CHUNK, revision);
        for kv in found.into_iter().map(Found::load) {
            let kv = kv?;
            let sealer = shared.options.sealer.as_ref().filter(|sealer| sealer.covers(&kv.key));
            let (at, len) = match sealer {
                Some(sealer) => {
                    let sealed = sealer.seal(&kv.key, &kv.value).ok_or(StoreError::Seal)?;
                    (frame.put_sealed(&kv.key, kv.create_revision, kv.mod_revision, &sealed), sealed.len())
                }
                None => (frame.put(&kv.key, kv.create_revision, kv.mod_revision, &kv.value), kv.value.len()),
            };
            offsets.push((kv.key, end + at, len as u32));
        }
        if !frame.is_empty() {
            let bytes = frame.finish(header.nonce, end);
            file.write_all_at(bytes, end).map_err(log::io_error(path, "write"))?;
            end += bytes.len() as u64;
            frame.clear();
        }
        match last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    file.sync_all().map_err(log::io_error(path, "sync"))?;
    Ok((file, offsets))
}

fn prune(shared: &Shared, snapshot: &Arc<LogFile>, offsets: Offsets) {
    let locate = |(key, offset, len): (Bytes, u64, u32)| {
        let sealer = shared.options.sealer.as_ref().filter(|sealer| sealer.covers(&key)).cloned();
        (key, Location { file: snapshot.clone(), offset, len, sealer })
    };
    let moved: BTreeMap<Bytes, Location> = offsets.into_iter().map(locate).collect();
    let mut after = None;
    loop {
        let last = shared.index_mut().prune(after.as_ref(), CHUNK, &moved);
        match last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    shared.index_mut().prune_changes();
}

/// Unlinks the older snapshots and the log files whose every revision the snapshot covers.
fn remove_covered(shared: &Shared, snapshot: Arc<LogFile>) {
    let mut files = shared.files();
    let logs: Vec<u64> = files.iter().filter(|f| f.kind == FileKind::Log).map(|f| f.base).collect();
    files.retain(|file| {
        // A closed log ends where the next begins; of the last closed one that is not known here, so it stays.
        let covered = match file.kind {
            FileKind::Snapshot => true,
            FileKind::Log => logs.iter().any(|next| *next > file.base && *next <= snapshot.base + 1),
        };
        if covered && let Err(error) = std::fs::remove_file(&file.path) {
            tracing::warn!(path = %file.path.display(), %error, "cannot remove a compacted file");
        }
        !covered
    });
    files.insert(0, snapshot);
}
