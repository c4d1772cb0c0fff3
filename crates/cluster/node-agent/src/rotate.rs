//! Rotation of containers' logs, as Kubernetes' kubelet names and keeps them.
//!
//! Housekeeping calls [`all`]. `0.log` becomes `0.log.<time>`, all but the newest of the old ones are compressed, and the
//! runtime opens `0.log` anew. Invariants: a path that is no plain file below the logs' folder is left alone (a pod could
//! have put a link there), and a log that the runtime did not open anew is put back.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use cri::{Cri, v1};

use crate::error::{AtPath, Result};

/// `containerLogMaxSize`.
pub(crate) const MAX_SIZE_BYTES: u64 = 10 << 20;
/// `containerLogMaxFiles`, the current one included.
pub(crate) const MAX_FILES: usize = 5;

/// Rotates what has grown too large of the containers that run.
pub(crate) async fn all(cri: &dyn Cri, logs: &Path) -> Result<()> {
    let running = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning.into() };
    let filter = v1::ContainerFilter { state: Some(running), ..Default::default() };
    for container in cri.list_containers(Some(filter)).await? {
        let Ok(status) = cri.container_status(&container.id).await else { continue };
        let path = PathBuf::from(&status.log_path);
        if !path.starts_with(logs) || !is_large(&path) {
            continue;
        }
        if let Err(error) = one(cri, &container.id, &path).await {
            tracing::warn!(container = %container.id, %error, "log not rotated");
        }
    }
    Ok(())
}

fn is_large(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() > MAX_SIZE_BYTES)
}

async fn one(cri: &dyn Cri, id: &str, path: &Path) -> Result<()> {
    let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let (owned, kept) = (path.to_owned(), MAX_FILES.saturating_sub(2));
    let tidied = tokio::task::spawn_blocking(move || tidy(&owned, kept)).await;
    if let Ok(result) = tidied {
        result?;
    }
    let aside = beside(path, &stamp);
    std::fs::rename(path, &aside).at("rename", path)?;
    if let Err(error) = cri.reopen_container_log(id).await {
        std::fs::rename(&aside, path).at("rename back", &aside)?;
        return Err(error.into());
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

/// The old ones of a log, oldest first.
fn rotated(path: &Path) -> Result<Vec<PathBuf>> {
    let dir = path.parent().unwrap_or(path);
    let prefix = beside(path, "").file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Compresses the old ones and removes the oldest, so that `kept` stay.
fn tidy(path: &Path, kept: usize) -> Result<()> {
    let mut old = Vec::new();
    for one in rotated(path)? {
        // What a crash left half-compressed is made again from its source.
        if one.extension() == Some(OsStr::new("tmp")) {
            std::fs::remove_file(&one).at("remove", &one)?;
        } else {
            old.push(one);
        }
    }
    let surplus = old.len().saturating_sub(kept);
    for one in old.drain(..surplus) {
        std::fs::remove_file(&one).at("remove", &one)?;
    }
    for one in old.iter().filter(|one| one.extension() != Some(OsStr::new("gz"))) {
        compress(one)?;
    }
    Ok(())
}

fn compress(path: &Path) -> Result<()> {
    let (part, whole) = (beside(path, "tmp"), beside(path, "gz"));
    let mut from = std::fs::File::open(path).at("open", path)?;
    let to = std::fs::File::create(&part).at("create", &part)?;
    let mut encoder = flate2::write::GzEncoder::new(to, flate2::Compression::default());
    std::io::copy(&mut from, &mut encoder).at("compress", path)?;
    encoder.finish().at("compress", path)?;
    std::fs::rename(&part, &whole).at("rename", &part)?;
    std::fs::remove_file(path).at("remove", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_logs_are_compressed_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        for name in ["0.log", "0.log.20260101-000001.gz", "0.log.20260101-000002.gz", "0.log.20260101-000003.gz", "0.log.20260101-000004", "0.log.20260101-000003.gz.tmp", "1.log.20260101-000001"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        tidy(&log, 3).unwrap();
        let mut left: Vec<String> =
            std::fs::read_dir(dir.path()).unwrap().map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["0.log", "0.log.20260101-000002.gz", "0.log.20260101-000003.gz", "0.log.20260101-000004.gz", "1.log.20260101-000001"]);
        let mut text = String::new();
        let file = std::fs::File::open(dir.path().join("0.log.20260101-000004.gz")).unwrap();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text).unwrap();
        assert_eq!(text, "0.log.20260101-000004");
    }

    #[test]
    fn a_log_that_is_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let big = dir.path().join("big");
        std::fs::File::create(&big).unwrap().set_len(MAX_SIZE_BYTES + 1).unwrap();
        let link = dir.path().join("0.log");
        std::os::unix::fs::symlink(&big, &link).unwrap();
        assert!(is_large(&big) && !is_large(&link));
    }
}
