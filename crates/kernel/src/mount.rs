//! Mounts by descriptor: what `rustix` lacks of the new mount interface, and the few steps that every caller repeats.
//!
//! Used by `runtime` (inside a container's mount namespace) and by `snapshots`. Invariant: a mount is made detached,
//! changed while nobody can reach it, and only then attached to a descriptor; no path is resolved twice.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

/// `MOUNT_ATTR_*`: per-mount flags.
pub mod attr {
    pub const READ_ONLY: u64 = 0x1;
    pub const NO_SUID: u64 = 0x2;
    pub const NO_DEV: u64 = 0x4;
    pub const NO_EXEC: u64 = 0x8;
    pub const ATIME_MASK: u64 = 0x70;
    pub const NO_ATIME: u64 = 0x10;
    pub const STRICT_ATIME: u64 = 0x20;
    pub const NO_DIR_ATIME: u64 = 0x80;
    pub const NO_SYMFOLLOW: u64 = 0x20_0000;
}

/// How mounts and unmounts below a mount spread to its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    Private,
    Slave,
    Shared,
    Unbindable,
}

impl Spread {
    fn bits(self) -> u64 {
        match self {
            Spread::Private => libc::MS_PRIVATE,
            Spread::Slave => libc::MS_SLAVE,
            Spread::Shared => libc::MS_SHARED,
            Spread::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// What [`set_attributes`] changes; the rest stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change {
    pub set: u64,
    pub clear: u64,
    pub spread: Option<Spread>,
    pub recursive: bool,
}

/// Changes the mount that `mount` is the root of.
pub fn set_attributes(mount: impl AsFd, change: Change) -> io::Result<()> {
    let mut clear = change.clear;
    if (change.set | change.clear) & attr::ATIME_MASK != 0 {
        // A field of its own: the kernel wants the whole of it cleared when any of it changes.
        clear |= attr::ATIME_MASK;
    }
    let attributes = libc::mount_attr {
        attr_set: change.set,
        attr_clr: clear,
        propagation: change.spread.map_or(0, Spread::bits),
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attributes` and the empty path live across the call; the kernel only reads them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One parameter of a new file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    Flag(String),
    Value(String, String),
}

/// Makes a file system and its mount, attached nowhere.
pub fn new_filesystem(
    kind: &str,
    source: Option<&str>,
    parameters: &[Parameter],
    attributes: u64,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(source) = source {
        fsconfig_set_string(&context, "source", source)?;
    }
    for parameter in parameters {
        match parameter {
            Parameter::Flag(name) => fsconfig_set_flag(&context, name.as_str())?,
            Parameter::Value(name, value) => fsconfig_set_string(&context, name.as_str(), value.as_str())?,
        }
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(attributes as u32))?)
}

/// Makes an overlay of `lowers` (topmost first), attached nowhere.
pub fn new_overlay(lowers: &[&Path], upper: Option<(&Path, &Path)>, attributes: u64) -> io::Result<OwnedFd> {
    match overlay(attributes, |context| {
        // One parameter a layer (6.5): no escaping and no limit of a page on the list.
        lowers.iter().try_for_each(|lower| fsconfig_set_string(context, "lowerdir+", *lower))?;
        let Some((upper, work)) = upper else {
            return Ok(());
        };
        fsconfig_set_string(context, "upperdir", upper)?;
        fsconfig_set_string(context, "workdir", work)
    }) {
        // An older kernel takes every word at first, and refuses what it does not know in the end.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => old_overlay(lowers, upper, attributes),
        other => other,
    }
}

fn overlay(attributes: u64, set: impl FnOnce(BorrowedFd<'_>) -> Result<(), rustix::io::Errno>) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    set(context.as_fd())?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(attributes as u32))?)
}

/// One list of all layers, by their descriptors' names: so short that 200 of them fit into the one page that these kernels take.
fn old_overlay(lowers: &[&Path], upper: Option<(&Path, &Path)>, attributes: u64) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, openat};
    let open = |path: &Path| openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let name = |dir: &OwnedFd| format!("/proc/self/fd/{}", dir.as_raw_fd());
    let layers = lowers.iter().map(|lower| open(lower)).collect::<Result<Vec<_>, _>>()?;
    let list = layers.iter().map(name).collect::<Vec<_>>().join(":");
    let own = upper.map(|(upper, work)| Ok::<_, rustix::io::Errno>((open(upper)?, open(work)?))).transpose()?;
    overlay(attributes, |context| {
        fsconfig_set_string(context, "lowerdir", list.as_str())?;
        let Some((upper, work)) = &own else {
            return Ok(());
        };
        fsconfig_set_string(context, "upperdir", name(upper).as_str())?;
        fsconfig_set_string(context, "workdir", name(work).as_str())
    })
}

/// A detached copy of the mount at `path` (links are followed): the first half of a bind mount.
pub fn copy_of(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(open_tree(CWD, path, flags)?)
}

/// A detached copy of what `file` refers to, a directory or any other file.
pub fn copy_of_open(file: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(open_tree(file.as_fd(), c"", flags)?)
}

/// Attaches `mount` over what `target` refers to.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount.as_fd(), c"", target.as_fd(), c"", flags)?)
}

/// Makes `root` (a mount, attached somewhere) the root of this mount namespace and lets go of the old one.
pub fn enter_root(root: impl AsFd) -> io::Result<()> {
    let old = rustix::fs::open(
        "/",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    rustix::process::fchdir(root.as_fd())?;
    // Stacks the old root over the new one at the same place, so no directory inside the new root is needed for it.
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(&old)?;
    // A slave passes nothing back: the unmount below stays in this namespace.
    set_attributes(&old, Change { spread: Some(Spread::Slave), recursive: true, ..Change::default() })?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// The same without pivot_root, for a root file system that is the machine's first one (an initramfs), which cannot be left.
///
/// The old root stays mounted below the new one, out of reach of paths; weaker than [`enter_root`].
pub fn enter_root_by_move(root: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(root.as_fd())?;
    let slash = rustix::fs::open(
        "/",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    attach(root, &slash)?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}
