//! Output that an attached client has not taken yet: in memory up to a limit, then in a nameless file beside the container's.
//!
//! So a client that is slow or stopped neither holds up the container and its log nor loses anything, up to a bound on the file.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::Path,
};

use rustix::fs::{CWD, Mode, OFlags, openat};

const MEMORY_LIMIT: usize = 1 << 20;
const FILE_LIMIT: u64 = 1 << 30;
const CHUNK: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Backlog {
    memory: VecDeque<u8>,
    spill: Option<Spill>,
}

#[derive(Debug)]
struct Spill {
    file: File,
    read: u64,
    written: u64,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.spill.is_none()
    }

    /// Enough to make a process wait that has no log to keep up with.
    pub(super) fn is_long(&self) -> bool {
        self.memory.len() >= MEMORY_LIMIT || self.spill.is_some()
    }

    /// `dir` is where a file may be made. Fails when the client is hopelessly behind.
    pub(super) fn push(&mut self, bytes: &[u8], dir: &Path) -> io::Result<()> {
        if self.spill.is_none() && self.memory.len() + bytes.len() <= MEMORY_LIMIT + CHUNK {
            self.memory.extend(bytes);
            return Ok(());
        }
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => self.spill.insert(Spill { file: File::from(nameless(dir)?), read: 0, written: 0 }),
        };
        if spill.written - spill.read + bytes.len() as u64 > FILE_LIMIT {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        spill.file.write_all_at(bytes, spill.written)?;
        spill.written += bytes.len() as u64;
        Ok(())
    }

    /// What is to be sent next.
    pub(super) fn front(&mut self) -> io::Result<&[u8]> {
        if self.memory.is_empty()
            && let Some(spill) = &mut self.spill
        {
            let mut chunk = vec![0; CHUNK.min((spill.written - spill.read) as usize)];
            spill.file.read_exact_at(&mut chunk, spill.read)?;
            spill.read += chunk.len() as u64;
            if spill.read == spill.written {
                self.spill = None;
            }
            self.memory = chunk.into();
        }
        Ok(self.memory.as_slices().0)
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.memory.drain(..count);
        if self.memory.is_empty() {
            self.memory.shrink_to(4096);
        }
    }
}

fn nameless(dir: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, dir, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_in_memory_comes_back_in_order_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::default();
        let sent: Vec<u8> = (0..6_000_000u32).map(|n| (n % 251) as u8).collect();
        for chunk in sent.chunks(70_000) {
            backlog.push(chunk, dir.path()).unwrap();
        }
        assert!(backlog.is_long() && backlog.memory.len() < 2 * MEMORY_LIMIT);
        let mut got = Vec::new();
        while !backlog.is_empty() {
            let part = backlog.front().unwrap().to_vec();
            got.extend_from_slice(&part[..part.len().min(9000)]);
            backlog.consume(part.len().min(9000));
        }
        assert!(got == sent);
    }
}
