//! COPY and ADD: from one confined tree into another.
//!
//! Destination rules as the Dockerfile reference has them: a folder's *content* is copied; a file goes into the
//! destination when that is a folder or ends in a slash. What a non-folder finds in its place is replaced, never written through.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, mkdirat, mknodat, openat, readlinkat,
    statat, symlinkat, unlinkat,
};

use crate::chmod::Chmod;
use crate::context::{self, Found, Root};

/// How the copies are to look.
#[derive(Clone, Copy)]
pub(crate) struct CopyOptions<'a> {
    /// Owner of everything copied; `None` keeps the source's (COPY --from).
    pub owner: Option<(u32, u32)>,
    pub mode: Option<&'a Chmod>,
    /// The folders that are made below the destination (`--parents`).
    pub parents: Option<&'a Path>,
    pub excluded: &'a dyn Fn(&Path) -> bool,
    /// Devices and pipes may be copied (another stage), or are refused (a context).
    pub special_files: bool,
}

/// Where a COPY goes.
pub(crate) struct Destination {
    /// Absolute in the build root, cleaned.
    pub path: PathBuf,
    /// It ends in a slash or there is more than one source.
    pub must_be_dir: bool,
}

/// Copies one found source.
pub(crate) fn copy(
    from: &Root,
    source: &Found,
    into: &Root,
    destination: &Destination,
    options: &CopyOptions<'_>,
) -> io::Result<()> {
    let made_as = options.owner.unwrap_or((0, 0));
    let mut base = destination.path.clone();
    if let Some(parents) = options.parents {
        base.push(parents);
        if source.is_dir {
            base.extend(source.path.file_name());
        }
    }
    if source.is_dir {
        let from_dir = from.resolve(&source.path, OFlags::DIRECTORY | OFlags::RDONLY)?;
        let into_dir = into.make_dirs(&base, made_as)?;
        return copy_content(&from_dir, &into_dir, Path::new(""), options, 0);
    }
    let name = source.path.file_name().ok_or_else(|| io::Error::other("a source without a name"))?;
    let (dir, target) =
        place_for_file(into, &base, name, destination.must_be_dir || options.parents.is_some(), made_as)?;
    // The source itself may be a symlink: what it leads to is copied.
    let file = from.resolve(&source.path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let stat = statat(&file, "", AtFlags::EMPTY_PATH)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    write_file(file, &stat, &dir, &target, options)
}

/// Writes a file whose content stands in the Dockerfile.
pub(crate) fn write_inline(
    content: &str,
    name: &str,
    into: &Root,
    destination: &Destination,
    options: &CopyOptions<'_>,
) -> io::Result<()> {
    let (dir, target) = place_for_file(
        into,
        &destination.path,
        OsStr::new(name),
        destination.must_be_dir,
        options.owner.unwrap_or((0, 0)),
    )?;
    clear(&dir, &target)?;
    let file = create(&dir, &target)?;
    std::io::Write::write_all(&mut std::fs::File::from(file.try_clone()?), content.as_bytes())?;
    let mode = options.mode.map_or(0o644, |chmod| chmod.apply(0o644, false));
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    set_owner(&file, options.owner.unwrap_or((0, 0)))
}

pub(crate) fn set_owner(fd: impl AsFd, (uid, gid): (u32, u32)) -> io::Result<()> {
    Ok(rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

/// The folder and the name under which a file comes to stand.
fn place_for_file(
    into: &Root,
    path: &Path,
    name: &OsStr,
    must_be_dir: bool,
    owner: (u32, u32),
) -> io::Result<(OwnedFd, std::ffi::OsString)> {
    let is_dir =
        must_be_dir || path.file_name().is_none() || into.resolve(path, OFlags::DIRECTORY | OFlags::RDONLY).is_ok();
    if is_dir {
        return Ok((into.make_dirs(path, owner)?, name.to_owned()));
    }
    let parent = into.make_dirs(path.parent().unwrap_or(Path::new("/")), owner)?;
    Ok((parent, path.file_name().unwrap_or(name).to_owned()))
}

fn copy_content(
    from: &OwnedFd,
    into: &OwnedFd,
    inside: &Path,
    options: &CopyOptions<'_>,
    depth: usize,
) -> io::Result<()> {
    if depth > 512 {
        return Err(io::Error::other("folders are nested too deeply"));
    }
    for name in context::names(from)? {
        let path = inside.join(&name);
        if (options.excluded)(&path) {
            continue;
        }
        copy_entry(from, &name, into, &path, options, depth)?;
    }
    Ok(())
}

fn copy_entry(
    from: &OwnedFd,
    name: &OsStr,
    into: &OwnedFd,
    path: &Path,
    options: &CopyOptions<'_>,
    depth: usize,
) -> io::Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let source = openat(
                from,
                name,
                OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let target = enter(into, name)?;
            copy_content(&source, &target, path, options, depth + 1)?;
            finish(&target, &stat, options)
        }
        FileType::RegularFile => {
            let file = openat(
                from,
                name,
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            write_file(file, &stat, into, name, options)
        }
        FileType::Symlink => {
            let target = readlinkat(from, name, Vec::new())?;
            clear(into, name)?;
            symlinkat(target.as_c_str(), into, name)?;
            let (uid, gid) = options.owner.unwrap_or((stat.st_uid, stat.st_gid));
            Ok(rustix::fs::chownat(
                into,
                name,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?)
        }
        kind if options.special_files => {
            clear(into, name)?;
            mknodat(into, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
            let (uid, gid) = options.owner.unwrap_or((stat.st_uid, stat.st_gid));
            Ok(rustix::fs::chownat(
                into,
                name,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?)
        }
        _ => Err(io::Error::other(format!(
            "{}: a build context holds files, folders and symbolic links only",
            path.display()
        ))),
    }
}

/// The folder `name`, made where it is missing. A symlink in its place is replaced: it could lead anywhere.
fn enter(into: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let open =
        || openat(into, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    match open() {
        Ok(dir) => Ok(dir),
        Err(_) => {
            clear(into, name)?;
            mkdirat(into, name, Mode::from_raw_mode(0o755))?;
            Ok(open()?)
        }
    }
}

/// Removes what stands in a non-folder's place; a folder there is the user's mistake.
fn clear(dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::ISDIR) => {
            Err(io::Error::other(format!("cannot overwrite the directory {} with a non-directory", name.display())))
        }
        Err(error) => Err(error.into()),
    }
}

fn create(dir: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(openat(
        dir,
        name,
        OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o600),
    )?)
}

fn write_file(file: OwnedFd, stat: &Stat, dir: &OwnedFd, name: &OsStr, options: &CopyOptions<'_>) -> io::Result<()> {
    clear(dir, name)?;
    let target = create(dir, name)?;
    io::copy(&mut std::fs::File::from(file), &mut std::fs::File::from(target.try_clone()?))?;
    finish(&target, stat, options)
}

/// Owner, mode and time, in the order that keeps set-id bits (chown clears them).
fn finish(target: &OwnedFd, stat: &Stat, options: &CopyOptions<'_>) -> io::Result<()> {
    set_owner(target, options.owner.unwrap_or((stat.st_uid, stat.st_gid)))?;
    let kept = stat.st_mode & 0o7777;
    let mode = options.mode.map_or(kept, |chmod| chmod.apply(kept, context::is_dir(stat)));
    rustix::fs::fchmod(target, Mode::from_raw_mode(mode))?;
    let modified = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    Ok(rustix::fs::futimens(target, &Timestamps { last_access: modified, last_modification: modified })?)
}
