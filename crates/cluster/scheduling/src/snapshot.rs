//! The cluster as one scheduling pass sees it.
//!
//! Built by the shell from its caches, and updated by it with each decision of the pass. Invariant: a pod that was
//! assigned in this pass counts on its node for the pods that come after it.

use crate::labels::Labels;
use crate::resources::{self, Resources};
use k8s_openapi::api::core::v1::{Node, Pod};
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct NodeInfo {
    pub node: Arc<Node>,
    pub pods: Vec<Arc<Pod>>,
    pub(crate) allocatable: Resources,
    pub(crate) requested: Resources,
    /// Requests with the defaults for pods that ask for nothing: CPU in thousandths, memory in bytes.
    pub(crate) weight: (i64, i64),
}

impl NodeInfo {
    pub fn new(node: Arc<Node>) -> Self {
        let allocatable = resources::allocatable(&node);
        NodeInfo { node, pods: Vec::new(), allocatable, requested: Resources::default(), weight: (0, 0) }
    }

    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn add(&mut self, pod: Arc<Pod>) {
        let requests = resources::pod_requests(&pod);
        let (cpu, memory) = resources::pod_weight(&requests);
        self.weight = (self.weight.0.saturating_add(cpu), self.weight.1.saturating_add(memory));
        self.requested.add(&requests);
        self.pods.push(pod);
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }
}

#[derive(Default)]
pub struct Snapshot {
    pub nodes: Vec<NodeInfo>,
    /// Labels of namespaces, for affinity terms that select them.
    pub namespaces: BTreeMap<String, Labels>,
}

impl Snapshot {
    /// Pods that have ended take no room.
    pub fn new(
        nodes: impl IntoIterator<Item = Arc<Node>>,
        bound: impl IntoIterator<Item = (String, Arc<Pod>)>,
    ) -> Self {
        let mut nodes: Vec<NodeInfo> = nodes.into_iter().map(NodeInfo::new).collect();
        nodes.sort_by(|a, b| a.name().cmp(b.name()));
        let mut snapshot = Snapshot { nodes, namespaces: BTreeMap::new() };
        for (node, pod) in bound {
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
            if !matches!(phase, Some("Succeeded" | "Failed")) {
                snapshot.assign(&node, pod);
            }
        }
        snapshot
    }

    pub fn assign(&mut self, node: &str, pod: Arc<Pod>) {
        if let Ok(at) = self.nodes.binary_search_by(|info| info.name().cmp(node)) {
            self.nodes[at].add(pod);
        }
    }
}
