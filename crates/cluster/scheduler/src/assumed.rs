//! Pods that were given a node and whose binding has not been seen yet.

use k8s_openapi::api::core::v1::Pod;
use std::collections::HashMap;

/// Node by pod uid.
#[derive(Default)]
pub(crate) struct Assumed(HashMap<String, String>);

impl Assumed {
    pub(crate) fn add(&mut self, pod: &Pod, node: &str) {
        if let Some(uid) = pod.metadata.uid.clone() {
            self.0.insert(uid, node.to_owned());
        }
    }

    pub(crate) fn node(&self, pod: &Pod) -> Option<String> {
        self.0.get(pod.metadata.uid.as_deref()?).cloned()
    }

    pub(crate) fn contains(&self, uid: Option<&str>) -> bool {
        uid.is_some_and(|uid| self.0.contains_key(uid))
    }

    pub(crate) fn forget(&mut self, uid: Option<&str>) {
        if let Some(uid) = uid {
            self.0.remove(uid);
        }
    }
}
