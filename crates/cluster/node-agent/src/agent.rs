//! The node agent: registers the node and gives every pod bound to it a worker.
//!
//! The binary starts one with [`NodeAgent::start`]; dropping the last handle, or [`NodeAgent::shutdown`], stops
//! its tasks and leaves every container running. Invariants: one worker a pod UID; sandboxes whose pod
//! the API server no longer has are given a worker as well, so nothing is orphaned.

use std::{
    collections::{BTreeMap, HashMap},
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
use pod_plan::{EventKind, NodeFacts, PodEvent, Presence, Room};
use tokio::task::JoinSet;

use crate::{
    clean_up::ImageUse,
    drain::Drain,
    error::Result,
    labels,
    machine::Machine,
    meter::Meter,
    node,
    pressure::Pressure,
    references::{Held, References},
    resources,
    sandbox_config::ClusterDns,
    static_pods::{self, StaticPods},
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
    pub(crate) meter: Meter,
    pub(crate) pressure: Pressure,
    pub(crate) images: ImageUse,
    /// When the agent started.
    pub(crate) started: jiff::Timestamp,
    mailboxes: Mutex<HashMap<String, Arc<Mailbox>>>,
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

    /// Tells a pod's worker that the pod is to go.
    pub(crate) fn evict(&self, pod: &Pod, message: String) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let mailbox = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned();
        if let Some(mailbox) = mailbox.filter(|mailbox| mailbox.evict(&message)) {
            tracing::warn!(pod = %pod.metadata.name.as_deref().unwrap_or_default(), message, "evicting a pod");
            self.tell(&mailbox.current(), &PodEvent::of_pod(EventKind::Warning, "Evicted", message));
        }
    }

    /// What the node has for one pod: all that it gives to pods, less what the others ask for.
    pub(crate) fn room(&self, uid: &str) -> Room {
        let others = self.pods.list();
        let others = others.iter().filter(|pod| pod.metadata.uid.as_deref() != Some(uid)).filter(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            !matches!(phase, Some("Succeeded" | "Failed"))
        });
        let (mut used_millicpu, mut used_memory_bytes) = (0, 0);
        for pod in others {
            used_millicpu += resources::request_of(pod, "cpu");
            used_memory_bytes += resources::request_of(pod, "memory") / 1000;
        }
        let (capacity_millicpu, capacity_memory_bytes) = node::allocatable(self);
        Room { capacity_millicpu, capacity_memory_bytes, used_millicpu, used_memory_bytes }
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
            meter: Meter::default(),
            pressure: Pressure::default(),
            images: ImageUse::default(),
            started: jiff::Timestamp::now(),
            mailboxes: Mutex::default(),
            dns: ClusterDns { server: config.cluster_dns.clone(), domain: config.cluster_domain.clone() },
            node,
            config,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(node::keep(shared.clone()));
        tasks.spawn(dispatch(shared.clone()));
        tasks.spawn(crate::housekeeping::keep(shared.clone()));
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
    /// Pods of the node's own folder, by UID.
    statics: BTreeMap<String, Arc<Pod>>,
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
        let mut mailboxes = self.shared.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        mailboxes.insert(uid.clone(), mailbox.clone());
        drop(mailboxes);
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            Box::pin(worker::run(shared, uid.clone(), mailbox, held)).await;
            uid
        });
    }

    /// Takes over what the folder says now.
    fn read_statics(&mut self, folder: &StaticPods) {
        let now = folder.read();
        let before = std::mem::replace(&mut self.statics, now.clone());
        for (uid, pod) in before {
            if !now.contains_key(&uid) {
                self.tell(pod.clone(), Presence::Gone);
                let namespace = pod.metadata.namespace.clone().unwrap_or_default();
                let name = pod.metadata.name.clone().unwrap_or_default();
                if let Some(mirror) = self.shared.pods.get(&namespace, &name) {
                    self.mirror(&mirror);
                }
            }
        }
        for (uid, pod) in now {
            if !self.by_uid.contains_key(&uid) {
                self.tell(pod, Presence::Known);
            }
        }
    }

    /// A mirror that is being deleted, or that no folder asks for, goes; its static pod's worker makes a new one.
    fn mirror(&self, pod: &Arc<Pod>) {
        let wanted = static_pods::mirrored(pod).is_some_and(|uid| self.statics.contains_key(uid));
        if static_pods::mirrored(pod).is_some() && (!wanted || pod.metadata.deletion_timestamp.is_some()) {
            let (client, pod) = (self.shared.config.client.clone(), pod.clone());
            tokio::spawn(async move {
                if let Err(error) = static_pods::remove(&client, &pod).await {
                    tracing::warn!(%error, "a static pod's mirror is not removed");
                }
            });
        }
    }

    fn change(&mut self, change: Change<Pod>) {
        let (Change::Applied { new: pod, .. } | Change::Deleted { last: pod }) = &change;
        if let Some(uid) = static_pods::mirrored(pod) {
            match &change {
                Change::Applied { new, .. } => self.mirror(new),
                Change::Deleted { .. } => self.wake(Some(uid)),
            }
            return;
        }
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
    let mut workers =
        Workers { shared: shared.clone(), by_uid: HashMap::new(), tasks: JoinSet::new(), statics: BTreeMap::new() };
    let folder = StaticPods::open(shared.config.root.join("manifests"), &shared.node.facts.name);
    let folder = folder.inspect_err(|error| tracing::warn!(%error, "no static pods")).ok();
    // Subscribed before anything is read, so that no exit falls in between.
    let mut events = subscribe(&shared).await;
    let mut references = shared.references.changes();
    shared.pods.synced().await;
    shared.services.synced().await;
    let mut changes = shared.pods.changes();
    if let Some(folder) = &folder {
        workers.read_statics(folder);
    }
    for pod in shared.pods.list() {
        if static_pods::mirrored(&pod).is_some() {
            workers.mirror(&pod);
        } else {
            workers.tell(pod, Presence::Known);
        }
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
            () = folder_changed(folder.as_ref()) => if let Some(folder) = &folder {
                workers.read_statics(folder);
            },
            changed = references.recv() => for entry in workers.by_uid.values() {
                // After an overflow nobody knows whose objects changed, so everybody looks.
                if changed.as_ref().map_or(true, |key| entry.held.concerns(key)) {
                    entry.mailbox.references_changed();
                }
            },
            Some(done) = workers.tasks.join_next() => if let Ok(uid) = done {
                workers.by_uid.remove(&uid);
                shared.mailboxes.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
            },
        }
    }
}

async fn folder_changed(folder: Option<&StaticPods>) {
    match folder {
        Some(folder) => folder.changed().await,
        None => std::future::pending().await,
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
