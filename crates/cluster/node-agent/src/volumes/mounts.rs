//! Mounts that the agent makes for volumes.
//!
//! Invariant: it mounts and unmounts only below a pod's own directory.

use std::{os::unix::ffi::OsStrExt, path::Path};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::error::{AtPath, Result};

pub(super) fn tmpfs(dir: &Path, size_bytes: Option<i64>, mode: u32) -> Result<()> {
    let mut options = format!("mode={mode:o}");
    if let Some(size) = size_bytes.filter(|size| *size > 0) {
        options.push_str(&format!(",size={size}"));
    }
    let options = std::ffi::CString::new(options).unwrap_or_default();
    rustix::mount::mount("tmpfs", dir, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, &*options)
        .at("mount tmpfs on", dir)
}

/// Whether something is mounted on the directory itself.
pub(super) fn is_mount_point(dir: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::symlink_metadata(dir).at("stat", dir)?;
    let parent = dir.parent().unwrap_or(dir);
    let above = std::fs::symlink_metadata(parent).at("stat", parent)?;
    Ok(own.dev() != above.dev())
}

/// Mount points at and below a directory, oldest first.
fn points_below(dir: &Path) -> Result<Vec<Vec<u8>>> {
    let table = Path::new("/proc/self/mountinfo");
    let text = std::fs::read(table).at("read", table)?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescape)
        .filter(|point| Path::new(std::ffi::OsStr::from_bytes(point)).starts_with(dir))
        .collect())
}

pub(super) fn any_below(dir: &Path) -> Result<bool> {
    Ok(!points_below(dir)?.is_empty())
}

/// Whether the path itself is a mount point, also of a bind mount within one file system.
pub(super) fn is_mounted(path: &Path) -> Result<bool> {
    Ok(points_below(path)?.iter().any(|point| point == path.as_os_str().as_bytes()))
}

/// Unmounts everything below a directory, deepest and newest first.
pub(super) fn unmount_below(dir: &Path) -> Result<()> {
    let mut points = points_below(dir)?;
    points.reverse();
    for point in points {
        let point = Path::new(std::ffi::OsStr::from_bytes(&point));
        // Lazily: a process that still holds a file must not keep the pod from going.
        match rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error).at("unmount", point),
        }
    }
    Ok(())
}

/// Undoes the octal escapes of mountinfo (`\040` is a space).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let octal = field.get(at + 1..at + 4).filter(|_| field[at] == b'\\');
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match value {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(field[at]);
                at += 1;
            }
        }
    }
    out
}
