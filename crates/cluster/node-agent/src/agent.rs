//! The node agent: registers the node and gives every pod bound to it a worker.
//!
//! The binary starts one with [`NodeAgent::start`]; dropping the last handle, or [`NodeAgent::shutdown`], stops
//! its tasks and leaves every container running. Invariants: one worker a pod UID; sandboxes whose pod
//! the API server no longer has are given a worker as well, so nothing is orphaned.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cri::{Cri, Streaming, v1};
use futures_util::StreamExt;
use k8s_openapi::{
    api::core::v1::{Pod, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_client::{
    Client,
    informer::{Cache, Change, Scope},
    recorder::{EventRecorder, Severity, reference},
};
use pod_plan::{EventKind, NodeFacts, PodEvent, Presence};
use tokio::task::JoinSet;

use crate::{
    drain::Drain,
    error::Result,
    labels,
    machine::Machine,
    node,
    references::{Held, References},
    sandbox_config::ClusterDns,
    worker::{self, Mailbox},
};

/// Everything that the agent is given.
#[derive(Clone)]
pub struct NodeAgentConfig {
    /// Name of the node: the host name, lowercased.
    pub node_name: String,
    /// Addresses of the node, the primary one first.
    pub node_ips: Vec<String>,
    /// State directory; `pods/` and `logs/pods/` below it are the agent's.
    pub root: PathBuf,
    /// Path below every cgroup hierarchy, without a leading slash.
    pub cgroup_parent: String,
    /// The pods' addresses on this node.
    pub pod_cidr: String,
    /// Address of the cluster's DNS server; without one pods use the node's resolver.
    pub cluster_dns: Option<String>,
    /// For example `cluster.local`.
    pub cluster_domain: String,
    /// The node's resolver file.
    pub host_resolv_conf: PathBuf,
    /// The API server.
    pub client: Client,
    /// The container runtime.
    pub cri: Arc<dyn Cri>,
    /// Its streams.
    pub streaming: Arc<dyn Streaming>,
    /// Knows when a leaving pod gets no new connections.
    pub drain: Arc<dyn Drain>,
}

/// The node as its own agent knows it.
pub(crate) struct ThisNode {
    pub(crate) facts: NodeFacts,
    pub(crate) machine: Machine,
    pub(crate) runtime_version: String,
}

/// What all tasks of the agent share.
pub(crate) struct Shared {
    pub(crate) config: NodeAgentConfig,
    pub(crate) node: ThisNode,
    pub(crate) dns: ClusterDns,
    pub(crate) pods: Cache<Pod>,
    pub(crate) services: Cache<Service>,
    references: Arc<References>,
    recorder: EventRecorder,
}

impl Shared {
    pub(crate) fn tell(&self, pod: &Pod, event: &PodEvent) {
        let mut about = reference(pod);
        about.field_path = event.container.as_ref().map(|name| field_path(pod, name));
        let severity = match event.kind {
            EventKind::Normal => Severity::Normal,
            EventKind::Warning => Severity::Warning,
        };
        self.recorder.event(&about, severity, event.reason, event.message.clone());
    }

    pub(crate) fn pre_stop_failed(&self, pod: &Pod, container: &str, why: &str) {
        let text = format!("PreStopHook failed: {why}");
        let event = PodEvent::of_container(EventKind::Warning, "FailedPreStopHook", text, container);
        self.tell(pod, &event);
    }
}

fn field_path(pod: &Pod, container: &str) -> String {
    let spec = pod.spec.as_ref();
    let mut inits = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let mut ephemeral = spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    let list = if inits.any(|one| one.name == container) {
        "initContainers"
    } else if ephemeral.any(|one| one.name == container) {
        "ephemeralContainers"
    } else {
        "containers"
    };
    format!("spec.{list}{{{container}}}")
}

/// A running agent. Clones share it.
#[derive(Clone)]
pub struct NodeAgent {
    pub(crate) shared: Arc<Shared>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl NodeAgent {
    /// Starts the agent's tasks; returns once the runtime has answered. The node registers in the background.
    pub async fn start(config: NodeAgentConfig) -> Result<Self> {
        let version = config.cri.version().await?;
        let node = ThisNode {
            facts: NodeFacts {
                name: config.node_name.clone(),
                host_ips: config.node_ips.clone(),
                runtime_scheme: version.runtime_name.clone(),
            },
            machine: Machine::observe(&config.root),
            runtime_version: format!("{}://{}", version.runtime_name, version.runtime_version),
        };
        let scope = Scope { fields: Some(format!("spec.nodeName={}", config.node_name)), ..Scope::default() };
        let shared = Arc::new(Shared {
            pods: Cache::start(&config.client, scope),
            services: Cache::start(&config.client, Scope::default()),
            references: Arc::new(References::new(config.client.clone())),
            recorder: EventRecorder::new(&config.client, "kubelet", &config.node_name),
            dns: ClusterDns { server: config.cluster_dns.clone(), domain: config.cluster_domain.clone() },
            node,
            config,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(node::keep(shared.clone()));
        tasks.spawn(dispatch(shared.clone()));
        Ok(Self { shared, tasks: Arc::new(Mutex::new(tasks)) })
    }

    /// Stops the agent's tasks. Containers run on.
    pub fn shutdown(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

struct Entry {
    mailbox: Arc<Mailbox>,
    held: Arc<Held>,
}

/// All workers, by pod UID.
struct Workers {
    shared: Arc<Shared>,
    by_uid: HashMap<String, Entry>,
    tasks: JoinSet<String>,
}

impl Workers {
    fn tell(&mut self, pod: Arc<Pod>, presence: Presence) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if let Some(entry) = self.by_uid.get(&uid) {
            match presence {
                Presence::Known => entry.mailbox.pod(pod),
                Presence::Gone => entry.mailbox.gone(),
            }
            return;
        }
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let held = Arc::new(Held::new(self.shared.references.clone(), namespace));
        let mailbox = Arc::new(Mailbox::new(pod, presence));
        let entry = Entry { mailbox: mailbox.clone(), held: held.clone() };
        self.by_uid.insert(uid.clone(), entry);
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            worker::run(shared, uid.clone(), mailbox, held).await;
            uid
        });
    }

    fn change(&mut self, change: Change<Pod>) {
        match change {
            Change::Applied { old, new } => {
                if let Some(old) = old.filter(|old| old.metadata.uid != new.metadata.uid) {
                    self.tell(old, Presence::Gone);
                }
                self.tell(new, Presence::Known);
            }
            Change::Deleted { last } => self.tell(last, Presence::Gone),
        }
    }

    fn wake(&self, uid: Option<&str>) {
        match uid {
            Some(uid) => {
                if let Some(entry) = self.by_uid.get(uid) {
                    entry.mailbox.wake();
                }
            }
            None => self.by_uid.values().for_each(|entry| entry.mailbox.wake()),
        }
    }

    /// Sandboxes whose pod is gone from the API.
    async fn orphans(&mut self) -> Result<()> {
        for sandbox in self.shared.config.cri.list_pod_sandbox(None).await? {
            let label = |name: &str| sandbox.labels.get(name).cloned();
            let Some(uid) = label(labels::POD_UID).filter(|uid| !self.by_uid.contains_key(uid)) else {
                continue;
            };
            let pod = Pod {
                metadata: ObjectMeta {
                    uid: Some(uid),
                    name: label(labels::POD_NAME),
                    namespace: label(labels::POD_NAMESPACE),
                    ..ObjectMeta::default()
                },
                ..Pod::default()
            };
            self.tell(Arc::new(pod), Presence::Gone);
        }
        Ok(())
    }
}

async fn dispatch(shared: Arc<Shared>) {
    let mut workers = Workers { shared: shared.clone(), by_uid: HashMap::new(), tasks: JoinSet::new() };
    // Subscribed before anything is read, so that no exit falls in between.
    let mut events = subscribe(&shared).await;
    let mut references = shared.references.changes();
    shared.pods.synced().await;
    shared.services.synced().await;
    let mut changes = shared.pods.changes();
    for pod in shared.pods.list() {
        workers.tell(pod, Presence::Known);
    }
    if let Err(error) = workers.orphans().await {
        tracing::warn!(%error, "sandboxes not listed");
    }
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(change) => workers.change(change),
                None => return,
            },
            event = events.next() => match event {
                Some(Ok(event)) => workers.wake(labels::pod_of(&event).as_deref()),
                Some(Err(_)) | None => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    events = subscribe(&shared).await;
                    workers.wake(None);
                }
            },
            changed = references.recv() => for entry in workers.by_uid.values() {
                // After an overflow nobody knows whose objects changed, so everybody looks.
                if changed.as_ref().map_or(true, |key| entry.held.concerns(key)) {
                    entry.mailbox.references_changed();
                }
            },
            Some(done) = workers.tasks.join_next() => if let Ok(uid) = done {
                workers.by_uid.remove(&uid);
            },
        }
    }
}

/// Events of the runtime, tried until it answers.
async fn subscribe(
    shared: &Shared,
) -> futures_util::stream::BoxStream<'static, cri::Result<v1::ContainerEventResponse>> {
    loop {
        match shared.config.cri.events().await {
            Ok(events) => return events,
            Err(error) => {
                tracing::warn!(%error, "no container events");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
