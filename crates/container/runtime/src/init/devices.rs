//! Device nodes and the links in `/dev`.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use kernel::{
    inroot::{self, Make},
    mount,
};
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, makedev, mknodat, statat, symlinkat, unlinkat},
    io::Errno,
};

use super::mounts::host_has;
use crate::{Failure, Node, Plan, failure::Step};

pub(super) fn make_all(plan: &Plan, root: &OwnedFd) -> Result<(), Failure> {
    for node in &plan.devices {
        make(node, root).step(format!("device {}", node.path.display()))?;
    }
    links(root).step("links in /dev")
}

fn make(node: &Node, root: &OwnedFd) -> std::io::Result<()> {
    let (Some(parent), Some(name)) = (node.path.parent(), node.path.file_name()) else {
        return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput));
    };
    let dir = inroot::ensure(root, parent, Make::Directory)?;
    let mode = Mode::from_raw_mode(node.mode & 0o7777);
    match mknodat(&dir, name, FileType::from_raw_mode(node.mode), mode, makedev(node.major, node.minor)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return same_device(node, &dir, name),
        // Not allowed in a user namespace: the host's node instead.
        Err(Errno::PERM) => return bind(node, root),
        Err(error) => return Err(error.into()),
    }
    chownat(&dir, name, Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)), AtFlags::SYMLINK_NOFOLLOW)?;
    // mknod applied the umask of an unknown parent; the mode is set as it was asked for.
    Ok(chmodat(&dir, name, mode, AtFlags::empty())?)
}

fn same_device(node: &Node, dir: &OwnedFd, name: &std::ffi::OsStr) -> std::io::Result<()> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if stat.st_rdev == makedev(node.major, node.minor) { Ok(()) } else { Err(Errno::EXIST.into()) }
}

fn bind(node: &Node, root: &OwnedFd) -> std::io::Result<()> {
    let copy = mount::copy_of(&node.path, false)?;
    let target = inroot::ensure(root, &node.path, Make::File)?;
    mount::attach(&copy, &target)
}

fn links(root: &OwnedFd) -> std::io::Result<()> {
    let dev = inroot::open(root, Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY)?;
    let mut wanted = vec![
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ];
    if host_has("/proc/kcore") {
        wanted.push(("/proc/kcore", "core"));
    }
    for (target, name) in wanted {
        match symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Always the container's own multiplexer, whatever the image put there.
    match unlinkat(&dev, "ptmx", AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(symlinkat(PathBuf::from("pts/ptmx"), &dev, "ptmx")?)
}
