//! Volumes that a claim stands for: PersistentVolumeClaim → PersistentVolume → a directory of this node.
//!
//! Called when a pod's volumes are prepared. Local directories are what is mounted here: `hostPath` and `local` volumes, and
//! with them everything that a provisioner of local volumes makes. The directory is bound below the pod's own, so the
//! pod's end takes the mount away and never the data. Invariants: a claim is used only when it and its volume name each
//! other, an ephemeral claim only by the pod that it was made for.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube_client::Client;

use super::{host_path, mounts, ownership};
use crate::error::{AgentError, AtPath, Result};

/// The name of the claim that a volume stands for, and whether the pod's own.
pub(super) fn claim_name(pod: &Pod, volume: &Volume) -> Option<(String, bool)> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some((claim.claim_name.clone(), false));
    }
    volume.ephemeral.as_ref()?;
    Some((format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name), true))
}

fn refuse<T>(text: String) -> Result<T> {
    Err(AgentError::Config(text))
}

/// The volume behind a claim, once both agree on it.
async fn volume_of(client: &Client, pod: &Pod, name: &str, own: bool) -> Result<PersistentVolume> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let claims = client.api::<PersistentVolumeClaim>().namespace(namespace);
    let Some(claim) = claims.get_opt(name).await? else {
        return refuse(format!("persistentvolumeclaim \"{name}\" not found"));
    };
    let owners = claim.metadata.owner_references.iter().flatten();
    if own && !owners.into_iter().any(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref()) {
        return refuse(format!("PVC {name} was not created for pod (pod is not owner)"));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return refuse(format!("can't start pod because PVC {name} is being deleted"));
    }
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|name| bound && !name.is_empty());
    let Some(volume) = volume else {
        return refuse(format!("PVC {name} is not bound"));
    };
    let Some(found) = client.api::<PersistentVolume>().get_opt(&volume).await? else {
        return refuse(format!("persistentvolume \"{volume}\" not found"));
    };
    let claimed_by = found.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()).and_then(|claim| claim.uid.as_ref());
    if claimed_by != claim.metadata.uid.as_ref() {
        return refuse(format!("PV {volume} is not bound to PVC {name}"));
    }
    Ok(found)
}

/// The directory on this node, made when it is below the node's own state and missing.
fn directory(volume: &PersistentVolume, root: &Path) -> Result<PathBuf> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let spec = volume.spec.as_ref();
    if let Some(host) = spec.and_then(|spec| spec.host_path.as_ref()) {
        host_path::ensure(host)?;
        return Ok(PathBuf::from(&host.path));
    }
    let Some(local) = spec.and_then(|spec| spec.local.as_ref()) else {
        return refuse(format!("PV {name} is of a kind that this node does not mount: only hostPath and local are"));
    };
    let path = PathBuf::from(&local.path);
    if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
        return refuse(format!("PV {name}: local path {} is not usable", local.path));
    }
    if !path.exists() && path.starts_with(root) {
        std::fs::create_dir_all(&path).at("create", &path)?;
        ownership::set_mode(&path, 0o777)?;
    }
    if !path.exists() {
        return refuse(format!("path \"{}\" does not exist", local.path));
    }
    Ok(path)
}

/// Binds the claimed directory to the pod's place for the volume. Idempotent.
pub(super) async fn mount(
    client: &Client,
    pod: &Pod,
    (name, own): (&str, bool),
    target: &Path,
    root: &Path,
    group: Option<u32>,
) -> Result<()> {
    let volume = volume_of(client, pod, name, own).await?;
    let source = directory(&volume, root)?;
    let is_dir = source.metadata().at("stat", &source)?.is_dir();
    if std::fs::symlink_metadata(target).is_err() {
        if is_dir {
            std::fs::create_dir_all(target).at("create", target)?;
        } else {
            std::fs::create_dir_all(target.parent().unwrap_or(target)).at("create", target)?;
            std::fs::File::create(target).at("create", target)?;
        }
    }
    if mounts::is_mounted(target)? {
        return Ok(());
    }
    rustix::mount::mount_bind_recursive(&source, target).at("bind a claimed volume on", target)?;
    // As in Kubernetes, the files of a hostPath keep their owner whatever the pod's group.
    let is_local = volume.spec.as_ref().is_some_and(|spec| spec.local.is_some());
    match group {
        Some(group) if is_local && is_dir => ownership::give_to_group(target, group),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(source: serde_json::Value) -> PersistentVolume {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "pv"}, "spec": source})).unwrap()
    }

    #[test]
    fn directories_are_made_below_the_root_and_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("storage/one");
        let local = |path: &Path| volume(serde_json::json!({"local": {"path": path}}));
        assert_eq!(directory(&local(&inside), root.path()).unwrap(), inside);
        assert!(inside.is_dir());
        let outside = root.path().with_extension("elsewhere");
        let error = directory(&local(&outside), root.path()).unwrap_err().to_string();
        assert_eq!(error, format!("path \"{}\" does not exist", outside.display()));
        assert!(directory(&local(&root.path().join("../up")), root.path()).is_err());
        let error = directory(&volume(serde_json::json!({"nfs": {"path": "/", "server": "x"}})), root.path()).unwrap_err();
        assert!(error.to_string().contains("only hostPath and local are"), "{error}");
    }

    #[test]
    fn an_ephemeral_volumes_claim_is_named_after_pod_and_volume() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"name": "web"}})).unwrap();
        let volume = |value| serde_json::from_value::<Volume>(value).unwrap();
        let ephemeral = volume(serde_json::json!({"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}));
        assert_eq!(claim_name(&pod, &ephemeral), Some(("web-data".to_owned(), true)));
        let claim = volume(serde_json::json!({"name": "data", "persistentVolumeClaim": {"claimName": "mine"}}));
        assert_eq!(claim_name(&pod, &claim), Some(("mine".to_owned(), false)));
        assert_eq!(claim_name(&pod, &volume(serde_json::json!({"name": "data", "emptyDir": {}}))), None);
    }
}
