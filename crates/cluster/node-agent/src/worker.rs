//! One pod's worker: view → decide → act, until nothing of the pod is left.
//!
//! One task a pod UID, owned by the agent. Invariants: level-triggered (a wake-up means "look again", never
//! "this happened"), one status write at a time, and actions run beside each other but each once.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use pod_plan::{Action, Decision, Memory, Outcome, Presence, View, VolumeState};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use crate::{
    act::{self, Scene},
    agent::Shared,
    error::Result,
    layout::PodPaths,
    observe::{self, Observed},
    references::Held,
    static_pods, volumes,
};

/// What the agent tells a worker; the newest word counts.
pub(crate) struct Mailbox {
    state: Mutex<Mail>,
    bell: Notify,
}

#[derive(Clone)]
struct Mail {
    pod: Arc<Pod>,
    presence: Presence,
    references_changed: bool,
    evicted: Option<String>,
}

impl Mailbox {
    pub(crate) fn new(pod: Arc<Pod>, presence: Presence) -> Self {
        let state = Mail { pod, presence, references_changed: false, evicted: None };
        Self { state: Mutex::new(state), bell: Notify::new() }
    }

    fn change(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.notify_one();
    }

    pub(crate) fn pod(&self, pod: Arc<Pod>) {
        self.change(|mail| mail.pod = pod);
    }

    pub(crate) fn gone(&self) {
        self.change(|mail| mail.presence = Presence::Gone);
    }

    /// The pod is to leave the node; false when it was told already or is going anyway.
    pub(crate) fn evict(&self, message: &str) -> bool {
        let mut told = false;
        self.change(|mail| {
            let phase = mail.pod.status.as_ref().and_then(|status| status.phase.as_deref());
            let going = mail.pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed"));
            if mail.evicted.is_none() && !going {
                mail.evicted = Some(message.to_owned());
                told = true;
            }
        });
        told
    }

    pub(crate) fn wake(&self) {
        self.bell.notify_one();
    }

    pub(crate) fn references_changed(&self) {
        self.change(|mail| mail.references_changed = true);
    }

    pub(crate) fn current(&self) -> Arc<Pod> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).pod.clone()
    }

    fn take(&self) -> Mail {
        let mut mail = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = mail.clone();
        mail.references_changed = false;
        taken
    }
}

/// How long to wait after CRI or the API server failed to answer.
const RETRY: Duration = Duration::from_secs(1);

struct Worker {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    uid: String,
    paths: PodPaths,
    held: Arc<Held>,
    tokens: Arc<volumes::Tokens>,
    memory: Memory,
    running: JoinSet<(Action, Outcome)>,
    /// What was written and what the server made of it, so that a status it rewrites is not sent for ever.
    last_written: Option<(PodStatus, Option<PodStatus>)>,
    renew_at: Option<Timestamp>,
    volumes_seen: Option<Arc<Pod>>,
}

pub(crate) async fn run(shared: Arc<Shared>, uid: String, mailbox: Arc<Mailbox>, held: Arc<Held>) {
    let paths = PodPaths::new(&shared.config.root, &mailbox.current());
    let mut worker = Worker {
        shared,
        mailbox,
        uid,
        paths,
        held,
        tokens: Arc::default(),
        memory: Memory::default(),
        running: JoinSet::new(),
        last_written: None,
        renew_at: None,
        volumes_seen: None,
    };
    while !worker.pass_and_wait().await {}
}

impl Worker {
    /// One pass; true when the pod is finished with.
    async fn pass_and_wait(&mut self) -> bool {
        let wake_at = match self.pass().await {
            Ok(None) => return true,
            Ok(Some(wake_at)) => wake_at,
            Err(error) => {
                tracing::warn!(pod.uid = %self.uid, %error, "pass over a pod failed");
                Some(Instant::now() + RETRY)
            }
        };
        let sleep = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let bell = self.mailbox.clone();
        tokio::select! {
            () = bell.bell.notified() => {}
            () = sleep => {}
            Some(done) = self.running.join_next() => self.finished(done),
        }
        // Everything that is ready now is taken in before looking again.
        while let Some(done) = self.running.try_join_next() {
            self.finished(done);
        }
        false
    }

    fn finished(&mut self, done: std::result::Result<(Action, Outcome), tokio::task::JoinError>) {
        // A task that panicked or was cancelled takes its key with it; the pod then stays as it is and the
        // panic is in the log.
        let Ok((action, outcome)) = done else { return };
        let pod = self.mailbox.current();
        for event in self.memory.record(&pod, &action, outcome, Timestamp::now()) {
            self.shared.tell(&pod, &event);
        }
    }

    /// `Ok(None)` when nothing is left to do, ever.
    async fn pass(&mut self) -> Result<Option<Option<Instant>>> {
        let mail = self.mailbox.take();
        if mail.references_changed {
            self.memory.config_changed(Timestamp::now());
        }
        if let Some(message) = &mail.evicted {
            self.memory.evict(message.clone());
        }
        let observed = observe::observe(self.shared.config.cri.as_ref(), &self.uid, &self.paths).await?;
        self.memory.prune(&observed.containers);
        let now = Timestamp::now();
        let decision = pod_plan::decide(&View {
            pod: &mail.pod,
            presence: mail.presence,
            sandboxes: &observed.sandboxes,
            containers: &observed.containers,
            memory: &self.memory,
            node: &self.shared.node.facts,
            room: Some(self.shared.room(&self.uid)),
            now,
        });
        if self.is_over(&mail, &observed, &decision) {
            return Ok(None);
        }
        self.memory.accept(&decision, now);
        self.announce(&mail.pod, &decision);
        let finishing = decision.actions.contains(&Action::FinishDelete);
        if finishing {
            // The last word about the pod goes out before its object does.
            self.write_status(&mail, &decision.status).await;
        }
        self.spawn(&mail.pod, &observed, &decision);
        let mut retry = None;
        if !finishing && !self.write_status(&mail, &decision.status).await {
            retry = Some(Instant::now() + RETRY);
        }
        self.renew_volumes(&mail, &observed).await;
        let wake = [decision.wake_at, self.renew_at].into_iter().flatten().min();
        let wake = wake.map(|at| Instant::now() + until(at));
        Ok(Some([wake, retry].into_iter().flatten().min()))
    }

    fn is_over(&self, mail: &Mail, observed: &Observed, decision: &Decision) -> bool {
        mail.presence == Presence::Gone
            && observed.sandboxes.is_empty()
            && observed.containers.is_empty()
            && *self.memory.volumes() == VolumeState::Removed
            && self.running.is_empty()
            && decision.actions.is_empty()
    }

    fn announce(&self, pod: &Pod, decision: &Decision) {
        for (_, event) in &decision.announcements {
            self.shared.tell(pod, event);
        }
        for event in decision.actions.iter().filter_map(Action::announcement) {
            self.shared.tell(pod, &event);
        }
    }

    fn scene(&self, pod: &Arc<Pod>, observed: &Observed) -> Arc<Scene> {
        let sandbox = observed.sandboxes.iter().max_by_key(|one| one.attempt);
        let on_host = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        let pod_ips = if on_host {
            self.shared.node.facts.host_ips.clone()
        } else {
            sandbox.map(|one| one.ips.clone()).unwrap_or_default()
        };
        let running = observed.containers.iter().filter(|one| one.is_running());
        Arc::new(Scene {
            shared: self.shared.clone(),
            pod: pod.clone(),
            paths: self.paths.clone(),
            held: self.held.clone(),
            tokens: self.tokens.clone(),
            pod_ips,
            running: running.map(|one| (one.name.clone(), one.id.clone())).collect(),
        })
    }

    fn spawn(&mut self, pod: &Arc<Pod>, observed: &Observed, decision: &Decision) {
        if decision.actions.is_empty() {
            return;
        }
        let scene = self.scene(pod, observed);
        for action in decision.actions.iter().cloned() {
            let scene = scene.clone();
            tracing::debug!(pod.uid = %self.uid, ?action, "action");
            self.running.spawn(async move {
                let outcome = act::apply(&scene, &action).await;
                (action, outcome)
            });
        }
    }

    /// Writes the status if it says something new; false when it has to be tried again.
    async fn write_status(&mut self, mail: &Mail, status: &PodStatus) -> bool {
        if static_pods::is_static(&mail.pod) {
            return self.write_mirror(mail, status).await;
        }
        if mail.presence == Presence::Gone || mail.pod.status.as_ref() == Some(status) {
            return true;
        }
        if let Some((sent, answered)) = &self.last_written
            && sent == status
            && *answered == mail.pod.status
        {
            return true;
        }
        let mut pod = (*mail.pod).clone();
        pod.status = Some(status.clone());
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let api = self.shared.config.client.api::<Pod>().namespace(namespace);
        match api.update_status(&pod).await {
            Ok(answer) => {
                self.last_written = Some((status.clone(), answer.status.clone()));
                self.shared.pods.observe(&answer);
                let answer = Arc::new(answer);
                // Unless something newer came meanwhile, the answer is the pod from now on.
                self.mailbox.replace(&mail.pod, answer);
                true
            }
            Err(error) if error.is_not_found() => true,
            Err(error) if error.is_conflict() => {
                self.read_again(&mail.pod).await;
                true
            }
            Err(error) => {
                tracing::warn!(pod.uid = %self.uid, %error, "status not written");
                false
            }
        }
    }

    /// A static pod's status lives here; its mirror shows it to others.
    async fn write_mirror(&mut self, mail: &Mail, status: &PodStatus) -> bool {
        if mail.presence == Presence::Gone {
            return true;
        }
        if mail.pod.status.as_ref() != Some(status) {
            let mut pod = (*mail.pod).clone();
            pod.status = Some(status.clone());
            self.mailbox.replace(&mail.pod, Arc::new(pod));
        }
        let metadata = &mail.pod.metadata;
        let place = (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
        let known = self.shared.pods.get(place.0, place.1);
        let shown = known.is_some_and(|known| {
            static_pods::mirrored(&known) == metadata.uid.as_ref() && known.metadata.deletion_timestamp.is_none()
        });
        if shown && self.last_written.as_ref().is_some_and(|(sent, _)| sent == status) {
            return true;
        }
        let client = &self.shared.config.client;
        let written = async {
            let Some(mut mirror) = static_pods::mirror(client, &mail.pod, &self.shared.node.facts.name).await? else {
                return Ok(());
            };
            mirror.status = Some(status.clone());
            let answer = client.api::<Pod>().namespace(place.0.to_owned()).update_status(&mirror).await?;
            self.shared.pods.observe(&answer);
            Ok::<_, kube_client::ClientError>(())
        };
        match written.await {
            Ok(()) => {
                self.last_written = Some((status.clone(), None));
                true
            }
            Err(error) => {
                tracing::warn!(pod.uid = %self.uid, %error, "a static pod's mirror is not up to date");
                false
            }
        }
    }

    /// Somebody else changed the pod: take theirs and decide anew.
    async fn read_again(&self, stale: &Arc<Pod>) {
        let metadata = &stale.metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let api = self.shared.config.client.api::<Pod>().namespace(namespace);
        match api.get_opt(metadata.name.as_deref().unwrap_or_default()).await {
            Ok(Some(fresh)) if fresh.metadata.uid == metadata.uid => {
                self.mailbox.replace(stale, Arc::new(fresh));
                self.mailbox.wake();
            }
            Ok(_) => self.mailbox.gone(),
            Err(error) => tracing::warn!(pod.uid = %self.uid, %error, "pod not read again"),
        }
    }

    /// Projected volumes follow their sources, the pod's own labels, and the lives of their tokens.
    async fn renew_volumes(&mut self, mail: &Mail, observed: &Observed) {
        if *self.memory.volumes() != VolumeState::Ready || mail.pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        let due = self.renew_at.is_some_and(|at| at <= Timestamp::now());
        let metadata = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
        let seen = self.volumes_seen.as_ref();
        let renamed = seen.is_none_or(|seen| metadata(seen) != metadata(&mail.pod));
        if !(due || renamed || mail.references_changed) {
            return;
        }
        let scene = self.scene(&mail.pod, observed);
        let place = scene.place();
        let sources = volumes::Sources {
            client: &self.shared.config.client,
            held: &self.held,
            place: &place,
            tokens: &self.tokens,
            root: &self.shared.config.root,
        };
        self.volumes_seen = Some(mail.pod.clone());
        self.renew_at = match volumes::refresh(&mail.pod, &self.paths, &sources).await {
            Ok(renew_at) => renew_at,
            Err(error) => {
                tracing::warn!(pod.uid = %self.uid, %error, "volumes not renewed");
                Timestamp::now().saturating_add(SignedDuration::from_secs(30)).ok()
            }
        };
    }
}

impl Mailbox {
    /// Takes over an answer of the server, unless the pod was replaced since `before`.
    fn replace(&self, before: &Arc<Pod>, answer: Arc<Pod>) {
        let mut mail = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&mail.pod, before) {
            mail.pod = answer;
        }
    }
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}
