//! Overlay mounts: what the runtime is told to mount, and mounts for the host's own access.
//!
//! The options are the same for both, because a layer that was written with directory redirects or metadata-only copies
//! could not be turned into an archive: `redirect_dir=off,metacopy=off,index=off`.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};

use crate::error::{At, Error, Result};

/// An overlay mount to be made. Without `upper` it is read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Topmost first, as overlayfs wants them; never empty.
    pub lowers: Vec<PathBuf>,
    pub upper: Option<PathBuf>,
    pub work: Option<PathBuf>,
}

impl Mount {
    /// What every mount of ours sets besides the directories.
    pub const FIXED_OPTIONS: [(&'static str, &'static str); 3] =
        [("redirect_dir", "off"), ("metacopy", "off"), ("index", "off")];

    /// The options in one line, as mount(2) and the `mount` command take them.
    pub fn options(&self) -> String {
        let join = |paths: &[PathBuf]| paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(":");
        let mut options = format!("lowerdir={}", join(&self.lowers));
        for (name, path) in [("upperdir", &self.upper), ("workdir", &self.work)] {
            if let Some(path) = path {
                options.push_str(&format!(",{name}={}", path.display()));
            }
        }
        for (name, value) in Self::FIXED_OPTIONS {
            options.push_str(&format!(",{name}={value}"));
        }
        options
    }

    /// Mounts it at `target` in this mount namespace. One option a layer: no limit of a page applies.
    fn attach(&self, target: &Path) -> Result<()> {
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).at("open overlayfs for", target)?;
        let set = |name: &str, value: &Path| -> Result<()> {
            let value =
                CString::new(value.as_os_str().as_bytes()).map_err(|_| Error::Key(value.display().to_string()))?;
            rustix::mount::fsconfig_set_string(context.as_fd(), name, value).at("set up overlay of", target)
        };
        for lower in &self.lowers {
            set("lowerdir+", lower)?;
        }
        for (name, path) in [("upperdir", &self.upper), ("workdir", &self.work)] {
            path.as_ref().map_or(Ok(()), |path| set(name, path))?;
        }
        for (name, value) in Self::FIXED_OPTIONS {
            set(name, Path::new(value))?;
        }
        rustix::mount::fsconfig_create(context.as_fd()).at("create overlay of", target)?;
        let attributes = if self.upper.is_some() { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
        // Host-side access must not be a way to run or open what an image brings.
        let attributes = attributes | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let mounted = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .at("mount overlay of", target)?;
        rustix::mount::move_mount(&mounted, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .at("attach overlay at", target)
    }
}

/// A root filesystem mounted for the host's own access; unmounted and removed when dropped.
#[derive(Debug)]
pub struct MountedDir {
    path: PathBuf,
}

impl MountedDir {
    pub(crate) fn new(mount: &Mount, path: PathBuf) -> Result<Self> {
        std::fs::create_dir(&path).at("create directory", &path)?;
        match mount.attach(&path) {
            Ok(()) => Ok(Self { path }),
            Err(error) => {
                let _ = std::fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for MountedDir {
    fn drop(&mut self) {
        if let Err(error) = detach(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "overlay not unmounted");
        }
    }
}

/// Unmounts (a user of a file inside keeps it until he closes it) and removes the mount point.
pub(crate) fn detach(path: &Path) -> Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Not a mount point: swept after a crash that came before the mount.
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(error).at("unmount", path),
    }
    std::fs::remove_dir(path).at("remove", path)
}
