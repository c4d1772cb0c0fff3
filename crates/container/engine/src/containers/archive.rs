//! `docker cp` and `docker export`: files in and out of a container's root.
//!
//! Every path is resolved inside the root by the kernel and everything below is walked by descriptor, so a
//! container that swaps links meanwhile gains nothing (CVE-2018-15664).

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchmod, fchown, linkat, mkdirat, mknodat, openat,
    readlinkat, statat, symlinkat, unlinkat,
};

use crate::{
    Engine,
    error::{Error, Result},
    record::{MountKind, MountPoint, Phase},
    table::Slot,
};

/// Nesting beyond this is refused.
const MAX_DEPTH: usize = 256;

/// What a path is (`X-Docker-Container-Path-Stat`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// Last component.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// As Go's `os.FileMode`.
    pub mode: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Where a symlink leads.
    pub link_target: String,
}

/// A container's root, opened; a stopped container's stays mounted as long as this lives.
pub(super) struct Root {
    dir: OwnedFd,
    _mounted: Option<snapshots::MountedDir>,
}

impl Root {
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Engine {
    pub(super) fn open_root(&self, slot: &Arc<Slot>) -> Result<Root> {
        if let Phase::Running(running) = slot.phase() {
            let dir =
                kernel::inroot::root_of(running.pid).map_err(|e| Error::system("open root of the container", e))?;
            return Ok(Root { dir, _mounted: None });
        }
        let mounted = self.0.parts.snapshots.mount(&slot.id).map_err(|e| Error::system("mount root filesystem", e))?;
        let dir = File::open(mounted.path()).map_err(|e| Error::file("open", mounted.path(), e))?;
        Ok(Root { dir: dir.into(), _mounted: Some(mounted) })
    }

    /// The root that a path is in, and the path inside it. The volumes of a container that does not run are not mounted in its
    /// root: what is below one of them is looked up in the volume itself.
    fn open_place(&self, slot: &Arc<Slot>, path: &str) -> Result<Place> {
        let record = slot.record();
        let within = mount_of(&record.mounts, path).cloned();
        let running = matches!(slot.phase(), Phase::Running(_));
        let Some((point, inside)) = within.as_ref().filter(|_| !running).and_then(|point| {
            let rest = lexical(path).strip_prefix(point.destination.as_str())?.to_owned();
            Some((point, rest))
        }) else {
            return Ok(Place { root: self.open_root(slot)?, path: path.to_owned(), name: None, within });
        };
        let source = match point.kind {
            MountKind::Volume => self.volume_source(point)?.path,
            MountKind::Bind => PathBuf::from(&point.source),
            // Nothing of a tmpfs is there before the start; an image's files cannot change.
            MountKind::Tmpfs | MountKind::Image => {
                return Ok(Place { root: self.open_root(slot)?, path: path.to_owned(), name: None, within });
            }
        };
        let name = inside.is_empty().then(|| point.destination.rsplit('/').next().unwrap_or_default().to_owned());
        let dir = File::open(&source).map_err(|e| Error::file("open", &source, e))?;
        let trailing = if path.ends_with('/') || path.ends_with("/.") { "/" } else { "" };
        let path = if name.is_some() { "/".to_owned() } else { inside + trailing };
        Ok(Place { root: Root { dir: dir.into(), _mounted: None }, path, name, within })
    }

    /// What a path in a container is. Blocks.
    pub fn stat_path(&self, name: &str, path: &str) -> Result<PathStat> {
        let slot = self.find(name)?;
        let place = self.open_place(&slot, path)?;
        let (parent, base) = locate(&place.root, &place.path).map_err(|_| missing(name, path))?;
        let found = stat(parent.as_fd(), &base).map_err(|_| missing(name, path))?;
        Ok(place.named(found))
    }

    /// Writes a path of a container as a tar. Blocks; `found` is told what it is before the first byte.
    pub fn read_archive(
        &self,
        name: &str,
        path: &str,
        found: impl FnOnce(PathStat),
        out: &mut dyn Write,
    ) -> Result<()> {
        let slot = self.find(name)?;
        let place = self.open_place(&slot, path)?;
        let (parent, base) = locate(&place.root, &place.path).map_err(|_| missing(name, path))?;
        let stat = place.named(stat(parent.as_fd(), &base).map_err(|_| missing(name, path))?);
        self.container_event(&slot.record(), "archive-path", &[]);
        found(stat);
        let shown = PathBuf::from(place.name.as_ref().unwrap_or(&base));
        let mut tar = tar::Builder::new(out);
        let written = append(&mut tar, parent.as_fd(), Path::new(&base), &shown, 0).and_then(|()| tar.finish());
        written.map_err(|e| Error::file("copy from container", path, e))
    }

    /// Unpacks a tar (plain or compressed) into a directory of a container. Blocks. With `as_user` everything belongs to the
    /// container's own user afterwards.
    pub fn write_archive(
        &self,
        name: &str,
        path: &str,
        keep_directories: bool,
        as_user: bool,
        input: &mut dyn Read,
    ) -> Result<()> {
        let slot = self.find(name)?;
        let place = self.open_place(&slot, path)?;
        match &place.within {
            Some(point) if !point.read_write => {
                return Err(Error::Forbidden("mounted volume is marked read-only".to_owned()));
            }
            None if slot.record().host.readonly_rootfs => {
                return Err(Error::Forbidden("container rootfs is marked read-only".to_owned()));
            }
            Some(_) | None => {}
        }
        let owner = if as_user { self.owner_of_copies(&slot)? } else { None };
        let target =
            kernel::inroot::open(place.root.dir(), relative(&place.path), OFlags::RDONLY | OFlags::DIRECTORY);
        let target = target.map_err(|e| match e.raw_os_error() {
            Some(code) if code == rustix::io::Errno::NOTDIR.raw_os_error() => {
                Error::Invalid("extraction point is not a directory".to_owned())
            }
            _ => missing(name, path),
        })?;
        let plain = snapshots::decompress(input).map_err(|e| Error::Invalid(e.to_string()))?;
        let mut tar = tar::Archive::new(plain);
        let failed = |e: io::Error| match e.raw_os_error() {
            Some(code) if code == rustix::io::Errno::NOSPC.raw_os_error() => Error::file("copy into container", path, e),
            _ => Error::Invalid(format!("cannot extract into {path}: {e}")),
        };
        for entry in tar.entries().map_err(failed)? {
            extract(target.as_fd(), entry.map_err(failed)?, keep_directories, owner).map_err(failed)?;
        }
        self.container_event(&slot.record(), "extract-to-dir", &[]);
        Ok(())
    }

    /// Whose the copies are with `docker cp -a`: the user's that the container runs as, if it names one.
    fn owner_of_copies(&self, slot: &Arc<Slot>) -> Result<Option<(Uid, Gid)>> {
        let record = slot.record();
        if record.config.user.is_empty() {
            return Ok(None);
        }
        let user = match slot.phase() {
            Phase::Running(running) => super::resolve_user_of_running(running.pid, &record.config.user, &[])?,
            _ => {
                let mount = self.0.parts.snapshots.get(&slot.id).map_err(|e| Error::system("look up user", e))?;
                super::resolve_user(&mount, &record.config.user, &[])?
            }
        };
        Ok(Some((Uid::from_raw(user.uid), Gid::from_raw(user.gid))))
    }
}

/// Where a path of a container is looked up.
struct Place {
    root: Root,
    path: String,
    /// What the whole of a volume is called.
    name: Option<String>,
    /// The mount that the path is in.
    within: Option<MountPoint>,
}

impl Place {
    fn named(&self, stat: PathStat) -> PathStat {
        match &self.name {
            Some(name) => PathStat { name: name.clone(), ..stat },
            None => stat,
        }
    }
}

/// Absolute, without `.`, `..`, doubled and trailing slashes.
fn lexical(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The innermost mount that a path is in (pure).
fn mount_of<'a>(mounts: &'a [MountPoint], path: &str) -> Option<&'a MountPoint> {
    let path = lexical(path);
    let holds = |point: &&MountPoint| {
        path.strip_prefix(point.destination.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    mounts.iter().filter(holds).max_by_key(|point| point.destination.len())
}

fn missing(container: &str, path: &str) -> Error {
    Error::NoSuchPath { container: container.to_owned(), path: path.to_owned() }
}

fn relative(path: &str) -> &Path {
    Path::new(path.trim_start_matches('/'))
}

/// The directory that holds a path's last component, resolved inside the root, and that component. A trailing
/// slash or `/.` asks for the thing itself, not for a link to it.
fn locate(root: &Root, path: &str) -> io::Result<(OwnedFd, String)> {
    let follow = path.ends_with('/') || path.ends_with("/.");
    let clean = relative(path);
    let last = clean.components().next_back();
    match last {
        Some(Component::Normal(name)) if !follow => {
            let parent = clean.parent().unwrap_or(Path::new(""));
            let dir = kernel::inroot::open(root.dir(), parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok((dir, name.to_owned()))
        }
        _ => Ok((kernel::inroot::open(root.dir(), clean, OFlags::RDONLY | OFlags::DIRECTORY)?, ".".to_owned())),
    }
}

fn stat(parent: BorrowedFd<'_>, name: &str) -> io::Result<PathStat> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_link = FileType::from_raw_mode(stat.st_mode).is_symlink();
    let link_target =
        if is_link { readlinkat(parent, name, Vec::new())?.to_string_lossy().into_owned() } else { String::new() };
    Ok(PathStat {
        name: if name == "." { "/".to_owned() } else { name.to_owned() },
        size: stat.st_size,
        mode: go_mode(stat.st_mode),
        mtime: Timestamp::from_second(stat.st_mtime).unwrap_or(Timestamp::UNIX_EPOCH),
        link_target,
    })
}

/// Go's `os.FileMode` bits.
fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        FileType::RegularFile | FileType::Unknown => 0,
    };
    let bit = |from: u32, to: u32| if mode & from == 0 { 0 } else { to };
    kind | bit(0o4000, 1 << 23) | bit(0o2000, 1 << 22) | bit(0o1000, 1 << 20) | (mode & 0o777)
}

/// The whole tree below an open root.
pub(super) fn write_tree(root: BorrowedFd<'_>, out: &mut dyn Write) -> Result<()> {
    let failed = |e: io::Error| Error::system("export", e);
    let root = openat(root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| failed(e.into()))?;
    let mut tar = tar::Builder::new(out);
    let device = rustix::fs::fstat(&root).map_err(|e| failed(e.into()))?.st_dev;
    append_children(&mut tar, root.as_fd(), Path::new(""), 0, Some(device)).and_then(|()| tar.finish()).map_err(failed)
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    parent: BorrowedFd<'_>,
    name: &Path,
    shown: &Path,
    depth: usize,
) -> io::Result<()> {
    append_entry(tar, parent, name, shown, depth, None)
}

/// `device` keeps an export on the root filesystem: `/proc` and its like are mounts.
fn append_entry<W: Write>(
    tar: &mut tar::Builder<W>,
    parent: BorrowedFd<'_>,
    name: &Path,
    shown: &Path,
    depth: usize,
    device: Option<u64>,
) -> io::Result<()> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mut header = header(&stat);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = openat(parent, name, flags, Mode::empty())?;
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, format!("{}/", shown.display()), io::empty())?;
            if device.is_some_and(|device| device != stat.st_dev) {
                return Ok(());
            }
            append_children(tar, dir.as_fd(), shown, depth + 1, device)
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = File::from(openat(parent, name, flags, Mode::empty())?);
            let size = file.metadata()?.len();
            header.set_size(size);
            header.set_entry_type(tar::EntryType::Regular);
            // A file that shrinks meanwhile is filled up, so that the archive stays readable.
            tar.append_data(&mut header, shown, file.chain(io::repeat(0)).take(size))
        }
        FileType::Symlink => {
            let target = readlinkat(parent, name, Vec::new())?;
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, shown, target.to_string_lossy().as_ref())
        }
        kind @ (FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo) => {
            header.set_entry_type(match kind {
                FileType::CharacterDevice => tar::EntryType::Char,
                FileType::BlockDevice => tar::EntryType::Block,
                _ => tar::EntryType::Fifo,
            });
            header.set_device_major(rustix::fs::major(stat.st_rdev))?;
            header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
            tar.append_data(&mut header, shown, io::empty())
        }
        FileType::Socket | FileType::Unknown => Ok(()),
    }
}

fn append_children<W: Write>(
    tar: &mut tar::Builder<W>,
    dir: BorrowedFd<'_>,
    shown: &Path,
    depth: usize,
    device: Option<u64>,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("directories nested too deeply"));
    }
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = String::from_utf8_lossy(entry.file_name().to_bytes()).into_owned();
        if name == "." || name == ".." {
            continue;
        }
        match append_entry(tar, dir, Path::new(&name), &shown.join(&name), depth, device) {
            // Gone between listing and reading: a running container goes on.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

fn header(stat: &Stat) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

/// Unpacks one entry below `target`; the parents are resolved inside it.
fn extract<R: Read>(
    target: BorrowedFd<'_>,
    mut entry: tar::Entry<'_, R>,
    keep_directories: bool,
    owner: Option<(Uid, Gid)>,
) -> io::Result<()> {
    let path = clean(&entry.path()?)?;
    let Some(name) = path.file_name().map(ToOwned::to_owned) else { return Ok(()) };
    let parent =
        kernel::inroot::ensure(target, path.parent().unwrap_or(Path::new("")), kernel::inroot::Make::Directory)?;
    let header = entry.header().clone();
    let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
    let (uid, gid) = match owner {
        Some((uid, gid)) => (Some(uid), Some(gid)),
        None => {
            let number = |n: u64| u32::try_from(n).ok();
            (number(header.uid()?).map(Uid::from_raw), number(header.gid()?).map(Gid::from_raw))
        }
    };
    let kind = header.entry_type();
    let existing = statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|s| FileType::from_raw_mode(s.st_mode));
    match existing {
        Some(FileType::Directory) if kind.is_dir() => {}
        Some(FileType::Directory) if keep_directories => {
            return Err(io::Error::other(format!(
                "cannot overwrite directory \"{}\" with non-directory",
                path.display()
            )));
        }
        Some(FileType::Directory) => unlinkat(&parent, &name, AtFlags::REMOVEDIR)?,
        Some(_) if kind.is_dir() && keep_directories => {
            return Err(io::Error::other(format!(
                "cannot overwrite non-directory \"{}\" with directory",
                path.display()
            )));
        }
        Some(_) => unlinkat(&parent, &name, AtFlags::empty())?,
        None => {}
    }
    if kind.is_dir() {
        if existing != Some(FileType::Directory) {
            mkdirat(&parent, &name, mode)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(&parent, &name, flags, Mode::empty())?;
        fchown(&dir, uid, gid)?;
        return Ok(fchmod(&dir, mode)?);
    }
    if kind.is_file() || kind == tar::EntryType::Continuous {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&parent, &name, flags, Mode::RUSR | Mode::WUSR)?);
        io::copy(&mut entry, &mut file)?;
        fchown(&file, uid, gid)?;
        return Ok(fchmod(&file, mode)?);
    }
    let link = entry.link_name()?.map(std::borrow::Cow::into_owned).unwrap_or_default();
    match kind {
        tar::EntryType::Symlink => symlinkat(&link, &parent, &name)?,
        tar::EntryType::Link => {
            let link = clean(&link)?;
            let from =
                kernel::inroot::open(target, link.parent().unwrap_or(Path::new("")), OFlags::PATH | OFlags::DIRECTORY)?;
            let base = link.file_name().ok_or(io::ErrorKind::InvalidData)?;
            return Ok(linkat(&from, base, &parent, &name, AtFlags::empty())?);
        }
        tar::EntryType::Fifo => mknodat(&parent, &name, FileType::Fifo, mode, 0)?,
        other => return Err(io::Error::other(format!("entry type {other:?} is not supported"))),
    }
    Ok(chownat(&parent, &name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Refuses `..`; drops `.` and leading slashes.
fn clean(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("path {} leaves the archive", path.display()),
                ));
            }
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            let is_link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
            header.set_size(if is_link { 0 } else { content.len() as u64 });
            // Written raw: the builder itself would refuse hostile names.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            if is_link {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_cksum();
            tar.append(&header, if is_link { &[][..] } else { content.as_bytes() }).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn unpack(target: &Path, bytes: &[u8]) -> io::Result<()> {
        let dir = File::open(target)?;
        let mut archive = tar::Archive::new(bytes);
        for entry in archive.entries()? {
            extract(dir.as_fd(), entry?, true, None)?;
        }
        Ok(())
    }

    #[test]
    fn hostile_archives_write_nothing_outside() {
        use tar::EntryType::{Link, Regular, Symlink};
        let outside = tempfile::tempdir().unwrap();
        let canary = outside.path().join("canary");
        std::fs::write(&canary, "alive").unwrap();
        let out = outside.path().to_str().unwrap();
        let canary_text = canary.to_str().unwrap();
        let archives = [
            tar_of(&[("../canary", Regular, "dead")]),
            tar_of(&[(canary_text, Regular, "dead")]),
            tar_of(&[("way", Symlink, out), ("way/canary", Regular, "dead")]),
            tar_of(&[("hard", Link, canary_text), ("hard", Regular, "dead")]),
            tar_of(&[("soft", Symlink, canary_text), ("soft", Regular, "dead")]),
        ];
        for bytes in archives {
            let target = tempfile::tempdir().unwrap();
            let _ = unpack(target.path(), &bytes);
            assert_eq!(std::fs::read_to_string(&canary).unwrap(), "alive");
        }
    }

    #[test]
    fn what_is_packed_unpacks_the_same() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(from.path().join("d")).unwrap();
        std::fs::write(from.path().join("d/f"), "content").unwrap();
        std::os::unix::fs::symlink("f", from.path().join("d/l")).unwrap();
        let mut bytes = Vec::new();
        write_tree(File::open(from.path()).unwrap().as_fd(), &mut bytes).unwrap();
        unpack(to.path(), &bytes).unwrap();
        assert_eq!(std::fs::read_to_string(to.path().join("d/l")).unwrap(), "content");
    }

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(0o040_755), 1 << 31 | 0o755);
        assert_eq!(go_mode(0o120_777), 1 << 27 | 0o777);
        assert_eq!(go_mode(0o104_755), 1 << 23 | 0o755);
    }
}
