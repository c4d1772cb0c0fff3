//! Network namespaces: made in a thread of their own, kept alive by a descriptor or by a pin (bind mount) on a path.
//!
//! Called by `networking` (and by tests). Invariant: the calling thread's namespace never changes; whoever needs to be
//! inside one gets a short-lived thread there ([`Namespace::run`]).

use crate::netlink::Error;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A descriptor of a network namespace; the namespace lives as long as it, a pin or a process does.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Namespace {
    /// A new, empty namespace, and what `prepare` made while inside it.
    pub fn create<T: Send>(prepare: impl FnOnce() -> Result<T, Error> + Send) -> Result<(Self, T), Error> {
        in_thread(|| {
            // SAFETY: only the network namespace of this thread is unshared; no memory or descriptor table is affected.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(|errno| Error::Socket { attempt: "unshare the network namespace", errno })?;
            let namespace = Self::open(Path::new("/proc/thread-self/ns/net"))?;
            Ok((namespace, prepare()?))
        })
    }

    pub fn open(path: &Path) -> Result<Self, Error> {
        File::open(path).map(|file| Self(file.into())).map_err(io("open namespace", path))
    }

    /// Runs `work` inside the namespace, in a thread that ends with it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        in_thread(|| {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|errno| Error::Socket { attempt: "enter namespace", errno })?;
            Ok(work())
        })
    }

    /// Keeps the namespace alive under `path`, which must not exist yet.
    pub fn pin(&self, path: &Path) -> Result<(), Error> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io("create", path))?;
        let source = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        mount_bind(source.as_str(), path).map_err(|errno| {
            let _ = fs::remove_file(path);
            io("pin namespace at", path)(errno.into())
        })
    }
}

/// True if `path` is a namespace's pin and not the file that a crash left behind.
pub fn is_pinned(path: &Path) -> bool {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(NSFS_MAGIC))
}

/// Removes a pin; idempotent. The namespace ends with its last process.
pub fn unpin(path: &Path) -> Result<(), Error> {
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(io("unmount", path)(errno.into())),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes `directory` a mount of its own that shares nothing, so that pins do not spread into the mount namespaces of others
/// (a copy there would keep a namespace alive).
pub fn prepare_pin_directory(directory: &Path) -> Result<(), Error> {
    let failed = |errno: rustix::io::Errno| io("make private mount of", directory)(errno.into());
    if mount_change(directory, MountPropagationFlags::PRIVATE).is_ok() {
        return Ok(());
    }
    mount_bind(directory, directory).map_err(failed)?;
    mount_change(directory, MountPropagationFlags::PRIVATE).map_err(failed)
}

/// Takes back what [`prepare_pin_directory`] did; idempotent.
pub fn release_pin_directory(directory: &Path) -> Result<(), Error> {
    match unmount(directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(io("unmount", directory)(errno.into())),
    }
}

/// Writes below `/proc/sys` of the calling thread's namespace; `name` has slashes (`net/ipv4/ip_forward`).
pub fn write_sysctl(name: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(name);
    fs::write(&path, value).map_err(io("write", &path))
}

fn io<'a>(attempt: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |source| Error::Io { attempt, path: path.to_owned(), source }
}

fn in_thread<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work).map_err(Error::Thread)?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
