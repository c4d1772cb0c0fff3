//! Starting our own binary again in a way that no container can reach the file on disk (CVE-2019-5736).
//!
//! A process that forks container inits is visible as `/proc/<pid>/exe` to whoever shares its pid namespace for an instant.
//! It therefore runs from a read-only copy of the mount that holds the binary, or, where that cannot be made, from a sealed copy in memory.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::mount;

/// Whether this process runs from one of the two already: its binary's mount is read-only, or the file is sealed.
pub fn is_protected() -> bool {
    let path = "/proc/self/exe";
    let on_read_only_mount =
        rustix::fs::statvfs(path).is_ok_and(|system| system.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    on_read_only_mount
        || File::open(path)
            .ok()
            .and_then(|file| rustix::fs::fcntl_get_seals(&file).ok())
            .is_some_and(|seals| seals.contains(SealFlags::WRITE))
}

/// A descriptor of this process's binary that cannot be opened for writing through any `/proc` link.
#[derive(Debug)]
pub struct ProtectedExe {
    file: OwnedFd,
}

impl ProtectedExe {
    pub fn open() -> io::Result<Self> {
        let file = match read_only_mount() {
            Ok(file) => file,
            Err(_) => sealed_copy()?,
        };
        Ok(Self { file })
    }

    /// To be executed while `self` lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

fn read_only_mount() -> io::Result<OwnedFd> {
    let copy = mount::copy_of(Path::new("/proc/self/exe"), false)?;
    mount::set_attributes(&copy, mount::Change { set: mount::attr::READ_ONLY, ..Default::default() })?;
    Ok(copy)
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let copy = memfd_create("gantry", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut to = File::from(copy.try_clone()?);
    io::copy(&mut File::open("/proc/self/exe")?, &mut to)?;
    fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_form_can_be_opened_for_writing() {
        for file in [read_only_mount().unwrap(), sealed_copy().unwrap()] {
            let exe = ProtectedExe { file };
            let opened = std::fs::OpenOptions::new().write(true).open(exe.path());
            let written = opened.and_then(|mut file| io::Write::write(&mut file, b"x"));
            assert!(written.is_err());
        }
    }
}
