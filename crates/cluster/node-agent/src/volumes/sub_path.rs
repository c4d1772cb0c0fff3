//! subPath: a piece of a volume, and nothing outside it.
//!
//! A container may write links into its volume, so the piece is opened with the volume as root and the open
//! descriptor itself is bound to a place of the agent's own; the runtime then mounts that. Invariant: what was
//! checked is what gets mounted, whatever the container swaps meanwhile.

use std::{os::fd::AsRawFd, os::fd::OwnedFd, path::Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{AtPath, Result};

fn open(volume: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let confined = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(volume, path, flags, Mode::empty(), confined)
}

/// Binds `volume/sub` onto `target`, making a missing directory inside the volume.
pub(crate) fn bind(volume: &Path, sub: &Path, target: &Path) -> Result<()> {
    let root = rustix::fs::open(volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open volume", volume)?;
    let piece = match open(&root, sub, OFlags::PATH) {
        Ok(piece) => piece,
        Err(rustix::io::Errno::NOENT) => make(&root, sub)?,
        Err(error) => return Err(error).at("open subPath", sub),
    };
    let is_dir = rustix::fs::fstat(&piece).at("stat", sub)?.st_mode & 0o170_000 == 0o040_000;
    place(target, is_dir)?;
    let source = format!("/proc/self/fd/{}", piece.as_raw_fd());
    rustix::mount::mount_bind_recursive(source.as_str(), target).at("bind subPath on", target)
}

fn make(root: &OwnedFd, sub: &Path) -> Result<OwnedFd> {
    let mut done = std::path::PathBuf::new();
    for part in sub.components() {
        let parent = if done.as_os_str().is_empty() { Path::new(".") } else { done.as_path() };
        let parent_fd = open(root, parent, OFlags::PATH | OFlags::DIRECTORY).at("open", parent)?;
        match rustix::fs::mkdirat(&parent_fd, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).at("create subPath", sub),
        }
        done.push(part);
    }
    open(root, sub, OFlags::PATH).at("open subPath", sub)
}

fn place(target: &Path, is_dir: bool) -> Result<()> {
    if std::fs::symlink_metadata(target).is_ok() {
        // From an earlier instance of the container.
        super::mounts::unmount_below(target)?;
    }
    let parent = target.parent().unwrap_or(target);
    std::fs::create_dir_all(parent).at("create", parent)?;
    if is_dir {
        let _ = std::fs::remove_file(target);
        std::fs::create_dir_all(target).at("create", target)
    } else {
        let _ = std::fs::remove_dir(target);
        std::fs::File::create(target).at("create", target).map(drop)
    }
}
