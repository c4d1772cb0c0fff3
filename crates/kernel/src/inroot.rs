//! Paths below a root that may be hostile: resolved by the kernel inside that root (`openat2`, `RESOLVE_IN_ROOT`).
//!
//! Used wherever a container's or an image's path is followed by a process that could see the host. Invariant: what is
//! returned is a descriptor below `root`, whatever links the path goes through and whoever swaps them meanwhile.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat},
    io::Errno,
};

/// As the kernel: more links than this in one path is a loop.
const MAX_LINKS: usize = 40;

/// What to make when a path does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    Directory,
    /// An empty file, in directories made as needed: the place for a bind mount of a file.
    File,
}

/// Opens `path` inside `root`. Magic links (`/proc/self/fd/N`) are refused.
pub fn open(root: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(open_raw(root.as_fd(), path, flags)?)
}

fn open_raw(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    loop {
        match openat2(
            root.as_fd(),
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        ) {
            // Something in the system was renamed during the walk; the kernel asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens `path` inside `root` as a bare reference (`O_PATH`); links are followed, inside.
pub fn reference(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    open(root, path, OFlags::PATH)
}

/// Opens `path` inside `root` as a bare reference; makes it, with its parents, when it does not exist.
pub fn ensure(root: impl AsFd, path: &Path, make: Make) -> io::Result<OwnedFd> {
    match open_raw(root.as_fd(), path, OFlags::PATH) {
        Err(Errno::NOENT) => make_missing(root, path, make),
        other => Ok(other?),
    }
}

/// Walks component by component, since a link whose end is missing has to be followed to where its end belongs.
fn make_missing(root: impl AsFd, path: &Path, make: Make) -> io::Result<OwnedFd> {
    let root = root.as_fd();
    let mut todo: VecDeque<OsString> = names(path).collect();
    let mut done = PathBuf::new();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            done.pop();
            continue;
        }
        let here = done.join(&name);
        let parent = open_raw(root, &done, OFlags::PATH | OFlags::DIRECTORY)?;
        match openat(&parent, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(found) if is_link(&found)? => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = readlinkat(&found, c"", Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                if target.is_absolute() {
                    done = PathBuf::new();
                }
                for name in names(target).collect::<Vec<_>>().into_iter().rev() {
                    todo.push_front(name);
                }
                continue;
            }
            Ok(_) => {}
            Err(Errno::NOENT) if todo.is_empty() && make == Make::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(&parent, &name, flags, Mode::from_raw_mode(0o644))?;
            }
            Err(Errno::NOENT) => match mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
        done = here;
    }
    Ok(open_raw(root, &done, OFlags::PATH | OFlags::NOFOLLOW)?)
}

fn is_link(file: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode).is_symlink())
}

fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

/// The root directory of the running process `pid`, to be used with the functions above (`docker cp`).
pub fn root_of(pid: i32) -> io::Result<OwnedFd> {
    let path = format!("/proc/{pid}/root");
    Ok(rustix::fs::open(path.as_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root(dir: &Path) -> OwnedFd {
        rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn links_never_lead_out_of_the_root_and_missing_ends_are_made_inside() {
        let host = tempfile::tempdir().unwrap();
        let dir = host.path().join("root");
        std::fs::create_dir_all(dir.join("etc")).unwrap();
        symlink("/outside", dir.join("absolute")).unwrap();
        symlink("../../../../outside2", dir.join("etc/relative")).unwrap();
        let fd = root(&dir);
        ensure(&fd, Path::new("/absolute/a"), Make::Directory).unwrap();
        ensure(&fd, Path::new("etc/relative/b"), Make::File).unwrap();
        assert!(dir.join("outside/a").is_dir());
        assert!(dir.join("outside2/b").is_file());
        assert!(!host.path().join("outside").exists());
        assert!(!host.path().join("outside2").exists());
    }

    #[test]
    fn a_loop_of_links_is_an_error() {
        let host = tempfile::tempdir().unwrap();
        symlink("b", host.path().join("a")).unwrap();
        symlink("a", host.path().join("b")).unwrap();
        assert!(ensure(root(host.path()), Path::new("a/x"), Make::Directory).is_err());
    }

    #[test]
    fn magic_links_are_refused() {
        let slash = root(Path::new("/"));
        assert!(reference(&slash, Path::new("/proc/self/fd/0")).is_err());
        assert!(reference(&slash, Path::new("/proc/self/root/etc")).is_err());
    }
}
