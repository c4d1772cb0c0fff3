//! What the node throws away by itself: images that nothing uses, logs of pods that are gone.
//!
//! Housekeeping calls it. Invariants: an image that was made here is never thrown away (no registry has it), nor one that a
//! container uses or that came only just now; logs outlive their pod by an hour, unless the disk is short.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use cri::v1;
use tokio::time::Instant;

use crate::{agent::Shared, labels, pull, readings};

/// Images go when less than this is free (of a small disk: less than a tenth) …
const LOW_BYTES: u64 = 2 << 30;
/// … until twice as much is. Kubernetes' 85 % of a large disk would take images away that their owner wants to keep.
const ENOUGH: u64 = 2;
const MIN_IMAGE_AGE: Duration = Duration::from_secs(120);
const KEEP_LOGS: Duration = Duration::from_secs(3600);

/// When each image was last seen in use, or first seen at all.
#[derive(Debug, Default)]
pub(crate) struct ImageUse(Mutex<BTreeMap<String, Instant>>);

impl ImageUse {
    /// Notes what is there and what is used; returns how long each unused one has been so.
    fn note(&self, present: &[v1::Image], used: &BTreeSet<String>) -> BTreeMap<String, Duration> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|id, _| present.iter().any(|image| image.id == *id));
        let now = Instant::now();
        let mut unused = BTreeMap::new();
        for image in present {
            let at = seen.entry(image.id.clone()).or_insert(now);
            if used.contains(&image.id) {
                *at = now;
            } else {
                unused.insert(image.id.clone(), now.duration_since(*at));
            }
        }
        unused
    }
}

/// The images that may go, the longest unused first.
fn removable(images: Vec<v1::Image>, unused: &BTreeMap<String, Duration>) -> Vec<v1::Image> {
    let idle = |image: &v1::Image| unused.get(&image.id).copied().filter(|idle| *idle >= MIN_IMAGE_AGE);
    let mut out: Vec<v1::Image> =
        images.into_iter().filter(|image| !image.pinned && !pull::is_local(image) && idle(image).is_some()).collect();
    out.sort_by_key(|image| std::cmp::Reverse(idle(image)));
    out
}

async fn unused_images(shared: &Shared) -> Vec<v1::Image> {
    let cri = &shared.config.cri;
    let (Ok(images), Ok(containers)) = (cri.list_images().await, cri.list_containers(None).await) else {
        return Vec::new();
    };
    let used = containers.into_iter().flat_map(|one| [one.image_ref, one.image_id]).collect();
    let unused = shared.images.note(&images, &used);
    removable(images, &unused)
}

/// Whether less is free than `times` the mark.
fn is_full(root: &Path, times: u64) -> bool {
    let fs = readings::file_system(root);
    fs.is_some_and(|fs| fs.available_bytes < times * LOW_BYTES.min(fs.capacity_bytes / 10))
}

/// Removes unused images when the disk is nearly full, until it is not.
pub(crate) async fn images(shared: &Shared) {
    let unused = unused_images(shared).await;
    if !is_full(&shared.config.root, 1) {
        return;
    }
    for image in unused {
        if !is_full(&shared.config.root, ENOUGH) {
            return;
        }
        remove(shared, &image).await;
    }
}

/// By every name: an image that goes by its identifier alone may have others left.
async fn remove(shared: &Shared, image: &v1::Image) -> bool {
    let names: Vec<&String> = image.repo_tags.iter().chain(&image.repo_digests).collect();
    let names = if names.is_empty() { vec![&image.id] } else { names };
    let mut removed = false;
    for name in names {
        let spec = v1::ImageSpec { image: name.clone(), ..Default::default() };
        match shared.config.cri.remove_image(&spec).await {
            Ok(()) => removed = true,
            // The engine knows users that CRI does not show, such as a container of Docker's.
            Err(error) => tracing::debug!(image = %name, %error, "image not removed"),
        }
    }
    if removed {
        tracing::info!(image = %image.id, size_bytes = image.size, "unused image removed");
    }
    removed
}

/// The disk is short: everything goes that nobody uses. True when something went.
pub(crate) async fn make_room(shared: &Shared) -> bool {
    let mut made = logs(shared, Duration::ZERO).await;
    for image in unused_images(shared).await {
        made |= remove(shared, &image).await;
    }
    made
}

/// Removes the log folders of pods that are gone for longer than `keep`. True when something went.
pub(crate) async fn logs(shared: &Shared, keep: Duration) -> bool {
    let Ok(sandboxes) = shared.config.cri.list_pod_sandbox(None).await else { return false };
    let mut alive: BTreeSet<String> = shared.pods.list().iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
    alive.extend(sandboxes.into_iter().filter_map(|one| one.labels.get(labels::POD_UID).cloned()));
    let dir = shared.config.root.join("logs/pods");
    tokio::task::spawn_blocking(move || remove_logs(&dir, &alive, keep)).await.unwrap_or(false)
}

pub(crate) async fn old_logs(shared: &Shared) {
    logs(shared, KEEP_LOGS).await;
}

fn remove_logs(dir: &Path, alive: &BTreeSet<String>, keep: Duration) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    let mut removed = false;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // `namespace_name_uid`; none of the three has an underscore.
        let uid = name.rsplit('_').next().unwrap_or_default();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir && !alive.contains(uid) && newest(&entry.path()).is_some_and(|age| age >= keep) {
            match std::fs::remove_dir_all(entry.path()) {
                Ok(()) => removed = true,
                Err(error) => tracing::warn!(path = %entry.path().display(), %error, "old logs not removed"),
            }
        }
    }
    removed
}

/// How long ago something was last written below a directory.
fn newest(dir: &Path) -> Option<Duration> {
    let changed = |path: &Path| std::fs::symlink_metadata(path).and_then(|file| file.modified()).ok();
    let mut times: Vec<SystemTime> = changed(dir).into_iter().collect();
    let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
    for container in entries(dir) {
        times.extend(changed(&container.path()));
        if container.file_type().is_ok_and(|kind| kind.is_dir()) {
            times.extend(entries(&container.path()).filter_map(|log| changed(&log.path())));
        }
    }
    // A time in the future (the clock was set back) counts as now.
    Some(times.into_iter().max()?.elapsed().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_go_with_time_but_not_those_of_pods_that_are_here() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["default_gone_u1", "default_here_u2"] {
            std::fs::create_dir_all(dir.path().join(name).join("c")).unwrap();
            std::fs::write(dir.path().join(name).join("c/0.log"), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("default_link_u3")).unwrap();
        let alive = BTreeSet::from(["u2".to_owned()]);
        assert!(!remove_logs(dir.path(), &alive, Duration::from_secs(60)), "they are kept for a while");
        assert!(remove_logs(dir.path(), &alive, Duration::ZERO));
        assert!(!dir.path().join("default_gone_u1").exists());
        assert!(dir.path().join("default_here_u2/c/0.log").exists());
        assert!(Path::new("/etc/passwd").exists());
    }

    #[tokio::test(start_paused = true)]
    async fn only_pulled_images_that_were_unused_for_a_while_may_go() {
        let image = |id: &str| v1::Image { id: id.to_owned(), ..Default::default() };
        let mut local = image("local");
        let annotations = [("gantry.dev/origin".to_owned(), "local".to_owned())].into();
        local.spec = Some(v1::ImageSpec { annotations, ..Default::default() });
        let images = vec![image("old"), image("used"), local, v1::Image { pinned: true, ..image("pinned") }];
        let used = BTreeSet::from(["used".to_owned()]);
        let seen = ImageUse::default();
        seen.note(&images, &used);
        tokio::time::advance(MIN_IMAGE_AGE).await;
        let with_new: Vec<_> = images.iter().cloned().chain([image("new")]).collect();
        let unused = seen.note(&with_new, &used);
        let left: Vec<String> = removable(with_new, &unused).into_iter().map(|image| image.id).collect();
        assert_eq!(left, ["old"]);
    }
}
