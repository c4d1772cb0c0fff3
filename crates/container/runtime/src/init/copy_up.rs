//! `tmpcopyup`: a tmpfs that begins with what the directory below it holds.
//!
//! Called while the tmpfs is attached nowhere. Both trees are walked by descriptor and no link is followed, so nothing outside of the two is
//! read or written, whatever the image holds. Device nodes, sockets and the like stay behind: a tmpfs of a container has no use for them.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchmod, fchown, mkdirat, openat, readlinkat,
        statat, symlinkat,
    },
    io::Errno,
};

/// Deeper trees are an image's attempt at our stack.
const MAX_DEPTH: usize = 256;

pub(super) fn copy(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (from, to) = (openat(from, c".", flags, Mode::empty())?, openat(to, c".", flags, Mode::empty())?);
    copy_directory(&from, &to, 0)
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG.into());
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = openat(to, name, flags, Mode::empty())?;
                copy_directory(&openat(from, name, flags, Mode::empty())?, &below, depth + 1)?;
                own(&below, &stat)?;
            }
            FileType::RegularFile => {
                let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut source = File::from(openat(from, name, read, Mode::empty())?);
                let mut copy = File::from(openat(to, name, write, Mode::from_raw_mode(0o600))?);
                io::copy(&mut source, &mut copy)?;
                own(&copy, &stat)?;
            }
            FileType::Symlink => {
                let target = readlinkat(from, name, Vec::new())?;
                symlinkat(target.as_c_str(), to, name)?;
                chownat(to, name, Some(user(&stat)), Some(group(&stat)), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _nodes_and_sockets => {}
        }
    }
    Ok(())
}

fn user(stat: &Stat) -> Uid {
    Uid::from_raw(stat.st_uid)
}

fn group(stat: &Stat) -> Gid {
    Gid::from_raw(stat.st_gid)
}

/// The mode last: a change of owner takes set-user bits away.
fn own(file: impl AsFd, stat: &Stat) -> io::Result<()> {
    fchown(&file, Some(user(stat)), Some(group(stat)))?;
    Ok(fchmod(&file, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
}
