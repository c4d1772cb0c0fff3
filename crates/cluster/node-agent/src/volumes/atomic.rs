//! Projected files that change all at once.
//!
//! Kubernetes' scheme: the files live in a dated directory, `..data` is a symbolic link to it, and what the
//! container sees are links through `..data`. Invariant: a reader sees either all old or all new files; a
//! payload that did not change is not written. The swap is one rename.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use crate::error::{AgentError, AtPath, Result};

use super::ownership;

/// Contents and mode of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileContent {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
}

/// Relative path → content.
pub(crate) type Files = BTreeMap<String, FileContent>;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes the directory show exactly these files.
pub(crate) fn write(dir: &Path, files: &Files, group: Option<u32>) -> Result<()> {
    for path in files.keys() {
        check(path)?;
    }
    let current = std::fs::read_link(dir.join(DATA)).ok();
    if current.as_ref().is_some_and(|old| is_same(&dir.join(old), files)) {
        return Ok(());
    }
    let name = fresh_name(dir)?;
    let fresh = dir.join(&name);
    write_files(&fresh, files, group)?;
    let staged = dir.join(NEW_DATA);
    let _ = std::fs::remove_file(&staged);
    std::os::unix::fs::symlink(&name, &staged).at("link", &staged)?;
    let data = dir.join(DATA);
    std::fs::rename(&staged, &data).at("replace", &data)?;
    link_visible(dir, files)?;
    if let Some(old) = current {
        let old = dir.join(old);
        std::fs::remove_dir_all(&old).at("remove", &old)?;
    }
    Ok(())
}

fn check(path: &str) -> Result<()> {
    let plain = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(name) if !name.as_encoded_bytes().contains(&0)));
    if path.is_empty() || path.starts_with("..") || !plain {
        return Err(AgentError::Config(format!("invalid path in a volume: {path:?}")));
    }
    Ok(())
}

fn is_same(dir: &Path, files: &Files) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let mut found = BTreeSet::new();
    if list(dir, Path::new(""), &mut found).is_err() || found.len() != files.len() {
        return false;
    }
    files.iter().all(|(path, file)| {
        let full = dir.join(path);
        // Not `==` on the mode: fsGroup adds bits to it.
        let mode = std::fs::metadata(&full).map(|m| m.permissions().mode() & 0o777);
        found.contains(Path::new(path))
            && mode.is_ok_and(|mode| mode & file.mode == file.mode)
            && std::fs::read(&full).is_ok_and(|bytes| bytes == file.bytes)
    })
}

fn list(root: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

fn fresh_name(dir: &Path) -> Result<String> {
    let now = jiff::Zoned::now();
    loop {
        let name = format!("..{}.{}", now.strftime("%Y_%m_%d_%H_%M_%S"), rand::random::<u32>());
        let path = dir.join(&name);
        match std::fs::create_dir(&path) {
            Ok(()) => {
                ownership::set_mode(&path, 0o755)?;
                return Ok(name);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).at("create", &path),
        }
    }
}

fn write_files(dir: &Path, files: &Files, group: Option<u32>) -> Result<()> {
    for (path, file) in files {
        let full = dir.join(path);
        if let Some(parent) = full.parent() {
            std::fs::create_dir_all(parent).at("create", parent)?;
        }
        std::fs::write(&full, &file.bytes).at("write", &full)?;
        ownership::set_mode(&full, file.mode)?;
    }
    match group {
        Some(group) => ownership::give_to_group(dir, group),
        None => Ok(()),
    }
}

/// Links for what is new, and none for what is gone.
fn link_visible(dir: &Path, files: &Files) -> Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = dir.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(Path::new(DATA).join(name), &link).at("link", &link)?;
        }
    }
    for entry in std::fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if is_link && !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            std::fs::remove_file(entry.path()).at("remove", &entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        pairs
            .iter()
            .map(|(path, text)| {
                let bytes = text.as_bytes().to_vec();
                ((*path).to_owned(), FileContent { bytes, mode: 0o644 })
            })
            .collect()
    }

    #[test]
    fn a_projected_volume_changes_in_one_swap_and_drops_what_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("sub/b")).unwrap(), "2");
        let before = std::fs::read_link(dir.path().join(DATA)).unwrap();
        write(dir.path(), &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
        assert_eq!(std::fs::read_link(dir.path().join(DATA)).unwrap(), before);
        write(dir.path(), &files(&[("a", "3")]), None).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert!(!dir.path().join("sub").exists());
        assert!(!dir.path().join(before).exists());
    }

    #[test]
    fn paths_that_leave_the_volume_or_hide_its_links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/passwd", "a/../../x", "..data", "", "a\0b"] {
            assert!(write(dir.path(), &files(&[(path, "x")]), None).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_reader_sees_all_old_or_all_new_files_while_the_volume_changes() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "0"), ("b", "0")]), None).unwrap();
        let path = dir.path().to_owned();
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stop = done.clone();
        let reader = std::thread::spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // Both files through one resolved directory: that is what `..data` promises.
                let Ok(data) = std::fs::canonicalize(path.join(DATA)) else { continue };
                let a = std::fs::read(data.join("a"));
                let b = std::fs::read(data.join("b"));
                if let (Ok(a), Ok(b)) = (a, b) {
                    assert_eq!(a, b);
                }
            }
        });
        for round in 1..100 {
            let text = round.to_string();
            write(dir.path(), &files(&[("a", &text), ("b", &text)]), None).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        reader.join().unwrap();
    }
}
