//! A snapshot's upper directory as a layer archive: OCI's whiteout names, deterministic order, PAX where ustar is short.
//!
//! Reading is by descriptor (see `changes`). Times are whole seconds, as in Docker's layers; sockets are left out, as tar
//! has no word for them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::{EntryType, Header};

use crate::changes::{Node, through, walk};
use crate::error::{At, Error, Result};

const BLOCK: usize = 512;
/// The largest number in a ustar field of 8 and of 12 octal digits.
const MAX_ID: u32 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;

/// Writes the archive; the number of bytes in its regular files.
pub(crate) fn write_archive(upper: &Path, lowers: &[PathBuf], out: &mut dyn Write) -> Result<u64> {
    let mut writer = Writer { out, links: HashMap::new(), size: 0, buffer: vec![0; 128 << 10] };
    walk(upper, lowers, &mut |node| writer.node(node))?;
    writer.put(&[0; 2 * BLOCK])?;
    Ok(writer.size)
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    /// Inodes with several names: the first name that was written.
    links: HashMap<(u64, u64), PathBuf>,
    size: u64,
    buffer: Vec<u8>,
}

struct Head<'a> {
    path: Vec<u8>,
    link: Vec<u8>,
    kind: EntryType,
    size: u64,
    stat: Option<&'a Stat>,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Writer<'_> {
    fn node(&mut self, node: Node<'_>) -> Result<()> {
        match node {
            Node::Entry { dir, path, stat, .. } => self.entry(dir, path, stat),
            Node::Whiteout { path } => {
                let mut name = std::ffi::OsString::from(".wh.");
                name.push(path.file_name().unwrap_or_default());
                self.marker(&path.with_file_name(name))
            }
            Node::Opaque { path } => self.marker(&path.join(".wh..wh..opq")),
        }
    }

    fn marker(&mut self, path: &Path) -> Result<()> {
        self.head(&Head {
            path: path.as_os_str().as_bytes().to_vec(),
            link: Vec::new(),
            kind: EntryType::Regular,
            size: 0,
            stat: None,
            xattrs: Vec::new(),
        })
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, path: &Path, stat: &Stat) -> Result<()> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => EntryType::Directory,
            FileType::RegularFile => EntryType::Regular,
            FileType::Symlink => EntryType::Symlink,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            FileType::Fifo => EntryType::Fifo,
            FileType::Socket | FileType::Unknown => return Ok(()),
        };
        let mut head = Head {
            path: path.as_os_str().as_bytes().to_vec(),
            link: Vec::new(),
            kind,
            size: 0,
            stat: Some(stat),
            xattrs: Vec::new(),
        };
        if kind == EntryType::Directory {
            head.path.push(b'/');
        } else if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                head.link = first.as_os_str().as_bytes().to_vec();
                head.kind = EntryType::Link;
                return self.head(&head);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        head.xattrs = xattrs(&through(dir, path)).at("read attributes of", path)?;
        match kind {
            EntryType::Symlink => {
                let name = path.file_name().unwrap_or_default();
                head.link = rustix::fs::readlinkat(dir, name, Vec::new()).at("read link", path)?.into_bytes();
                self.head(&head)
            }
            EntryType::Regular => self.file(dir, path, head),
            _ => self.head(&head),
        }
    }

    fn file(&mut self, dir: BorrowedFd<'_>, path: &Path, mut head: Head<'_>) -> Result<()> {
        // NONBLOCK: it may have become a pipe since it was looked at.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd =
            rustix::fs::openat(dir, path.file_name().unwrap_or_default(), flags, Mode::empty()).at("open", path)?;
        let mut file = File::from(fd);
        head.size = file.metadata().at("stat", path)?.len();
        self.head(&head)?;
        let mut left = head.size;
        while left > 0 {
            let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = match file.read(&mut self.buffer[..want]).at("read", path)? {
                // Truncated under our eyes: the header has promised its size, so the rest is zeros.
                0 => {
                    self.buffer[..want].fill(0);
                    want
                }
                n => n,
            };
            self.out.write_all(&self.buffer[..n]).map_err(write_error)?;
            left -= n as u64;
        }
        self.size += head.size;
        self.pad(head.size)
    }

    fn head(&mut self, head: &Head<'_>) -> Result<()> {
        let mut header = Header::new_ustar();
        let mut pax: Vec<(String, Vec<u8>)> = Vec::new();
        let old = header.as_old_mut();
        fill(&mut old.name, &head.path, "path", &mut pax);
        fill(&mut old.linkname, &head.link, "linkpath", &mut pax);
        header.set_entry_type(head.kind);
        header.set_size(bounded(head.size, MAX_SIZE, "size", &mut pax));
        let (mode, uid, gid, mtime) =
            head.stat.map_or((0, 0, 0, 0), |s| (s.st_mode & 0o7777, s.st_uid, s.st_gid, s.st_mtime));
        header.set_mode(mode);
        header.set_uid(bounded(uid.into(), MAX_ID.into(), "uid", &mut pax));
        header.set_gid(bounded(gid.into(), MAX_ID.into(), "gid", &mut pax));
        match u64::try_from(mtime) {
            Ok(mtime) => header.set_mtime(bounded(mtime, MAX_SIZE, "mtime", &mut pax)),
            Err(_) => pax.push(("mtime".into(), mtime.to_string().into_bytes())),
        }
        if let (EntryType::Char | EntryType::Block, Some(stat)) = (head.kind, head.stat) {
            let _ = header.set_device_major(rustix::fs::major(stat.st_rdev));
            let _ = header.set_device_minor(rustix::fs::minor(stat.st_rdev));
        }
        header.set_cksum();
        pax.extend(head.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.clone())));
        self.pax(&pax)?;
        self.put(header.as_bytes())
    }

    fn pax(&mut self, records: &[(String, Vec<u8>)]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut body = Vec::new();
        for (key, value) in records {
            pax_record(&mut body, key, value);
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.as_old_mut().name[..9].copy_from_slice(b"PaxHeader");
        header.set_size(body.len() as u64);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.put(header.as_bytes())?;
        self.put(&body)?;
        self.pad(body.len() as u64)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let rest = usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or(0);
        self.put(&[0; BLOCK][..rest])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(write_error)
    }
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn pax_record(body: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    body.extend_from_slice(format!("{length} {key}=").as_bytes());
    body.extend_from_slice(value);
    body.push(b'\n');
}

fn fill(field: &mut [u8; 100], value: &[u8], key: &str, pax: &mut Vec<(String, Vec<u8>)>) {
    let n = value.len().min(field.len());
    field[..n].copy_from_slice(&value[..n]);
    // Not ASCII, too: readers differ in how they take bytes above 127 in the plain field.
    if value.len() > field.len() || !value.is_ascii() {
        pax.push((key.to_owned(), value.to_vec()));
    }
}

fn bounded(number: u64, max: u64, key: &str, pax: &mut Vec<(String, Vec<u8>)>) -> u64 {
    if number <= max {
        return number;
    }
    pax.push((key.to_owned(), number.to_string().into_bytes()));
    0
}

fn write_error(source: std::io::Error) -> Error {
    Error::Io { what: "write layer archive", path: PathBuf::new(), source }
}

/// The attributes that belong into a layer; `trusted.*` is overlayfs's own.
fn xattrs(path: &Path) -> std::result::Result<Vec<(String, Vec<u8>)>, Errno> {
    let mut list = vec![0u8; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut list) {
        Ok(n) => n,
        Err(Errno::NOTSUP | Errno::NOENT) => 0,
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for name in list[..length].split(|b| *b == 0).filter_map(|n| std::str::from_utf8(n).ok()) {
        if name == "security.capability"
            || name.starts_with("system.posix_acl_")
            || (name.starts_with("user.") && !name.starts_with("user.overlay."))
        {
            let mut value = vec![0u8; 64 << 10];
            let n = rustix::fs::lgetxattr(path, name, &mut value)?;
            value.truncate(n);
            found.push((name.to_owned(), value));
        }
    }
    found.sort();
    Ok(found)
}
