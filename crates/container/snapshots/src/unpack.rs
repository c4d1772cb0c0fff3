//! Unpacking a layer into a directory of its own, in overlayfs's form: whiteouts become character devices 0/0, opaque
//! directories get the extended attribute `trusted.overlay.opaque`.
//!
//! Everything is done relative to descriptors (see `tree`): archives are hostile. Attributes that overlayfs itself reads
//! (`trusted.*`) are never taken from an archive. Layers are unpacked apart from each other, in parallel; what lies below
//! is overlayfs's business at mount time.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci::{Compression, Digest};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use crate::archive::{Archive, Entry};
use crate::error::{At, Error, Result};
use crate::limits::{Limits, Metered};
use crate::tree;

pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";
const WHITEOUT_PREFIX: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// What came out of an archive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unpacked {
    pub(crate) diff_id: Digest,
    /// Bytes of regular files.
    pub(crate) size: u64,
    /// Whether the archive said what the root directory itself is like.
    pub(crate) has_root: bool,
    /// Whether it hides what lies below: then it matters whether something does.
    pub(crate) hides: bool,
}

/// Decompresses (whatever the format is) and unpacks; `stored` is the digest of a whole blob that the stream is. Into the empty directory `root`.
pub(crate) fn unpack(
    stream: impl Read,
    compressed_size: u64,
    root: OwnedFd,
    is_base: bool,
    limits: &Limits,
    stored: Option<Digest>,
) -> Result<Unpacked> {
    let (plain, compression) = decompress_told(stream)?;
    // What is stored uncompressed has been hashed once, when it was stored.
    let known = stored.filter(|_| compression == Compression::None);
    let mut archive = Archive::new(Metered::new(plain, limits, compressed_size, known), limits.clone());
    let mut unpacker = Unpacker {
        root,
        is_base,
        parent: None,
        times: Vec::new(),
        size: 0,
        has_root: false,
        hides: false,
        buffer: vec![0; 128 << 10],
    };
    while let Some(entry) = archive.next_entry()? {
        unpacker.entry(&mut archive, &entry)?;
    }
    unpacker.restore_times();
    let diff_id = archive.into_inner().finish()?;
    Ok(Unpacked { diff_id, size: unpacker.size, has_root: unpacker.has_root, hides: unpacker.hides })
}

/// Told by the content, never by the media type.
pub fn decompress<'a>(stream: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    decompress_told(stream).map(|(plain, _)| plain)
}

fn decompress_told<'a>(mut stream: impl Read + 'a) -> Result<(Box<dyn Read + 'a>, Compression)> {
    let mut start = Vec::with_capacity(4);
    stream.by_ref().take(4).read_to_end(&mut start).map_err(Error::Read)?;
    let compression = Compression::sniff(&start);
    let whole = std::io::Cursor::new(start).chain(stream);
    let plain: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        Compression::Zstd => Box::new(zstd::Decoder::new(whole).map_err(Error::Read)?),
    };
    Ok((plain, compression))
}

struct Unpacker {
    root: OwnedFd,
    is_base: bool,
    /// The directory of the last entry: neighbours in an archive share it.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Directories' times, set last, since filling a directory changes them.
    times: Vec<(PathBuf, Timespec)>,
    size: u64,
    has_root: bool,
    hides: bool,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, archive: &mut Archive<R>, entry: &Entry) -> Result<()> {
        let path = tree::clean(&entry.path)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return self.root_entry(entry);
        };
        let parent_path = path.parent().unwrap_or(Path::new("")).to_owned();
        let parent = match self.parent.take() {
            Some((cached, dir)) if cached == parent_path => dir,
            _ => tree::ensure_below(self.root.as_fd(), &parent_path)?,
        };
        let keep = if name.as_bytes().starts_with(WHITEOUT_PREFIX) {
            self.hides = true;
            self.whiteout(&parent, &name, &path)?;
            true
        } else {
            self.place(archive, entry, &parent, &name, &path)?
        };
        if keep {
            self.parent = Some((parent_path, parent));
        }
        Ok(())
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != EntryType::Directory {
            return Err(Error::Archive("root entry is not a directory"));
        }
        self.has_root = true;
        let path = Path::new(".");
        set_attributes(self.root.as_fd(), entry, path)?;
        self.times.push((PathBuf::new(), timespec(entry)));
        Ok(())
    }

    fn whiteout(&self, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
        if name.as_bytes() == OPAQUE_MARK && !self.is_base {
            return set_opaque(parent.as_fd(), path);
        }
        if name.as_bytes().starts_with(WHITEOUT_META) {
            // Bookkeeping of aufs.
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&name.as_bytes()[WHITEOUT_PREFIX.len()..]);
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(Error::Breakout { path: path.display().to_string() });
        }
        if self.is_base {
            // Nothing lies below: a mark would only show up as a strange device.
            return Ok(());
        }
        match tree::stat_at(parent.as_fd(), hidden).at("stat", path)? {
            // What this very layer brings stays; it only hides what lies below it.
            Some(stat) if tree::kind(&stat) == FileType::Directory => {
                let dir = open_entry_dir(parent, hidden).at("open", path)?;
                set_opaque(dir.as_fd(), path)
            }
            Some(_) => Ok(()),
            None => rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                .at("create whiteout", path),
        }
    }

    /// Creates one entry. Whether the cached parent is still sure to be the directory at its path.
    fn place<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        entry: &Entry,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
    ) -> Result<bool> {
        let existing = tree::stat_at(parent.as_fd(), name).at("stat", path)?;
        let is_dir = existing.as_ref().is_some_and(|s| tree::kind(s) == FileType::Directory);
        if entry.kind == EntryType::Directory {
            return self.directory(entry, parent, name, path, existing.as_ref()).map(|()| true);
        }
        if existing.is_some() {
            tree::remove_at(parent.as_fd(), name).at("replace", path)?;
        }
        match entry.kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(archive, entry, parent, name, path)?
            }
            EntryType::Symlink => {
                rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), parent, name).at("create link", path)?;
                finish_node(entry, parent, name, path)?;
                set_link_xattrs(entry, parent, name, path)?;
            }
            EntryType::Link => self.hard_link(entry, parent, name, path)?,
            EntryType::Char | EntryType::Block | EntryType::Fifo => node(entry, parent, name, path)?,
            _ => return Err(Error::Archive("entry of an unknown type")),
        }
        Ok(!is_dir)
    }

    fn directory(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
        existing: Option<&rustix::fs::Stat>,
    ) -> Result<()> {
        let was_whiteout = existing.is_some_and(tree::is_whiteout) && !self.is_base;
        let is_dir = existing.is_some_and(|s| tree::kind(s) == FileType::Directory);
        if !is_dir {
            if existing.is_some() {
                tree::remove_at(parent.as_fd(), name).at("replace", path)?;
            }
            rustix::fs::mkdirat(parent, name, Mode::RWXU).at("create directory", path)?;
        }
        let dir = open_entry_dir(parent, name).at("open", path)?;
        set_attributes(dir.as_fd(), entry, path)?;
        if was_whiteout {
            set_opaque(dir.as_fd(), path)?;
        }
        self.times.push((path.to_owned(), timespec(entry)));
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        entry: &Entry,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR).at("create", path)?;
        let mut file = File::from(fd);
        match &entry.sparse {
            None => self.copy(archive, &mut file, entry.stored_size, path)?,
            Some(map) => {
                file.set_len(entry.size).at("truncate", path)?;
                for (offset, length) in map {
                    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(*offset)).at("seek", path)?;
                    self.copy(archive, &mut file, *length, path)?;
                }
            }
        }
        self.size = self.size.saturating_add(entry.size);
        set_attributes(file.as_fd(), entry, path)?;
        rustix::fs::futimens(&file, &times(entry)).at("set times of", path)
    }

    fn copy<R: Read>(&mut self, archive: &mut Archive<R>, file: &mut File, length: u64, path: &Path) -> Result<()> {
        let mut left = length;
        while left > 0 {
            let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = archive.read_data(&mut self.buffer[..want])?;
            if n == 0 {
                return Err(Error::Archive("unexpected end"));
            }
            file.write_all(&self.buffer[..n]).at("write", path)?;
            left -= n as u64;
        }
        Ok(())
    }

    /// The target is an entry of the same layer, found below the root, its last component not followed.
    fn hard_link(&self, entry: &Entry, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
        let target = tree::clean(&entry.link)?;
        let Some(target_name) = target.file_name() else {
            return Err(Error::Archive("hard link to the root"));
        };
        let dir = tree::open_below(self.root.as_fd(), target.parent().unwrap_or(Path::new("")))
            .at("open hard link target", &target)?;
        rustix::fs::linkat(&dir, target_name, parent, name, AtFlags::empty()).at("create hard link", path)
    }

    /// Best effort: a directory that a later entry replaced has no time to restore.
    fn restore_times(&self) {
        for (path, mtime) in self.times.iter().rev() {
            if let Ok(dir) = tree::open_below(self.root.as_fd(), path) {
                let _ = rustix::fs::futimens(&dir, &Timestamps { last_access: *mtime, last_modification: *mtime });
            }
        }
    }
}

fn open_entry_dir(parent: &OwnedFd, name: &OsStr) -> std::result::Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn set_opaque(dir: BorrowedFd<'_>, path: &Path) -> Result<()> {
    rustix::fs::fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty()).at("mark as opaque", path)
}

/// Owner, then mode (changing the owner clears set-uid), then extended attributes (it clears capabilities, too).
fn set_attributes(fd: BorrowedFd<'_>, entry: &Entry, path: &Path) -> Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
        .at("change owner of", path)?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).at("change mode of", path)?;
    for (name, value) in wanted_xattrs(entry) {
        tolerate(rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())).at("set attribute of", path)?;
    }
    Ok(())
}

/// `trusted.*` belongs to overlayfs: an image that could set it could redirect lookups.
fn wanted_xattrs(entry: &Entry) -> impl Iterator<Item = (&str, &[u8])> {
    let wanted = |name: &str| {
        name.starts_with("security.capability")
            || name.starts_with("system.posix_acl_")
            || (name.starts_with("user.") && !name.starts_with("user.overlay."))
    };
    entry.xattrs.iter().filter(move |(name, _)| wanted(name)).map(|(name, value)| (name.as_str(), value.as_slice()))
}

/// A file system without such attributes still holds the image's files (Docker does the same).
fn tolerate(result: std::result::Result<(), Errno>) -> std::result::Result<(), Errno> {
    match result {
        Err(Errno::NOTSUP | Errno::PERM) => Ok(()),
        other => other,
    }
}

fn set_link_xattrs(entry: &Entry, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
    let mut at = OsString::from(format!("/proc/self/fd/{}/", parent.as_raw_fd()));
    at.push(name);
    for (key, value) in wanted_xattrs(entry) {
        // Confined, there is no /proc to reach a link by; hardly any file system has attributes on links, either.
        let set = rustix::fs::lsetxattr(&at, key, value, XattrFlags::empty());
        tolerate(if set == Err(Errno::NOENT) { Ok(()) } else { set }).at("set attribute of", path)?;
    }
    Ok(())
}

fn node(entry: &Entry, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
    let (kind, device) = match entry.kind {
        EntryType::Char => (FileType::CharacterDevice, rustix::fs::makedev(entry.device.0, entry.device.1)),
        EntryType::Block => (FileType::BlockDevice, rustix::fs::makedev(entry.device.0, entry.device.1)),
        _ => (FileType::Fifo, 0),
    };
    if kind == FileType::CharacterDevice && device == 0 {
        return Err(Error::Archive("entry is a raw overlayfs whiteout"));
    }
    rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device).at("create device", path)?;
    finish_node(entry, parent, name, path)?;
    // Follows no link: the node was made two calls ago in a directory that only we can write.
    rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).at("change mode of", path)
}

/// Owner and time of what cannot be opened without side effects.
fn finish_node(entry: &Entry, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).at("change owner of", path)?;
    rustix::fs::utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).at("set times of", path)
}

fn timespec(entry: &Entry) -> Timespec {
    Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() }
}

fn times(entry: &Entry) -> Timestamps {
    Timestamps { last_access: timespec(entry), last_modification: timespec(entry) }
}
