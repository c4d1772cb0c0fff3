//! Copying an image's directory into an empty volume, once, at the first use ("copy-up").
//!
//! The source is a descriptor of a directory that was resolved inside the container's root, and the walk
//! below it is descriptor-relative and follows no symlink: hostile image content cannot name a host path.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chownat, fchmod, fchown, futimens,
    mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
};

use crate::Error;

/// Nesting beyond this is refused: no honest image has it, and each level costs a descriptor.
const MAX_DEPTH: usize = 256;

/// Copies everything below `source` into `target` when `target` is empty. True when something was copied.
///
/// A volume of ours that nobody else has (`shared` is false) is filled beside its place and put there by one rename: a kill in
/// the middle leaves it empty, never half full.
pub fn copy_up(source: BorrowedFd<'_>, target: &Path, shared: bool) -> Result<bool, Error> {
    let failed = |e: io::Error| Error::io("copy image content to", target, e);
    if fs::read_dir(target).map_err(failed)?.next().is_some() {
        return Ok(false);
    }
    let own = target.parent().filter(|dir| !shared && dir.join(crate::RECORD).exists());
    let Some(dir) = own.filter(|_| !crate::source::is_mount_point(target)) else {
        let to = File::open(target).map_err(failed)?;
        copy_dir(source, to.as_fd(), 0).map_err(failed)?;
        return Ok(true);
    };
    let beside = dir.join(BESIDE);
    match fs::remove_dir_all(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        Ok(()) | Err(_) => {}
    }
    fs::create_dir(&beside).map_err(failed)?;
    let filled =
        File::open(&beside).and_then(|to| copy_dir(source, to.as_fd(), 0)).and_then(|()| fs::rename(&beside, target));
    if let Err(error) = filled {
        let _ = fs::remove_dir_all(&beside);
        return Err(failed(error));
    }
    Ok(true)
}

/// Where a volume is filled; gone with the volume if a kill left it.
const BESIDE: &str = "_filling";

fn copy_dir(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("directories nested too deeply"));
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        copy_entry(from, to, name, depth)?;
    }
    let stat = rustix::fs::fstat(from)?;
    fchown(to, owner(&stat).0, owner(&stat).1)?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    futimens(to, &times(&stat))?;
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &std::ffi::CStr, depth: usize) -> io::Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let (uid, gid) = owner(&stat);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let (source, target) = (openat(from, name, flags, Mode::empty())?, openat(to, name, flags, Mode::empty())?);
            copy_dir(source.as_fd(), target.as_fd(), depth + 1)
        }
        FileType::RegularFile => copy_file(from, to, name, &stat),
        FileType::Symlink => {
            symlinkat(readlinkat(from, name, Vec::new())?, to, name)?;
            Ok(chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
        }
        kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
            mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
            Ok(chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
        }
        // A socket without its server is of no use in a copy.
        FileType::Socket | FileType::Unknown => Ok(()),
    }
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat) -> io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut source = File::from(openat(from, name, read, Mode::empty())?);
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut target = File::from(openat(to, name, write, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut source, &mut target)?;
    // Owner first: chown clears the set-user-ID bits that the mode then sets.
    fchown(&target, owner(stat).0, owner(stat).1)?;
    fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    futimens(&target, &times(stat))?;
    Ok(())
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn times(stat: &Stat) -> Timestamps {
    let at = |seconds, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Bytes of all files below a directory; what cannot be read counts as nothing.
pub(crate) fn size_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
