//! Directory trees that a build reads from and writes to, by descriptor: nothing resolves outside its root.
//!
//! Serves the context, the stages that COPY --from reads, and the build root itself. Every path is resolved by the
//! kernel below the root (`openat2`, RESOLVE_IN_ROOT), so a symlink can only lead to another place inside.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, mkdirat, openat, openat2,
    readlinkat, statat,
};
use sha2::{Digest, Sha256};

use crate::glob;

/// Entries that one COPY may touch; a tree beyond it is refused rather than walked for ever.
const MAX_ENTRIES: usize = 2_000_000;
/// Depth of folders that one COPY follows.
const MAX_DEPTH: usize = 512;

/// A tree that nothing escapes.
pub(crate) struct Root {
    fd: OwnedFd,
}

/// A source of COPY, found in its tree.
pub(crate) struct Found {
    /// Relative to the root, no leading slash; the name in the tree, not where a symlink leads.
    pub path: PathBuf,
    pub is_dir: bool,
}

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd })
    }

    /// Opens what a path leads to, following symlinks inside the root.
    pub(crate) fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        Ok(openat2(
            &self.fd,
            relative,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )?)
    }

    /// The folder at `path`, made with what is missing above it (mode 0755, owner as given). A link that leads to nothing is
    /// followed to where its end belongs inside the root, and that is made.
    pub(crate) fn make_dirs(&self, path: &Path, owner: (u32, u32)) -> io::Result<OwnedFd> {
        let mut todo: VecDeque<OsString> = names_of(path).collect();
        let mut done = PathBuf::from(".");
        let mut links = 0;
        let mut dir = self.resolve(&done, OFlags::DIRECTORY | OFlags::RDONLY)?;
        while let Some(name) = todo.pop_front() {
            let here = done.join(&name);
            match self.resolve(&here, OFlags::DIRECTORY | OFlags::RDONLY) {
                Ok(next) => (dir, done) = (next, here),
                Err(error) if error.kind() == io::ErrorKind::NotFound => match readlinkat(&dir, &name, Vec::new()) {
                    Ok(_) if links == MAX_LINKS => return Err(rustix::io::Errno::LOOP.into()),
                    Ok(target) => {
                        links += 1;
                        let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                        if target.is_absolute() {
                            done = PathBuf::from(".");
                            dir = self.resolve(&done, OFlags::DIRECTORY | OFlags::RDONLY)?;
                        }
                        names_of(target).collect::<Vec<_>>().into_iter().rev().for_each(|name| todo.push_front(name));
                    }
                    Err(_) => (dir, done) = (make_dir(&dir, &name, owner)?, here),
                },
                Err(error) => return Err(error),
            }
        }
        Ok(dir)
    }

    /// Reads a small text file; `None` where there is none.
    pub(crate) fn read_small(&self, path: &str, limit_bytes: u64) -> io::Result<Option<String>> {
        let text = |bytes| String::from_utf8(bytes).map_err(|_| io::Error::other("it is not text in UTF-8"));
        self.read_bytes(path, limit_bytes)?.map(text).transpose()
    }

    /// Reads a small file; `None` where there is none.
    pub(crate) fn read_bytes(&self, path: &str, limit_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        match self.resolve(Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => {
                let mut bytes = Vec::new();
                std::fs::File::from(fd).take(limit_bytes).read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finds a source, expanding patterns. Empty where nothing matches.
    pub(crate) fn find(&self, source: &str) -> io::Result<Vec<Found>> {
        let clean = normalise(source);
        if !glob::is_pattern(source) {
            return match self.stat_followed(&clean) {
                Ok(stat) => Ok(vec![Found { is_dir: is_dir(&stat), path: clean }]),
                Err(error) if matches!(error.raw_os_error(), Some(libc_enoent) if libc_enoent == rustix::io::Errno::NOENT.raw_os_error() || libc_enoent == rustix::io::Errno::NOTDIR.raw_os_error()) => {
                    Ok(Vec::new())
                }
                Err(error) => Err(error),
            };
        }
        let pattern = clean.to_string_lossy().into_owned();
        let mut found = Vec::new();
        let mut budget = MAX_ENTRIES;
        self.walk(Path::new(""), 0, &mut budget, &mut |path, stat| {
            if glob::path_match(&pattern, &path.to_string_lossy()) {
                let is_dir =
                    is_dir(stat) || self.stat_followed(path).is_ok_and(|followed| crate::context::is_dir(&followed));
                found.push(Found { path: path.to_owned(), is_dir });
            }
            Ok(())
        })?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Feeds a source's names, kinds, modes and bytes to a hash: the part of a cache key that a COPY's content is.
    pub(crate) fn hash(&self, source: &Found, excluded: &dyn Fn(&Path) -> bool, hash: &mut Sha256) -> io::Result<()> {
        let mut budget = MAX_ENTRIES;
        if !source.is_dir {
            let stat = self.stat_followed(&source.path)?;
            return self.hash_entry(
                &source.path,
                Path::new(source.path.file_name().unwrap_or_default()),
                &stat,
                true,
                hash,
            );
        }
        let mut entries: Vec<(PathBuf, Stat)> = Vec::new();
        self.walk(&source.path, 0, &mut budget, &mut |path, stat| {
            entries.push((path.to_owned(), *stat));
            Ok(())
        })?;
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, stat) in entries {
            let inside = path.strip_prefix(&source.path).unwrap_or(&path).to_owned();
            if !excluded(&inside) {
                self.hash_entry(&path, &inside, &stat, false, hash)?;
            }
        }
        Ok(())
    }

    fn hash_entry(&self, path: &Path, shown: &Path, stat: &Stat, follow: bool, hash: &mut Sha256) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let name = shown.as_os_str().as_bytes();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(stat.st_mode.to_le_bytes());
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = if follow { OFlags::RDONLY } else { OFlags::RDONLY | OFlags::NOFOLLOW };
                let mut file = std::fs::File::from(self.resolve(path, flags | OFlags::NONBLOCK)?);
                hash.update((stat.st_size as u64).to_le_bytes());
                io::copy(&mut file, &mut HashWriter(hash))?;
            }
            FileType::Symlink => {
                let parent = self.resolve(path.parent().unwrap_or(Path::new("")), OFlags::PATH | OFlags::DIRECTORY)?;
                let target = readlinkat(&parent, path.file_name().unwrap_or_default(), Vec::new())?;
                hash.update(target.as_bytes());
            }
            _ => {}
        }
        Ok(())
    }

    /// Sets the times of everything that is younger than `epoch`, the root's own too.
    pub(crate) fn age(&self, epoch: jiff::Timestamp) -> io::Result<()> {
        let time = Timespec { tv_sec: epoch.as_second(), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        let mut budget = MAX_ENTRIES;
        let mut young = Vec::new();
        self.walk(Path::new(""), 0, &mut budget, &mut |path, stat| {
            if stat.st_mtime > time.tv_sec || (stat.st_mtime == time.tv_sec && stat.st_mtime_nsec > 0) {
                young.push(path.to_owned());
            }
            Ok(())
        })?;
        for path in young {
            let parent = self.resolve(path.parent().unwrap_or(Path::new("")), OFlags::PATH | OFlags::DIRECTORY)?;
            let name = path.file_name().unwrap_or_default();
            rustix::fs::utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let root = self.resolve(Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(rustix::fs::futimens(&root, &times)?)
    }

    /// Removes the files that a predicate names, and folders that it names once they are empty.
    pub(crate) fn remove_where(&self, gone: &dyn Fn(&Path) -> bool) -> io::Result<()> {
        let mut budget = MAX_ENTRIES;
        let mut doomed: Vec<(PathBuf, bool)> = Vec::new();
        self.walk(Path::new(""), 0, &mut budget, &mut |path, stat| {
            if gone(path) {
                doomed.push((path.to_owned(), is_dir(stat)));
            }
            Ok(())
        })?;
        // Content before its folder.
        for (path, is_dir) in doomed.iter().rev() {
            let parent = self.resolve(path.parent().unwrap_or(Path::new("")), OFlags::PATH | OFlags::DIRECTORY)?;
            let flags = if *is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            match rustix::fs::unlinkat(&parent, path.file_name().unwrap_or_default(), flags) {
                Ok(()) | Err(rustix::io::Errno::NOTEMPTY) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn stat_followed(&self, path: &Path) -> io::Result<Stat> {
        let fd = self.resolve(path, OFlags::PATH)?;
        Ok(statat(&fd, "", AtFlags::EMPTY_PATH)?)
    }

    /// Every entry below `below` (not itself), without following symlinks.
    fn walk(
        &self,
        below: &Path,
        depth: usize,
        budget: &mut usize,
        visit: &mut dyn FnMut(&Path, &Stat) -> io::Result<()>,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("folders are nested too deeply"));
        }
        let dir = self.resolve(below, OFlags::DIRECTORY | OFlags::RDONLY)?;
        for name in names(&dir)? {
            *budget = budget.checked_sub(1).ok_or_else(|| io::Error::other("too many files"))?;
            let stat = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let path = below.join(&name);
            visit(&path, &stat)?;
            if is_dir(&stat) {
                self.walk(&path, depth + 1, budget, visit)?;
            }
        }
        Ok(())
    }
}

/// As many links as the kernel follows in one path.
const MAX_LINKS: u32 = 40;

/// The parts of a path that say where to go.
fn names_of(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

fn make_dir(parent: &OwnedFd, name: &OsStr, owner: (u32, u32)) -> io::Result<OwnedFd> {
    mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let made = openat(parent, name, flags, Mode::empty())?;
    // The umask must not decide what an image holds.
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    crate::copy::set_owner(&made, owner)?;
    Ok(made)
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The names in a folder, sorted, without `.` and `..`.
pub(crate) fn names(dir: impl AsFd) -> io::Result<Vec<std::ffi::OsString>> {
    use std::os::unix::ffi::OsStringExt;
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

pub(crate) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// A path without `.`, `..` and leading slashes; `..` never climbs over the root.
pub(crate) fn normalise(path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}
