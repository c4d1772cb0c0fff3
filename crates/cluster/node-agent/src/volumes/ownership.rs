//! Who owns a volume's files: `fsGroup`.
//!
//! Invariant: symbolic links are never followed, so a volume cannot lead the agent out of itself.

use std::{os::unix::fs::PermissionsExt, path::Path};

use crate::error::{AtPath, Result};

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).at("set mode of", path)
}

/// Gives a tree to a group: readable and writable by it, and new files inherit it.
pub(super) fn give_to_group(path: &Path, group: u32) -> Result<()> {
    let metadata = std::fs::symlink_metadata(path).at("stat", path)?;
    std::os::unix::fs::lchown(path, None, Some(group)).at("change group of", path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode();
    if !metadata.is_dir() {
        return set_mode(path, mode | 0o660 & widened(mode));
    }
    set_mode(path, mode | 0o2770)?;
    for entry in std::fs::read_dir(path).at("list", path)? {
        give_to_group(&entry.at("list", path)?.path(), group)?;
    }
    Ok(())
}

/// The group gets what the owner has, so that a read-only secret stays read-only.
fn widened(mode: u32) -> u32 {
    (mode & 0o700) | ((mode & 0o700) >> 3)
}
