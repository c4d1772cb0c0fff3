//! DaemonSet: one pod on every node that suits, moved to the newest template a few at a time.
//!
//! Called by the controller manager's shell for one DaemonSet, the pods that it owns or might adopt, and all nodes.
//! Invariants: a pass never makes a second pod of the same template for a node; an update takes away no more
//! available pods than maxUnavailable; daemon pods are bound by the scheduler, to the node that their affinity names.

mod status;
mod template;
mod update;

pub use template::target_node;

use crate::owners::{self, Claim};
use crate::pods::{self, Availability};
use crate::revisions::{self, History};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use scheduling::fit;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Most pods that one pass creates or deletes.
pub const BURST: usize = 250;
/// How long a pod that ended stays to be looked at before its place is filled again.
const PAUSE: SignedDuration = SignedDuration::from_secs(1);

pub struct View<'a> {
    pub set: &'a DaemonSet,
    /// Pods of the namespace that it controls, or that nobody controls.
    pub pods: &'a [Arc<Pod>],
    pub nodes: &'a [Arc<Node>],
    /// ControllerRevisions of the namespace that it controls, or that nobody controls.
    pub revisions: &'a [Arc<ControllerRevision>],
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Adopt(Arc<Pod>),
    Release(Arc<Pod>),
    Create(Vec<Pod>),
    Delete(Arc<Pod>),
    Event { warning: bool, reason: &'static str, message: String },
    Revision(revisions::Action),
}

#[derive(Default)]
pub struct Decision {
    pub actions: Vec<Action>,
    pub status: DaemonSetStatus,
    pub wake_at: Option<Timestamp>,
}

impl Decision {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }
}

/// One node's place: whether the set wants to be there, and what is there, oldest first.
struct Place<'a> {
    name: &'a str,
    wanted: bool,
    /// Pods that are there may stay, though none would be made.
    may_stay: bool,
    pods: Vec<Arc<Pod>>,
}

struct Pass<'a> {
    view: &'a View<'a>,
    spec: &'a DaemonSetSpec,
    history: History,
    places: Vec<Place<'a>>,
}

pub fn decide(view: &View<'_>) -> Decision {
    let mut decision = Decision::default();
    let empty = DaemonSetSpec::default();
    let spec = view.set.spec.as_ref().unwrap_or(&empty);
    let owner = revisions::Owner {
        meta: &view.set.metadata,
        selector: &spec.selector,
        template: &spec.template,
        collisions: view.set.status.as_ref().and_then(|s| s.collision_count),
    };
    let history = revisions::history::<DaemonSet>(&owner, view.revisions);
    let mine = claim(view, spec, &mut decision);
    let places = places(view, spec, &mine);
    let pass = Pass { view, spec, history, places };
    if view.set.metadata.deletion_timestamp.is_none() {
        decision.actions.extend(pass.history.actions.iter().cloned().map(Action::Revision));
        let mut plan = manage(&pass, &mine, &mut decision);
        update::update(&pass, &mut plan, &mut decision);
        plan.apply(&pass, &mut decision);
        let live: BTreeSet<&str> = mine.iter().filter_map(|p| revision_of(p)).collect();
        let expired = revisions::expired(&pass.history, spec.revision_history_limit, &live);
        decision.actions.extend(expired.into_iter().map(Action::Revision));
    }
    status::write(&pass, &mut decision);
    decision
}

fn claim(view: &View<'_>, spec: &DaemonSetSpec, decision: &mut Decision) -> Vec<Arc<Pod>> {
    let mut mine = Vec::new();
    for pod in view.pods {
        match owners::claim(&view.set.metadata, &spec.selector, &pod.metadata) {
            Claim::Mine => mine.push(pod.clone()),
            Claim::Adopt => {
                decision.actions.push(Action::Adopt(pod.clone()));
                mine.push(pod.clone());
            }
            Claim::Release => decision.actions.push(Action::Release(pod.clone())),
            Claim::NotMine => {}
        }
    }
    mine
}

fn places<'a>(view: &View<'a>, spec: &DaemonSetSpec, mine: &[Arc<Pod>]) -> Vec<Place<'a>> {
    let mut by_node: HashMap<&str, Vec<Arc<Pod>>> = HashMap::new();
    for pod in mine {
        if let Some(node) = target_node(pod) {
            by_node.entry(node).or_default().push(pod.clone());
        }
    }
    let wanted = template::pod_spec(spec);
    let place = |node: &'a Arc<Node>| {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let mut pods = by_node.remove(name).unwrap_or_default();
        pods.sort_by_key(|p| (p.metadata.creation_timestamp.as_ref().map(|t| t.0), p.metadata.name.clone()));
        let (wanted, may_stay) = suits(&wanted, node);
        Place { name, wanted, may_stay, pods }
    };
    view.nodes.iter().map(place).collect()
}

/// Whether a pod should be there, and whether one that is there may stay.
fn suits(spec: &PodSpec, node: &Node) -> (bool, bool) {
    if !fit::selects(spec, node) {
        return (false, false);
    }
    let clean = fit::untolerated(spec, node, &["NoSchedule", "NoExecute"]).is_none();
    (clean, clean || fit::untolerated(spec, node, &["NoExecute"]).is_none())
}

#[derive(Default)]
struct Plan<'a> {
    create: Vec<&'a str>,
    delete: Vec<Arc<Pod>>,
}

impl Plan<'_> {
    fn apply(self, pass: &Pass<'_>, decision: &mut Decision) {
        let made: Vec<Pod> = self
            .create
            .iter()
            .take(BURST)
            .map(|node| template::pod(pass.view.set, pass.spec, node, revisions::hash(&pass.history.update)))
            .collect();
        let mut seen = BTreeSet::new();
        for pod in self.delete.into_iter().take(BURST) {
            if seen.insert(pod.metadata.uid.clone()) && !pods::is_terminating(&pod) {
                decision.actions.push(Action::Delete(pod));
            }
        }
        if !made.is_empty() {
            decision.actions.push(Action::Create(made));
        }
    }
}

/// Makes what is missing, takes away what is too much or has ended.
fn manage<'a>(pass: &'a Pass<'a>, mine: &[Arc<Pod>], decision: &mut Decision) -> Plan<'a> {
    let mut plan = Plan::default();
    for place in &pass.places {
        if place.wanted && place.pods.is_empty() {
            plan.create.push(place.name);
        } else if !place.may_stay {
            plan.delete.extend(place.pods.iter().cloned());
        } else {
            let alive = bury(pass, place, &mut plan, decision);
            surplus(pass, &alive, &mut plan);
        }
    }
    let known: BTreeSet<&str> = pass.places.iter().map(|p| p.name).collect();
    // A pod for a node that is gone would wait for ever.
    let lost =
        mine.iter().filter(|p| pods::node_name(p).is_none() && target_node(p).is_some_and(|n| !known.contains(n)));
    plan.delete.extend(lost.cloned());
    plan
}

/// Daemon pods never end on purpose: what has ended goes, after a moment. Returns those that live.
fn bury(pass: &Pass<'_>, place: &Place<'_>, plan: &mut Plan<'_>, decision: &mut Decision) -> Vec<Arc<Pod>> {
    let mut alive = Vec::new();
    for pod in place.pods.iter().filter(|p| !pods::is_terminating(p)) {
        let (reason, word, verb) = match pods::phase(pod) {
            "Failed" => ("FailedDaemonPod", "failed", true),
            "Succeeded" => ("SucceededDaemonPod", "succeeded", false),
            _ => {
                alive.push(pod.clone());
                continue;
            }
        };
        let made = pod.metadata.creation_timestamp.as_ref().map_or(pass.view.now, |t| t.0);
        if made + PAUSE > pass.view.now {
            decision.wake(made + PAUSE);
            continue;
        }
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let kill = if verb { "try to kill it" } else { "try to delete it" };
        let message = format!("Found {word} daemon pod {namespace}/{name} on node {}, will {kill}", place.name);
        decision.actions.push(Action::Event { warning: verb, reason, message });
        plan.delete.push(pod.clone());
    }
    alive
}

/// More than one lives: the oldest stays; during a surge the oldest of each template, until the new one is there.
fn surplus(pass: &Pass<'_>, alive: &[Arc<Pod>], plan: &mut Plan<'_>) {
    if alive.len() < 2 {
        return;
    }
    if max_surge(pass.spec, 1) == 0 {
        plan.delete.extend(alive[1..].iter().cloned());
        return;
    }
    let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = alive.iter().partition(|p| is_new(pass, p));
    plan.delete.extend(new.iter().skip(1).map(|p| (*p).clone()));
    let replaced = new.first().is_some_and(|p| available(pass, p) == Availability::Available);
    plan.delete.extend(old.iter().skip(usize::from(!replaced)).map(|p| (*p).clone()));
}

fn available(pass: &Pass<'_>, pod: &Pod) -> Availability {
    pods::availability(pod, pass.spec.min_ready_seconds.unwrap_or(0), pass.view.now)
}

fn revision_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(revisions::HASH_LABEL).map(String::as_str)
}

fn is_new(pass: &Pass<'_>, pod: &Pod) -> bool {
    revision_of(pod) == Some(revisions::hash(&pass.history.update))
}

fn max_surge(spec: &DaemonSetSpec, desired: i32) -> i32 {
    let rolling = spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let surge = rolling.and_then(|r| r.max_surge.as_ref());
    surge.map_or(0, |surge| crate::portion::resolve(surge, desired, crate::portion::Round::Up))
}

#[cfg(test)]
mod tests;
