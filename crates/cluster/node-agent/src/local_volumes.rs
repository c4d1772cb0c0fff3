//! The directories behind the built-in provisioner's volumes: made when a volume for this node appears, removed when it
//! goes.
//!
//! Spawned by the wiring beside the node agent, with a client that may write volumes. Invariants: only directories
//! directly below the given root are touched, and only for volumes that carry our finalizer and name this node; the
//! finalizer goes after the directory is gone. It never follows a link out of the root: the name is one plain component.

use k8s_openapi::api::core::v1::PersistentVolume;
use kube_client::informer::{Cache, Change, Scope};
use kube_client::{Client, ClientError, PatchKind};
use serde_json::json;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FINALIZER: &str = "gantry.dev/local-volume";
const PROTECTION: &str = "kubernetes.io/pv-protection";
const RETRY: Duration = Duration::from_secs(5);

/// Runs until the client's server is gone; the caller cancels it.
pub async fn run(client: Client, host: String, root: PathBuf) {
    let volumes: Cache<PersistentVolume> = Cache::start(&client, Scope::default());
    let mut changes = volumes.changes();
    while let Some(change) = changes.next().await {
        let Change::Applied { new: volume, .. } = change else { continue };
        let Some(path) = directory(&volume, &host, &root) else { continue };
        loop {
            match settle(&client, &volume, path.clone()).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a local volume is not as it should be");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Directory(#[from] io::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The volume's directory, if it is one of ours on this node.
fn directory(volume: &PersistentVolume, host: &str, root: &Path) -> Option<PathBuf> {
    if !volume.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER) {
        return None;
    }
    let spec = volume.spec.as_ref()?;
    let required = spec.node_affinity.as_ref()?.required.as_ref()?;
    let mut requirements = required.node_selector_terms.iter().flat_map(|t| t.match_expressions.iter().flatten());
    let here = requirements.any(|r| r.values.iter().flatten().any(|v| v == host));
    let path = PathBuf::from(&spec.host_path.as_ref()?.path);
    let name = volume.metadata.name.as_deref()?;
    (here && path == root.join(name) && !name.contains('/') && name != "..").then_some(path)
}

async fn settle(client: &Client, volume: &PersistentVolume, path: PathBuf) -> Result<(), Failed> {
    if volume.metadata.deletion_timestamp.is_none() {
        tokio::task::spawn_blocking(move || make(&path)).await.map_err(io::Error::other)??;
        return Ok(());
    }
    let mut left = volume.metadata.finalizers.clone().unwrap_or_default();
    // While a claim has it, the protection stands, and so does the directory.
    if left.iter().any(|f| f == PROTECTION) {
        return Ok(());
    }
    tokio::task::spawn_blocking(move || remove(&path)).await.map_err(io::Error::other)??;
    left.retain(|f| f != FINALIZER);
    let patch = json!({"metadata": {"uid": volume.metadata.uid, "finalizers": left}});
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    match client.api::<PersistentVolume>().patch(name, PatchKind::Merge, &patch).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Open to every user, as the volumes of such provisioners are: pods run as anybody.
fn make(path: &Path) -> io::Result<()> {
    match std::fs::create_dir_all(path) {
        Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn volume(name: &str, host: &str, path: &str) -> PersistentVolume {
        let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]});
        serde_json::from_value(json!({"metadata": {"name": name, "finalizers": [FINALIZER]}, "spec": {
            "hostPath": {"path": path}, "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}}))
        .unwrap()
    }

    #[test]
    fn only_directories_of_our_own_volumes_on_this_node_are_touched() {
        let root = Path::new("/r");
        assert_eq!(directory(&volume("pvc-1", "me", "/r/pvc-1"), "me", root), Some("/r/pvc-1".into()));
        assert_eq!(directory(&volume("pvc-1", "other", "/r/pvc-1"), "me", root), None);
        assert_eq!(directory(&volume("pvc-1", "me", "/etc"), "me", root), None, "a path of somebody's choice");
        assert_eq!(directory(&volume("..", "me", "/r/.."), "me", root), None);
        let mut foreign = volume("pvc-1", "me", "/r/pvc-1");
        foreign.metadata.finalizers = None;
        assert_eq!(directory(&foreign, "me", root), None);
    }

    #[test]
    fn a_directory_is_made_once_and_removed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pvc-1");
        make(&path).unwrap();
        std::fs::write(path.join("data"), "x").unwrap();
        make(&path).unwrap();
        assert!(path.join("data").exists());
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
