//! The volumes of a pod: made before its containers, kept up to date, taken away with it.
//!
//! Called by the actions of a pod's worker. Invariant: preparing twice is preparing once, so an agent that was
//! killed goes on where it stopped; emptied data is never lost by it. Kinds that need a driver
//! (CSI, NFS) are refused with a clear message.

mod atomic;
mod claims;
mod content;
mod host_path;
mod mounts;
mod ownership;
mod sub_path;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};
use pod_plan::quantity;

pub(crate) use content::{Sources, Tokens};
pub(crate) use sub_path::bind as bind_sub_path;

use crate::{
    error::{AgentError, AtPath, Result},
    layout::PodPaths,
};

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

/// The host path that a volume is mounted from.
pub(crate) fn source(volume: &Volume, paths: &PodPaths) -> PathBuf {
    match &volume.host_path {
        Some(host) => PathBuf::from(&host.path),
        None => paths.volume(&volume.name),
    }
}

/// Makes every volume of the pod. Returns when its projected contents are to be renewed, if ever.
pub(crate) async fn prepare(pod: &Pod, paths: &PodPaths, sources: &Sources<'_>) -> Result<Option<Timestamp>> {
    let mut renew_at: Option<Timestamp> = None;
    for volume in volumes(pod) {
        let renew = prepare_one(pod, volume, paths, sources).await.map_err(|error| {
            AgentError::Config(format!("MountVolume.SetUp failed for volume {:?} : {error}", volume.name))
        })?;
        renew_at = [renew_at, renew].into_iter().flatten().min();
    }
    Ok(renew_at)
}

async fn prepare_one(
    pod: &Pod,
    volume: &Volume,
    paths: &PodPaths,
    sources: &Sources<'_>,
) -> Result<Option<Timestamp>> {
    let dir = paths.volume(&volume.name);
    if let Some(host) = &volume.host_path {
        host_path::ensure(host)?;
    } else if let Some(empty) = &volume.empty_dir {
        empty_dir(empty, &dir, fs_group(pod))?;
    } else if content::is_projected(volume) {
        let rendered = content::render(pod, volume, sources).await?;
        if make_private(&dir)? {
            mounts::tmpfs(&dir, None, 0o755)?;
        }
        atomic::write(&dir, &rendered.files, fs_group(pod))?;
        return Ok(rendered.renew_at);
    } else if let Some((name, own)) = claims::claim_name(pod, volume) {
        claims::mount(sources.client, pod, (&name, own), &dir, sources.root, fs_group(pod)).await?;
    } else {
        return Err(AgentError::Config("this node does not offer volumes of that kind".to_owned()));
    }
    Ok(None)
}

/// Renders projected volumes again; what did not change is not touched.
pub(crate) async fn refresh(pod: &Pod, paths: &PodPaths, sources: &Sources<'_>) -> Result<Option<Timestamp>> {
    let mut renew_at: Option<Timestamp> = None;
    for volume in volumes(pod).filter(|one| content::is_projected(one)) {
        let dir = paths.volume(&volume.name);
        if !dir.exists() {
            continue;
        }
        let rendered = content::render(pod, volume, sources).await?;
        atomic::write(&dir, &rendered.files, fs_group(pod))?;
        renew_at = [renew_at, rendered.renew_at].into_iter().flatten().min();
    }
    Ok(renew_at)
}

/// Unmounts and deletes all that the pod has on this node but its logs, which stay for a while.
pub(crate) fn remove(paths: &PodPaths) -> Result<()> {
    mounts::unmount_below(&paths.dir)?;
    // A mount that is still there may hold somebody's data: nothing is deleted through it.
    if mounts::any_below(&paths.dir)? {
        let text = format!("something is still mounted below {}", paths.dir.display());
        return Err(AgentError::Config(text));
    }
    match std::fs::remove_dir_all(&paths.dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).at("remove", &paths.dir),
    }
}

/// Makes the directory; true when there is nothing mounted on it yet.
fn make_private(dir: &Path) -> Result<bool> {
    std::fs::create_dir_all(dir).at("create", dir)?;
    Ok(!mounts::is_mount_point(dir)?)
}

fn empty_dir(spec: &EmptyDirVolumeSource, dir: &Path, group: Option<u32>) -> Result<()> {
    let existed = dir.exists();
    let unmounted = make_private(dir)?;
    let in_memory = spec.medium.as_deref() == Some("Memory");
    if in_memory && unmounted {
        let limit = spec.size_limit.as_ref().and_then(quantity::units);
        mounts::tmpfs(dir, limit, 0o777)?;
    } else if !existed {
        ownership::set_mode(dir, 0o777)?;
    }
    if let (Some(group), true) = (group, !existed || (in_memory && unmounted)) {
        ownership::give_to_group(dir, group)?;
    }
    Ok(())
}
