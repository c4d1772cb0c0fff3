//! Directory trees by descriptor: resolving below a root, and removing.
//!
//! The invariant behind all unpacking: a path that an archive names is only ever resolved by the kernel below the
//! layer's own root descriptor (`openat2`, `RESOLVE_IN_ROOT`), and its last component is never followed.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{At, Error, Result};

const DIR: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC).union(OFlags::RDONLY);

/// Cleans a path from an archive: no leading slash, no `.`; a `..` that would leave the root is a breakout.
pub(crate) fn clean(raw: &[u8]) -> Result<PathBuf> {
    let breakout = || Error::Breakout { path: String::from_utf8_lossy(raw).into_owned() };
    if raw.contains(&0) {
        return Err(Error::Archive("path with a null byte"));
    }
    let mut cleaned = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(raw)).components() {
        match component {
            Component::Normal(name) if name.len() > 255 => {
                return Err(Error::Archive("file name too long"));
            }
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                if !cleaned.pop() {
                    return Err(breakout());
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(cleaned)
}

/// Opens a directory of our own by its path.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, DIR | OFlags::NOFOLLOW, Mode::empty()).at("open", path)
}

/// Opens the directory `path` below `root`; symbolic links are followed inside the root only.
pub(crate) fn open_below(root: BorrowedFd<'_>, path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // EAGAIN: a rename elsewhere on the machine made the kernel unsure; it asks for another try.
    loop {
        match rustix::fs::openat2(root, path, DIR, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
}

/// The same, making the directories that are missing.
pub(crate) fn ensure_below(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    match open_below(root, path) {
        Ok(dir) => return Ok(dir),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
        Err(error) => return Err(error).at("open", path),
    }
    let mut dir = rustix::io::fcntl_dupfd_cloexec(root, 3).at("open", path)?;
    let mut so_far = PathBuf::new();
    for name in path {
        so_far.push(name);
        dir = match open_below(root, &so_far) {
            Ok(next) => next,
            Err(_) => {
                // Neither a directory nor a link to one: what stands there gives way, as in Docker.
                remove_at(dir.as_fd(), name).at("replace", &so_far)?;
                rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)).at("create directory", &so_far)?;
                rustix::fs::openat(&dir, name, DIR | OFlags::NOFOLLOW, Mode::empty()).at("open", &so_far)?
            }
        };
    }
    Ok(dir)
}

/// What stands at a name, links not followed.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &OsStr) -> std::result::Result<Option<rustix::fs::Stat>, Errno> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn kind(stat: &rustix::fs::Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Overlayfs's mark for "deleted": a character device 0/0.
pub(crate) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Removes whatever stands at a name, a directory with everything in it. Nothing is followed.
pub(crate) fn remove_at(dir: BorrowedFd<'_>, name: &OsStr) -> std::result::Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    empty_tree(dir, name)?;
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Directories open at once while removing; what lies deeper is moved to the top first.
const MAX_OPEN: usize = 64;

struct Level {
    dir: OwnedFd,
    /// Its name in the level above.
    name: Vec<u8>,
    subdirectories: Vec<Vec<u8>>,
}

/// Empties a tree without recursion: its depth is the archive's choice and must not become our stack's.
fn empty_tree(dir: BorrowedFd<'_>, name: &OsStr) -> std::result::Result<(), Errno> {
    let mut stack = vec![Level::open(dir, name.as_bytes().to_vec())?];
    let mut moved = 0u64;
    while let Some(last) = stack.last_mut() {
        let Some(child) = last.subdirectories.pop() else {
            let done = stack.pop();
            if let (Some(done), Some(above)) = (done, stack.last()) {
                rustix::fs::unlinkat(&above.dir, OsStr::from_bytes(&done.name), AtFlags::REMOVEDIR)?;
            }
            continue;
        };
        if stack.len() < MAX_OPEN {
            let level = Level::open(stack[stack.len() - 1].dir.as_fd(), child)?;
            stack.push(level);
        } else {
            moved += 1;
            let new = format!(".deep-{moved}").into_bytes();
            let (from, to) = (&stack[stack.len() - 1].dir, &stack[0].dir);
            match rustix::fs::renameat(from, OsStr::from_bytes(&child), to, OsStr::from_bytes(&new)) {
                Ok(()) => stack[0].subdirectories.push(new),
                // An archive's own name in the way: try the next one.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {
                    stack.last_mut().into_iter().for_each(|l| l.subdirectories.push(child.clone()))
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

impl Level {
    /// Opens a directory and unlinks everything in it that is not a directory.
    fn open(parent: BorrowedFd<'_>, name: Vec<u8>) -> std::result::Result<Self, Errno> {
        let dir = rustix::fs::openat(parent, OsStr::from_bytes(&name), DIR | OFlags::NOFOLLOW, Mode::empty())?;
        let mut subdirectories = Vec::new();
        let mut entries = Dir::read_from(&dir)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            match rustix::fs::unlinkat(&dir, OsStr::from_bytes(bytes), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => subdirectories.push(bytes.to_vec()),
                Err(error) => return Err(error),
            }
        }
        Ok(Self { dir, name, subdirectories })
    }
}

/// Removes a directory of our own, with everything in it; one that is gone already is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let dir = open_dir(parent)?;
    remove_at(dir.as_fd(), name).at("remove", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_those_that_leave_the_root_are_refused() {
        for (raw, expected) in [
            ("/etc/passwd", Some("etc/passwd")),
            ("./a//b/./c", Some("a/b/c")),
            ("a/../b", Some("b")),
            (".", Some("")),
            ("../x", None),
            ("a/../../x", None),
            ("/..", None),
            ("a\0b", None),
        ] {
            assert_eq!(clean(raw.as_bytes()).ok().as_deref(), expected.map(Path::new), "{raw:?}");
        }
    }

    #[test]
    fn a_very_deep_tree_is_removed_without_deep_recursion_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::write(&outside, "x").unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let mut fd = open_dir(&top).unwrap();
        for _ in 0..300 {
            rustix::fs::mkdirat(&fd, "d", Mode::RWXU).unwrap();
            rustix::fs::symlinkat(dir.path(), &fd, "link").unwrap();
            fd = rustix::fs::openat(&fd, "d", DIR, Mode::empty()).unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists() && outside.exists());
    }
}
