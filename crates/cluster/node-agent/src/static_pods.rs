//! Static pods: manifests in a folder of the node, run whether or not the API server is there.
//!
//! The dispatcher reads them with [`StaticPods::read`] and reads again when the folder changes. Each gets a mirror in the
//! API, so that people see it; the mirror never says what runs. Invariants: a pod's UID is the hash of its manifest, so a
//! changed manifest is another pod and an unchanged one is adopted after a restart; a manifest that cannot be read
//! stops nothing but itself.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{Node, Pod, Toleration},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube_client::{Client, ClientError, DeleteOptions};
use sha2::{Digest, Sha256};
use tokio::io::unix::AsyncFd;

use crate::error::{AgentError, AtPath, Result};

pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
const HASH: &str = "kubernetes.io/config.hash";
const SOURCE: &str = "kubernetes.io/config.source";
const SEEN: &str = "kubernetes.io/config.seen";
/// A manifest larger than this is a mistake.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a String> {
    pod.metadata.annotations.as_ref()?.get(key)
}

/// The UID of the static pod that a mirror stands for.
pub(crate) fn mirrored(pod: &Pod) -> Option<&String> {
    annotation(pod, MIRROR)
}

pub(crate) fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE).is_some_and(|source| source == "file")
}

/// The folder, and the kernel's word when it changes.
pub(crate) struct StaticPods {
    dir: PathBuf,
    node: String,
    watch: AsyncFd<OwnedFd>,
}

impl StaticPods {
    /// Makes the folder if it is missing.
    #[expect(deprecated, reason = "the replacement is unsafe for types whose descriptor may change; an OwnedFd's cannot")]
    pub(crate) fn open(dir: PathBuf, node: &str) -> Result<Self> {
        use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
        std::fs::create_dir_all(&dir).at("create", &dir)?;
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).at("watch", &dir)?;
        let flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        inotify::add_watch(&fd, &dir, flags).at("watch", &dir)?;
        let watch = AsyncFd::new(fd).at("watch", &dir)?;
        Ok(Self { dir, node: node.to_owned(), watch })
    }

    /// Completes when the folder has changed since the last call.
    pub(crate) async fn changed(&self) {
        let Ok(mut guard) = self.watch.readable().await else { return std::future::pending().await };
        let mut buffer = [0_u8; 4096];
        while rustix::io::read(self.watch.get_ref(), &mut buffer).is_ok_and(|read| read > 0) {}
        guard.clear_ready();
    }

    /// The pods that the folder asks for, by UID.
    pub(crate) fn read(&self) -> BTreeMap<String, Arc<Pod>> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_manifest(path)).collect();
        paths.sort();
        let mut pods = BTreeMap::new();
        for path in paths {
            match read_one(&path, &self.node) {
                Ok((uid, pod)) => drop(pods.insert(uid, Arc::new(pod))),
                Err(error) => tracing::warn!(%error, "a static pod's manifest is left out"),
            }
        }
        pods
    }
}

fn is_manifest(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let kind = matches!(path.extension().and_then(|one| one.to_str()), Some("yaml" | "yml" | "json"));
    kind && !name.starts_with('.')
}

fn read_one(path: &Path, node: &str) -> Result<(String, Pod)> {
    let size = std::fs::metadata(path).at("stat", path)?.len();
    if size > MAX_MANIFEST_BYTES {
        return Err(AgentError::Config(format!("{}: larger than a manifest can be", path.display())));
    }
    let text = std::fs::read_to_string(path).at("read", path)?;
    pod_of(&text, path, node)
}

fn pod_of(text: &str, path: &Path, node: &str) -> Result<(String, Pod)> {
    let wrong = |why: String| AgentError::Config(format!("{}: {why}", path.display()));
    let mut pod: Pod = serde_yaml_ng::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let name = pod.metadata.name.clone().filter(|name| !name.is_empty()).ok_or_else(|| wrong("no name".to_owned()))?;
    let Some(spec) = pod.spec.as_mut().filter(|spec| !spec.containers.is_empty()) else {
        return Err(wrong("no containers".to_owned()));
    };
    spec.node_name = Some(node.to_owned());
    let everywhere =
        Toleration { effect: Some("NoExecute".to_owned()), operator: Some("Exists".to_owned()), ..Toleration::default() };
    spec.tolerations.get_or_insert_default().push(everywhere);
    let hash = Sha256::new().chain_update(node).chain_update(path.to_string_lossy().as_bytes()).chain_update(text);
    let uid: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let metadata = &mut pod.metadata;
    metadata.name = Some(format!("{name}-{node}"));
    metadata.namespace.get_or_insert_with(|| "default".to_owned());
    metadata.uid = Some(uid.clone());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(HASH.to_owned(), uid.clone());
    annotations.insert(SOURCE.to_owned(), "file".to_owned());
    annotations.insert(SEEN.to_owned(), jiff::Timestamp::now().to_string());
    pod.status = None;
    Ok((uid, pod))
}

/// The mirror of a static pod, made if it is missing or another's.
pub(crate) async fn mirror(client: &Client, pod: &Pod, node: &str) -> Result<Option<Pod>, ClientError> {
    let api = client.api::<Pod>().namespace(pod.metadata.namespace.clone().unwrap_or_default());
    let name = pod.metadata.name.clone().unwrap_or_default();
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    if let Some(found) = api.get_opt(&name).await? {
        if mirrored(&found) == Some(&uid) && found.metadata.deletion_timestamp.is_none() {
            return Ok(Some(found));
        }
        // Somebody's own pod of that name is left alone; a mirror that is out of date goes.
        if mirrored(&found).is_none() {
            return Ok(None);
        }
        remove(client, &found).await?;
    }
    let owner = client.api::<Node>().get(node).await?;
    let mut mirror = pod.clone();
    mirror.status = None;
    mirror.metadata.uid = None;
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.to_owned(), uid);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: owner.metadata.uid.unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    api.create(&mirror).await.map(Some)
}

/// Deletes a mirror; one that is gone is fine.
pub(crate) async fn remove(client: &Client, mirror: &Pod) -> Result<(), ClientError> {
    let api = client.api::<Pod>().namespace(mirror.metadata.namespace.clone().unwrap_or_default());
    let options =
        DeleteOptions { uid: mirror.metadata.uid.clone(), grace_seconds: Some(0), ..DeleteOptions::default() };
    match api.delete(mirror.metadata.name.as_deref().unwrap_or_default(), &options).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n";

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node_whose_uid_is_its_hash() {
        let path = Path::new("/m/web.yaml");
        let (uid, pod) = pod_of(WEB, path, "n1").unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-n1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        assert_eq!((pod.metadata.uid.as_ref(), uid.len()), (Some(&uid), 32));
        assert!(is_static(&pod) && mirrored(&pod).is_none());
        assert_eq!(pod_of(WEB, path, "n1").unwrap().0, uid, "the same manifest is the same pod");
        assert_ne!(pod_of(&WEB.replace("image: i", "image: j"), path, "n1").unwrap().0, uid);
        for wrong in ["", "kind: Pod", "metadata: {name: a}\nspec: {containers: []}", "[1, 2", "spec: {containers: [{name: c}]}"] {
            assert!(pod_of(wrong, path, "n1").is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_folder_is_read_again_when_it_changes_and_nonsense_in_it_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let pods = StaticPods::open(dir.path().join("manifests"), "n1").unwrap();
        assert!(pods.read().is_empty());
        std::fs::write(dir.path().join("manifests/web.yaml"), WEB).unwrap();
        std::fs::write(dir.path().join("manifests/.hidden.yaml"), WEB).unwrap();
        std::fs::write(dir.path().join("manifests/notes.txt"), WEB).unwrap();
        std::fs::write(dir.path().join("manifests/broken.yaml"), "{").unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(5), pods.changed()).await.unwrap();
        assert_eq!(pods.read().len(), 1);
        std::fs::remove_file(dir.path().join("manifests/web.yaml")).unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(5), pods.changed()).await.unwrap();
        assert!(pods.read().is_empty());
    }
}
