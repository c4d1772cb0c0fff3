//! The file behind a log, and its rotation: `x`, `x.1`, `x.2`, … with the newest first.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::LogPolicy;

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    max_size: Option<u64>,
    max_files: u32,
    buffer: Vec<u8>,
}

/// Enough for what one read brings; a larger burst is written in several goes.
const FLUSH_AT: usize = 256 << 10;

impl LogFile {
    pub(super) fn open(policy: &LogPolicy) -> io::Result<Self> {
        let file = open(&policy.path)?;
        let size = file.metadata()?.len();
        Ok(LogFile {
            path: policy.path.clone(),
            file,
            size,
            max_size: policy.max_size_bytes.filter(|size| *size > 0),
            max_files: policy.max_files.max(1),
            buffer: Vec::new(),
        })
    }

    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// A file that is full is put aside before the next entry, never within one.
    pub(super) fn begin_entry(&mut self) {
        if self.max_size.is_some_and(|most| self.size + self.buffer.len() as u64 >= most) {
            self.flush();
            // When the disk refuses to rename, the log goes on where it is: too long is better than lost.
            let _ = self.rotate();
        }
    }

    pub(super) fn end_entry(&mut self) {
        if self.buffer.len() >= FLUSH_AT {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        // A full disk loses these lines, as with Docker; the container is not stopped for it.
        if self.file.write_all(&self.buffer).is_ok() {
            self.size += self.buffer.len() as u64;
        }
        self.buffer.clear();
        self.buffer.shrink_to(FLUSH_AT);
    }

    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.flush();
        self.file = open(&self.path)?;
        self.size = self.file.metadata()?.len();
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.max_files == 1 {
            self.file.set_len(0)?;
            self.size = 0;
            return Ok(());
        }
        let numbered = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        for n in (1..self.max_files - 1).rev() {
            rename_if_there(&numbered(n), &numbered(n + 1))?;
        }
        fs::rename(&self.path, numbered(1))?;
        self.reopen()
    }
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A link in the file's place is not followed: the directory may belong to someone who would have us write elsewhere.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
}
