//! What a writable snapshot changed: the walk over its upper directory, and `docker diff`'s list.
//!
//! The walk is by descriptor and follows nothing, because the container that owns the directory may still be running.
//! Order is fixed (names sorted, a directory before what is in it), so that the same content gives the same archive.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};

use crate::error::{At, Error, Result};
use crate::tree;
use crate::unpack::OPAQUE;

/// Deeper trees than this are refused: each level holds a descriptor.
const MAX_DEPTH: usize = 700;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

/// One changed path, absolute inside the root filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: PathBuf,
    pub kind: ChangeKind,
}

/// One thing that the walk met.
pub(crate) enum Node<'a> {
    Entry {
        dir: BorrowedFd<'a>,
        path: &'a Path,
        stat: &'a Stat,
        in_lower: bool,
    },
    /// The path was deleted.
    Whiteout {
        path: &'a Path,
    },
    /// The directory's former content was deleted; comes before its present content.
    Opaque {
        path: &'a Path,
    },
}

pub(crate) type Visit<'a> = &'a mut dyn FnMut(Node<'_>) -> Result<()>;

struct Walk<'a> {
    lowers: &'a [PathBuf],
    visit: Visit<'a>,
}

/// Visits everything in `upper` but the root itself.
pub(crate) fn walk(upper: &Path, lowers: &[PathBuf], visit: Visit<'_>) -> Result<()> {
    let root = tree::open_dir(upper)?;
    Walk { lowers, visit }.directory(&root, &mut PathBuf::new(), true, 0)
}

impl Walk<'_> {
    /// `below`: whether the lower layers may have something at this directory.
    fn directory(&mut self, dir: &OwnedFd, path: &mut PathBuf, below: bool, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::Limit { what: "nested directories", limit: MAX_DEPTH as u64 });
        }
        for name in names(dir, path)? {
            path.push(&name);
            // Gone since it was listed: the container runs on.
            if let Some(stat) = tree::stat_at(dir.as_fd(), &name).at("stat", &*path)? {
                self.node(dir, path, &stat, below, depth)?;
            }
            path.pop();
        }
        Ok(())
    }

    fn node(&mut self, dir: &OwnedFd, path: &mut PathBuf, stat: &Stat, below: bool, depth: usize) -> Result<()> {
        if tree::is_whiteout(stat) {
            return (self.visit)(Node::Whiteout { path });
        }
        let lower = if below { lookup(self.lowers, path)? } else { None };
        (self.visit)(Node::Entry { dir: dir.as_fd(), path, stat, in_lower: lower.is_some() })?;
        if tree::kind(stat) != FileType::Directory {
            return Ok(());
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = path.file_name().unwrap_or_default();
        let child = rustix::fs::openat(dir, name, flags, Mode::empty()).at("open", &*path)?;
        let mut below = lower.is_some_and(|s| tree::kind(&s) == FileType::Directory);
        if below && is_opaque(&child, path)? {
            (self.visit)(Node::Opaque { path })?;
            below = false;
        }
        self.directory(&child, path, below, depth + 1)
    }
}

fn names(dir: &OwnedFd, path: &Path) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).at("list", path)? {
        let entry = entry.at("list", path)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}

fn is_opaque(dir: &OwnedFd, path: &Path) -> Result<bool> {
    let mut value = [0; 4];
    match rustix::fs::fgetxattr(dir, OPAQUE, &mut value) {
        Ok(n) => Ok(&value[..n] == b"y"),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error).at("read attribute of", path),
    }
}

/// What the lower layers together show at `path`, with whiteouts and opaque directories honoured.
fn lookup(lowers: &[PathBuf], path: &Path) -> Result<Option<Stat>> {
    for lower in lowers {
        let mut dir = tree::open_dir(lower)?;
        let mut opaque = false;
        let mut components = path.iter().peekable();
        while let Some(name) = components.next() {
            let Some(stat) = tree::stat_at(dir.as_fd(), name).at("stat", path)? else {
                break;
            };
            if tree::is_whiteout(&stat) {
                return Ok(None);
            }
            if components.peek().is_none() {
                return Ok(Some(stat));
            }
            if tree::kind(&stat) != FileType::Directory {
                return Ok(None);
            }
            dir = rustix::fs::openat(&dir, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .at("open", path)?;
            opaque |= is_opaque(&dir, path)?;
        }
        if opaque {
            return Ok(None);
        }
    }
    Ok(None)
}

/// `docker diff`: every path in the upper directory, compared with what lies below.
pub(crate) fn changes(upper: &Path, lowers: &[PathBuf]) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    walk(upper, lowers, &mut |node| {
        let (path, kind) = match node {
            Node::Entry { path, in_lower: true, .. } => (path, ChangeKind::Modified),
            Node::Entry { path, in_lower: false, .. } => (path, ChangeKind::Added),
            Node::Whiteout { path } => (path, ChangeKind::Deleted),
            Node::Opaque { .. } => return Ok(()),
        };
        changes.push(Change { path: Path::new("/").join(path), kind });
        Ok(())
    })?;
    Ok(changes)
}

/// Bytes on disk of everything in the upper directory.
pub(crate) fn usage(upper: &Path) -> Result<u64> {
    let mut bytes = 0u64;
    let mut linked = std::collections::HashSet::new();
    walk(upper, &[], &mut |node| {
        // A file with several names takes its space once.
        if let Node::Entry { stat, .. } = node
            && (stat.st_nlink < 2 || linked.insert(stat.st_ino))
        {
            bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
        Ok(())
    })?;
    Ok(bytes)
}

/// The path of an entry through its directory's descriptor, for calls that have no `…at` form.
pub(crate) fn through(dir: BorrowedFd<'_>, path: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(path.file_name().unwrap_or_default())
}
