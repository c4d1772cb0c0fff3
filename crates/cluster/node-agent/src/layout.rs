//! Where the agent keeps what belongs to a pod.
//!
//! Invariant: everything of a pod lies below `<root>/pods/<uid>` (removed with it) and
//! `<root>/logs/pods/<namespace>_<name>_<uid>`; names from the API are checked before they become paths.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

/// Paths of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodPaths {
    /// Everything but the logs.
    pub(crate) dir: PathBuf,
    /// Logs of its containers.
    pub(crate) logs: PathBuf,
}

/// A name that is one path component and nothing more.
fn component(name: &str) -> &str {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if plain { name } else { "invalid" }
}

impl PodPaths {
    pub(crate) fn new(root: &Path, pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        let uid = component(metadata.uid.as_deref().unwrap_or_default());
        let namespace = component(metadata.namespace.as_deref().unwrap_or_default());
        let name = component(metadata.name.as_deref().unwrap_or_default());
        Self {
            dir: root.join("pods").join(uid),
            logs: root.join("logs/pods").join(format!("{namespace}_{name}_{uid}")),
        }
    }

    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.dir.join("volumes").join(component(name))
    }

    pub(crate) fn etc_hosts(&self) -> PathBuf {
        self.dir.join("etc-hosts")
    }

    pub(crate) fn termination_log(&self, container: &str, attempt: u32) -> PathBuf {
        let dir = self.dir.join("containers").join(component(container));
        dir.join(attempt.to_string())
    }

    pub(crate) fn sub_path(&self, container: &str, index: usize) -> PathBuf {
        let dir = self.dir.join("subpaths").join(component(container));
        dir.join(index.to_string())
    }

    /// Relative to `logs`, as CRI wants it.
    pub(crate) fn log_file(container: &str, attempt: u32) -> String {
        format!("{}/{attempt}.log", component(container))
    }
}
