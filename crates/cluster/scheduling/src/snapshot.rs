//! The cluster as the scheduler sees it, changed with every event and every decision.
//!
//! Kept by the shell. Invariants: a pod stands on exactly one node or none; a pod that was assigned counts for the pods
//! that come after it; pods that have ended take no room; requests of a node are the sum over its pods.

use crate::index::{Index, Move, Namespaces};
use crate::labels::Labels;
use crate::resources::{self, Resources};
use crate::volumes::{self, Volumes};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use std::collections::HashMap;
use std::sync::Arc;

/// A pod that was promised the room that its victims leave.
pub(crate) struct Nominee {
    pub(crate) uid: String,
    pub(crate) priority: i32,
    pub(crate) requests: Resources,
}

pub struct NodeInfo {
    pub node: Arc<Node>,
    pub pods: Vec<Arc<Pod>>,
    pub(crate) allocatable: Resources,
    pub(crate) room_for_pods: usize,
    pub(crate) requested: Resources,
    /// Requests with the defaults for pods that ask for nothing: CPU in thousandths, memory in bytes.
    pub(crate) weight: (i64, i64),
    pub(crate) images: HashMap<String, i64>,
    pub(crate) nominees: Vec<Nominee>,
}

impl NodeInfo {
    fn new(node: Arc<Node>) -> Self {
        let mut info = NodeInfo {
            node: node.clone(),
            pods: Vec::new(),
            allocatable: Resources::default(),
            room_for_pods: 0,
            requested: Resources::default(),
            weight: (0, 0),
            images: HashMap::new(),
            nominees: Vec::new(),
        };
        info.set_node(node);
        info
    }

    fn set_node(&mut self, node: Arc<Node>) {
        self.allocatable = resources::allocatable(&node);
        self.room_for_pods = usize::try_from(self.allocatable.get("pods")).unwrap_or(0);
        let images = node.status.as_ref().and_then(|s| s.images.as_ref()).into_iter().flatten();
        let named = images.flat_map(|i| i.names.iter().flatten().map(|n| (n.clone(), i.size_bytes.unwrap_or(0))));
        self.images = named.collect();
        self.node = node;
    }

    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    fn weigh(&mut self, pod: &Pod, step: Move) {
        let requests = resources::pod_requests(pod);
        let (cpu, memory) = resources::pod_weight(&requests);
        let sign = if step == Move::Join { 1 } else { -1 };
        self.weight.0 = self.weight.0.saturating_add(sign * cpu);
        self.weight.1 = self.weight.1.saturating_add(sign * memory);
        match step {
            Move::Join => self.requested.add(&requests),
            Move::Leave => self.requested.subtract(&requests),
        }
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }
}

#[derive(Default)]
pub struct Snapshot {
    pub nodes: Vec<NodeInfo>,
    by_name: HashMap<String, usize>,
    /// Where each pod stands, by uid.
    placed: HashMap<String, (String, Arc<Pod>)>,
    /// Pods of nodes that are not known (yet).
    homeless: HashMap<String, Vec<Arc<Pod>>>,
    /// Labels of namespaces, for affinity terms that select them.
    pub namespaces: Namespaces,
    pub volumes: Volumes,
    pub budgets: Vec<Arc<PodDisruptionBudget>>,
    pub(crate) index: Index,
    /// On how many nodes an image is.
    pub(crate) images: HashMap<String, usize>,
    /// Where the next search begins, so that all nodes get their turn.
    pub(crate) cursor: usize,
    /// How many running pods use a claim, by namespace and name.
    claims: HashMap<String, usize>,
}

fn uid(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    meta.uid.clone().unwrap_or_else(|| format!("{}/{}", text(&meta.namespace), text(&meta.name)))
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

impl Snapshot {
    pub fn new(
        nodes: impl IntoIterator<Item = Arc<Node>>,
        bound: impl IntoIterator<Item = (String, Arc<Pod>)>,
    ) -> Self {
        let mut snapshot = Snapshot::default();
        let mut infos: Vec<NodeInfo> = nodes.into_iter().map(NodeInfo::new).collect();
        infos.sort_by(|a, b| a.name().cmp(b.name()));
        snapshot.nodes = infos;
        snapshot.renumber();
        for (node, pod) in bound {
            snapshot.assign(&node, pod);
        }
        snapshot
    }

    fn renumber(&mut self) {
        self.by_name = self.nodes.iter().enumerate().map(|(at, info)| (info.name().to_owned(), at)).collect();
        self.images.clear();
        for name in self.nodes.iter().flat_map(|info| info.images.keys()) {
            *self.images.entry(name.clone()).or_default() += 1;
        }
        self.index.rebuild(&self.nodes, &self.namespaces);
    }

    /// A node is new or changed. Many at once: `set_nodes`.
    pub fn set_node(&mut self, node: Arc<Node>) {
        self.set_nodes([node]);
    }

    pub fn set_nodes(&mut self, nodes: impl IntoIterator<Item = Arc<Node>>) {
        let (mut renumber, mut newcomers) = (false, Vec::new());
        for node in nodes {
            let name = node.metadata.name.clone().unwrap_or_default();
            match self.by_name.get(&name) {
                Some(at) => {
                    let info = &mut self.nodes[*at];
                    renumber |= info.node.metadata.labels != node.metadata.labels;
                    info.set_node(node);
                }
                None => {
                    self.by_name.insert(name.clone(), self.nodes.len());
                    self.nodes.push(NodeInfo::new(node));
                    newcomers.extend(self.homeless.remove(&name).into_iter().flatten().map(|pod| (name.clone(), pod)));
                    renumber = true;
                }
            }
        }
        if renumber {
            self.nodes.sort_by(|a, b| a.name().cmp(b.name()));
            self.renumber();
        }
        for (name, pod) in newcomers {
            self.placed.remove(&uid(&pod));
            self.assign(&name, pod);
        }
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.by_name.get(name).copied() else { return };
        let info = self.nodes.remove(at);
        self.homeless.entry(name.to_owned()).or_default().extend(info.pods);
        self.renumber();
    }

    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        let changed = match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels.clone()).as_ref() != Some(&labels),
            None => self.namespaces.remove(name).is_some(),
        };
        if changed {
            self.index.rebuild(&self.nodes, &self.namespaces);
        }
    }

    /// The pod stands on the node from now on, as it is here.
    pub fn assign(&mut self, node: &str, pod: Arc<Pod>) {
        let uid = uid(&pod);
        if let Some((old, same)) = self.placed.get(&uid)
            && old == node
            && is_alike(same, &pod)
        {
            return;
        }
        self.remove(&pod);
        if has_ended(&pod) {
            return;
        }
        self.drop_nominee(&uid);
        for claim in volumes::keys(&pod) {
            *self.claims.entry(claim).or_default() += 1;
        }
        self.placed.insert(uid, (node.to_owned(), pod.clone()));
        match self.by_name.get(node).copied() {
            Some(at) => self.join(at, pod),
            None => self.homeless.entry(node.to_owned()).or_default().push(pod),
        }
    }

    pub(crate) fn join(&mut self, at: usize, pod: Arc<Pod>) {
        self.index.moved(&pod, at, self.nodes.len(), &self.namespaces, Move::Join);
        self.nodes[at].weigh(&pod, Move::Join);
        self.nodes[at].pods.push(pod);
    }

    pub(crate) fn leave(&mut self, at: usize, uid_of: &str) -> Option<Arc<Pod>> {
        let place = self.nodes[at].pods.iter().position(|p| uid(p) == uid_of)?;
        let pod = self.nodes[at].pods.swap_remove(place);
        self.nodes[at].weigh(&pod, Move::Leave);
        self.index.moved(&pod, at, self.nodes.len(), &self.namespaces, Move::Leave);
        Some(pod)
    }

    /// The pod is gone, or has no node any longer.
    pub fn remove(&mut self, pod: &Pod) {
        let uid_of = uid(pod);
        self.drop_nominee(&uid_of);
        let Some((node, pod)) = self.placed.remove(&uid_of) else { return };
        for claim in volumes::keys(&pod) {
            if let Some(count) = self.claims.get_mut(&claim) {
                *count = count.saturating_sub(1);
            }
        }
        match self.by_name.get(&node).copied() {
            Some(at) => {
                self.leave(at, &uid_of);
            }
            None => {
                if let Some(pods) = self.homeless.get_mut(&node) {
                    pods.retain(|p| uid(p) != uid_of);
                }
            }
        }
    }

    pub fn is_placed(&self, pod: &Pod) -> bool {
        self.placed.contains_key(&uid(pod))
    }

    /// The pod was promised room on the node: pods that count for less do not take it.
    pub fn nominate(&mut self, node: &str, pod: &Pod) {
        let uid = uid(pod);
        self.drop_nominee(&uid);
        if let Some(at) = self.by_name.get(node) {
            let requests = resources::pod_requests(pod);
            self.nodes[*at].nominees.push(Nominee { uid, priority: crate::priority(pod), requests });
        }
    }

    fn drop_nominee(&mut self, uid: &str) {
        for info in self.nodes.iter_mut().filter(|info| !info.nominees.is_empty()) {
            info.nominees.retain(|n| n.uid != uid);
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn users_of(&self, claim: &str) -> usize {
        self.claims.get(claim).copied().unwrap_or(0)
    }

    pub(crate) fn uid_of(pod: &Pod) -> String {
        uid(pod)
    }
}

/// Nothing changed that the snapshot has counted.
fn is_alike(old: &Pod, new: &Pod) -> bool {
    has_ended(old) == has_ended(new)
        && old.metadata.labels == new.metadata.labels
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
        && old.spec == new.spec
}
