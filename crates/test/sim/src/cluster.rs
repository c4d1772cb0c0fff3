//! One run: a cluster is made, faults go on for a while, then they stop and it has to come to rest as asked.

use crate::actor::{Actor, Over, Turn};
use crate::events::{Copy, Faults};
use crate::objects::{Kind, Object, Typed};
use crate::random::Random;
use crate::store::{Part, Store};
use crate::{controllers_play as play, machine};
use anyhow::{Result, bail};
use controllers::pods;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

const STEP_MS: u64 = 100;

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub nodes: usize,
    /// Virtual seconds with faults.
    pub faulty_seconds: u64,
    /// Virtual seconds in which it has to come to rest afterwards.
    pub calm_seconds: u64,
}

impl Scale {
    pub const SMALL: Scale = Scale { nodes: 5, faulty_seconds: 60, calm_seconds: 900 };
}

/// What a run that went well came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub writes: u64,
    pub crashes: u64,
    pub evictions: u64,
    pub calm_after_ms: u64,
}

type Play = fn(&mut Turn<'_>) -> std::result::Result<(), Over>;

const PARTS: [Play; 8] = [
    play::deployments,
    play::replica_sets,
    play::stateful_sets,
    play::daemon_sets,
    play::jobs,
    play::budgets,
    play::scheduler,
    play::collector,
];

struct Cluster {
    store: Store,
    actors: Vec<Actor>,
    machines: Actor,
    random: Random,
    faults: Faults,
    ms: u64,
    crashes: u64,
    evictions: u64,
    faulty: bool,
}

pub fn run(seed: u64, scale: Scale) -> Result<Outcome> {
    let mut cluster = Cluster::new(seed, scale);
    while cluster.ms < scale.faulty_seconds * 1000 {
        cluster.step();
        cluster.mischief(scale);
        cluster.check(seed)?;
    }
    cluster.faulty = false;
    cluster.faults = Faults::NONE;
    let calm_from = cluster.ms;
    // As if every watch were made anew: what was lost is found.
    cluster.restart_all();
    let mut last = String::new();
    while cluster.ms < calm_from + scale.calm_seconds * 1000 {
        cluster.step();
        cluster.check(seed)?;
        match cluster.unsettled() {
            None => {
                return Ok(Outcome {
                    writes: cluster.store.version(),
                    crashes: cluster.crashes,
                    evictions: cluster.evictions,
                    calm_after_ms: cluster.ms - calm_from,
                });
            }
            Some(why) => last = why,
        }
    }
    bail!("seed {seed}: no rest after {} calm seconds: {last}", scale.calm_seconds)
}

fn template(app: &str, cpu: &str, policy: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"restartPolicy": policy, "containers": [
        {"name": "c", "image": "one", "resources": {"requests": {"cpu": cpu}}}]}})
}

impl Cluster {
    fn new(seed: u64, scale: Scale) -> Self {
        let mut random = Random::new(seed);
        let mut store = Store::default();
        store.now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 * 50);
        for node in 0..scale.nodes {
            add_node(&mut store, node);
        }
        workloads(&mut store, scale);
        let actors = PARTS.iter().map(|_| Actor { copy: Copy::fresh(&store), crashed: false }).collect();
        let machines = Actor { copy: Copy::fresh(&store), crashed: false };
        let faults = Faults {
            delay_ms: 1 + random.below(4000),
            doubled: random.below(100),
            lost: random.below(10),
            crash: random.below(30),
        };
        Cluster { store, actors, machines, random, faults, ms: 0, crashes: 0, evictions: 0, faulty: true }
    }

    fn step(&mut self) {
        self.ms += STEP_MS;
        self.store.now += SignedDuration::from_millis(i64::try_from(STEP_MS).unwrap_or(0));
        for (at, part) in PARTS.iter().enumerate() {
            let actor = &mut self.actors[at];
            actor.copy.advance(&self.store, self.ms, self.faults, &mut self.random);
            // Not every part gets its turn in every step.
            if self.faulty && !self.random.chance(700) {
                continue;
            }
            let mut turn = Turn { actor, store: &mut self.store, faults: self.faults, random: &mut self.random };
            // A turn that is over early is taken up by the next one.
            let _ = part(&mut turn);
            if self.actors[at].crashed {
                self.crashes += 1;
                self.actors[at] = Actor { copy: Copy::fresh(&self.store), crashed: false };
            }
        }
        self.machines.copy.advance(&self.store, self.ms, self.faults, &mut self.random);
        let nodes: Vec<String> = self.store.of_kind(Kind::Node).map(|n| n.name().to_owned()).collect();
        let alive = |name: &str| nodes.iter().any(|n| n == name);
        let faults = Faults { crash: 0, ..self.faults };
        let mut turn = Turn { actor: &mut self.machines, store: &mut self.store, faults, random: &mut self.random };
        machine::turn(&mut turn, &alive, self.faulty);
    }

    /// What users and fate do: pods deleted and evicted, nodes lost and found, sizes and images changed.
    fn mischief(&mut self, scale: Scale) {
        if self.random.chance(30) {
            let pods = self.store.typed::<Pod>();
            if let Some(pod) = pods.get(self.random.below(pods.len() as u64) as usize) {
                if self.random.chance(500) {
                    let uid = pod.metadata.uid.clone().unwrap_or_default();
                    let free = pod.metadata.labels.as_ref().is_none_or(|l| l.get("app").is_none_or(|a| a != "kept"));
                    if free {
                        let _ = self.store.delete(&(Kind::Pod, pod.metadata.name.clone().unwrap_or_default()), &uid);
                    }
                } else if self.store.evict(pod).is_ok() {
                    self.evictions += 1;
                }
            }
        }
        if self.random.chance(40) {
            let kept: Vec<_> = self.store.typed::<Pod>();
            let mut kept = kept
                .into_iter()
                .filter(|p| p.metadata.labels.as_ref().is_some_and(|l| l.get("app").is_some_and(|a| a == "kept")));
            if let Some(pod) = kept.next()
                && self.store.evict(&pod).is_ok()
            {
                self.evictions += 1;
            }
        }
        if self.random.chance(4) {
            // The last nodes have the pods that a budget keeps: losing those is nobody's own hand.
            let which = self.random.below(scale.nodes as u64) as usize;
            let name = format!("node{which}");
            match self.store.get(&(Kind::Node, name.clone())).cloned() {
                Some(node) if !self.has_kept(&name) => {
                    let _ = self.store.delete(&node.key(), node.uid());
                }
                Some(_) => {}
                None => add_node(&mut self.store, which),
            }
        }
        if self.random.chance(10) {
            self.change();
        }
    }

    fn has_kept(&self, node: &str) -> bool {
        let kept = |p: &Pod| p.metadata.labels.as_ref().is_some_and(|l| l.get("app").is_some_and(|a| a == "kept"));
        self.store.typed::<Pod>().iter().any(|p| kept(p) && pods::node_name(p) == Some(node))
    }

    fn change(&mut self) {
        let image = format!("image{}", self.random.below(3));
        let replicas = i32::try_from(self.random.below(5)).unwrap_or(0);
        let of = |spec: &mut k8s_openapi::api::core::v1::PodTemplateSpec| {
            if let Some(pod) = &mut spec.spec {
                pod.containers[0].image = Some(image.clone());
            }
        };
        let changed = match self.random.below(3) {
            0 => self.store.typed::<Deployment>().first().map(|d| {
                let mut d = Deployment::clone(d);
                if let Some(spec) = &mut d.spec {
                    of(&mut spec.template);
                    spec.replicas = Some(replicas);
                }
                d.wrap()
            }),
            1 => self.store.typed::<StatefulSet>().first().map(|s| {
                let mut s = StatefulSet::clone(s);
                if let Some(spec) = &mut s.spec {
                    of(&mut spec.template);
                    spec.replicas = Some(replicas);
                }
                s.wrap()
            }),
            _ => self.store.typed::<DaemonSet>().first().map(|d| {
                let mut d = DaemonSet::clone(d);
                if let Some(spec) = &mut d.spec {
                    of(&mut spec.template);
                }
                d.wrap()
            }),
        };
        if let Some(object) = changed {
            let _ = self.store.update(object, Part::Main);
        }
    }

    fn restart_all(&mut self) {
        for actor in self.actors.iter_mut().chain([&mut self.machines]) {
            *actor = Actor { copy: Copy::fresh(&self.store), crashed: false };
        }
    }

    fn check(&self, seed: u64) -> Result<()> {
        match self.store.violations.first() {
            Some(what) => bail!("seed {seed}, after {} ms: {what}", self.ms),
            None => Ok(()),
        }
    }

    /// Why the cluster is not as asked yet.
    fn unsettled(&self) -> Option<String> {
        let all = self.store.typed::<Pod>();
        let ready = |kind: &str, name: &str| -> usize {
            let mine = |p: &Pod| {
                controllers::owners::controller_of(&p.metadata).is_some_and(|o| o.kind == kind && o.name == name)
            };
            all.iter().filter(|p| mine(p) && pods::is_ready(p) && pods::is_active(p)).count()
        };
        for deployment in self.store.typed::<Deployment>() {
            let status = deployment.status.clone().unwrap_or_default();
            let want = deployment.spec.as_ref().and_then(|s| s.replicas);
            let zero = |n: Option<i32>| n.unwrap_or(0);
            if zero(status.updated_replicas) != zero(want)
                || zero(status.available_replicas) != zero(want)
                || zero(status.replicas) != zero(want)
            {
                return Some(format!("deployment: {status:?}"));
            }
        }
        for set in self.store.typed::<StatefulSet>() {
            let want = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
            let status = set.status.clone().unwrap_or_default();
            let there = ready("StatefulSet", set.metadata.name.as_deref().unwrap_or_default());
            if there != usize::try_from(want).unwrap_or(0)
                || status.updated_replicas.unwrap_or(0) != want
                || status.current_revision != status.update_revision
            {
                return Some(format!("stateful set: {there} of {want}, {status:?}"));
            }
        }
        for set in self.store.typed::<DaemonSet>() {
            let nodes = self.store.of_kind(Kind::Node).count();
            let status = set.status.clone().unwrap_or_default();
            let there = ready("DaemonSet", set.metadata.name.as_deref().unwrap_or_default());
            if there != nodes || status.updated_number_scheduled.unwrap_or(0) != i32::try_from(nodes).unwrap_or(0) {
                return Some(format!("daemon set: {there} of {nodes}, {status:?}"));
            }
        }
        for job in self.store.typed::<Job>() {
            let status = job.status.clone().unwrap_or_default();
            let ended = status.conditions.iter().flatten().any(|c| c.type_ == "Complete" && c.status == "True");
            if !ended || status.succeeded != job.spec.as_ref().and_then(|s| s.completions) {
                return Some(format!("job: {status:?}"));
            }
        }
        let stray = all.iter().find(|p| pods::is_terminating(p));
        stray.map(|p| format!("pod {:?} still goes", p.metadata.name))
    }
}

fn add_node(store: &mut Store, number: usize) {
    let name = format!("node{number}");
    let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "50"}, "conditions": [{"type": "Ready", "status": "True"}]}});
    if let Ok(node) = serde_json::from_value::<Node>(node) {
        let _ = store.create(node.wrap());
    }
}

fn workloads(store: &mut Store, scale: Scale) {
    let few = i32::try_from(scale.nodes.min(4)).unwrap_or(4);
    let meta = |name: &str| json!({"name": name, "namespace": "default"});
    let selector = |app: &str| json!({"matchLabels": {"app": app}});
    let mut put = |object: Option<Object>| {
        if let Some(object) = object {
            let _ = store.create(object);
        }
    };
    let web = json!({"metadata": meta("web"), "spec": {"replicas": few, "selector": selector("web"), "template": template("web", "200m", "Always"),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}}});
    put(serde_json::from_value::<Deployment>(web).ok().map(Typed::wrap));
    let db = json!({"metadata": meta("db"), "spec": {"replicas": 3, "selector": selector("db"), "serviceName": "db", "template": template("db", "300m", "Always")}});
    put(serde_json::from_value::<StatefulSet>(db).ok().map(Typed::wrap));
    let agent = json!({"metadata": meta("agent"), "spec": {"selector": selector("agent"), "template": template("agent", "100m", "Always")}});
    put(serde_json::from_value::<DaemonSet>(agent).ok().map(Typed::wrap));
    for (name, mode) in [("batch", "NonIndexed"), ("indexed", "Indexed")] {
        let job = json!({"metadata": meta(name), "spec": {"completions": 6, "parallelism": 3, "completionMode": mode, "backoffLimit": 1000,
            "podReplacementPolicy": "TerminatingOrFailed", "selector": selector(name), "template": template(name, "100m", "Never")}});
        put(serde_json::from_value::<Job>(job).ok().map(Typed::wrap));
    }
    let kept = json!({"metadata": meta("kept"), "spec": {"replicas": 4, "selector": selector("kept"), "template": template("kept", "100m", "Always")}});
    put(serde_json::from_value::<k8s_openapi::api::apps::v1::ReplicaSet>(kept).ok().map(Typed::wrap));
    let budget = json!({"metadata": meta("kept"), "spec": {"minAvailable": 2, "selector": selector("kept")}});
    put(serde_json::from_value::<PodDisruptionBudget>(budget).ok().map(Typed::wrap));
}
