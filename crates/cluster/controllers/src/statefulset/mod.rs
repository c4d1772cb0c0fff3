//! StatefulSet: pods with numbers that keep their names and claims, made and unmade in order.
//!
//! Called by the controller manager's shell for one StatefulSet, its pods, claims and revisions.
//! Invariants: a pod's name is its number, so the server itself refuses a second one; in order, nothing is made, taken
//! or updated while a pod that has to come first is not available; an update goes from the highest number down to the
//! partition. Claims are never deleted here: they get an owner, and garbage collection follows.

mod claims;
mod identity;
mod status;
mod update;

use crate::owners::{self, Claim};
use crate::pods::{self, Availability};
use crate::revisions::{self, History};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use identity::ordinal_of;

pub struct View<'a> {
    pub set: &'a StatefulSet,
    /// Pods of the namespace that it controls, or that nobody controls.
    pub pods: &'a [Arc<Pod>],
    /// Claims of the namespace.
    pub claims: &'a [Arc<PersistentVolumeClaim>],
    pub revisions: &'a [Arc<ControllerRevision>],
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Adopt(Arc<Pod>),
    Release(Arc<Pod>),
    CreateClaim {
        claim: Box<PersistentVolumeClaim>,
        pod: String,
    },
    /// The owners of a claim changed, as its retention policy says.
    UpdateClaim(Box<PersistentVolumeClaim>),
    CreatePod(Box<Pod>),
    /// The pod lost what identifies it.
    UpdatePod(Box<Pod>),
    DeletePod(Arc<Pod>),
    Event {
        reason: &'static str,
        message: String,
    },
    Revision(revisions::Action),
}

#[derive(Default)]
pub struct Decision {
    pub actions: Vec<Action>,
    pub status: StatefulSetStatus,
    pub wake_at: Option<Timestamp>,
}

impl Decision {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }
}

/// What one pass works with.
struct Pass<'a> {
    view: &'a View<'a>,
    spec: &'a StatefulSetSpec,
    history: History,
    /// Name and template of the revision that pods come from which are not to be updated.
    current: (String, PodTemplateSpec),
    start: i32,
    replicas: i32,
    /// Pods within the wanted numbers, by number.
    wanted: BTreeMap<i32, Arc<Pod>>,
    /// Pods beyond them, by number.
    condemned: BTreeMap<i32, Arc<Pod>>,
}

impl Pass<'_> {
    fn numbers(&self) -> std::ops::Range<i32> {
        self.start..self.start.saturating_add(self.replicas)
    }

    fn ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn update_name(&self) -> &str {
        revisions::name(&self.history.update)
    }

    fn availability(&self, pod: &Pod) -> Availability {
        if pods::phase(pod) != "Running" {
            return Availability::NotReady;
        }
        pods::availability(pod, self.spec.min_ready_seconds.unwrap_or(0), self.view.now)
    }

    /// Available and there to stay.
    fn healthy(&self, pod: &Pod, decision: &mut Decision) -> bool {
        match self.availability(pod) {
            Availability::Available => !pods::is_terminating(pod),
            Availability::From(at) => {
                decision.wake(at);
                false
            }
            Availability::NotReady => false,
        }
    }
}

pub fn decide(view: &View<'_>) -> Decision {
    let mut decision = Decision::default();
    let empty = StatefulSetSpec::default();
    let spec = view.set.spec.as_ref().unwrap_or(&empty);
    let pass = gather(view, spec, &mut decision);
    if view.set.metadata.deletion_timestamp.is_none() {
        decision.actions.extend(pass.history.actions.iter().cloned().map(Action::Revision));
        claims::retain(&pass, &mut decision);
        if fill(&pass, &mut decision) && shrink(&pass, &mut decision) {
            update::update(&pass, &mut decision);
        }
        expire(&pass, &mut decision);
    }
    status::write(&pass, &mut decision);
    decision
}

fn gather<'a>(view: &'a View<'a>, spec: &'a StatefulSetSpec, decision: &mut Decision) -> Pass<'a> {
    let status = view.set.status.as_ref();
    let owner = revisions::Owner {
        meta: &view.set.metadata,
        selector: &spec.selector,
        template: &spec.template,
        collisions: status.and_then(|s| s.collision_count),
    };
    let history = revisions::history::<StatefulSet>(&owner, view.revisions);
    let current = status.and_then(|s| s.current_revision.as_deref());
    let known = history.known.iter().find(|r| Some(revisions::name(r)) == current);
    let current = known
        .and_then(|r| Some((revisions::name(r).to_owned(), revisions::template(r)?)))
        .unwrap_or_else(|| (revisions::name(&history.update).to_owned(), spec.template.clone()));
    let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0).max(0);
    let replicas = spec.replicas.unwrap_or(1).max(0);
    let mut pass =
        Pass { view, spec, history, current, start, replicas, wanted: BTreeMap::new(), condemned: BTreeMap::new() };
    for pod in view.pods {
        let Some(number) = identity::ordinal_of(view.set, pod) else { continue };
        match owners::claim(&view.set.metadata, &spec.selector, &pod.metadata) {
            Claim::NotMine => continue,
            Claim::Release => {
                decision.actions.push(Action::Release(pod.clone()));
                continue;
            }
            Claim::Adopt => decision.actions.push(Action::Adopt(pod.clone())),
            Claim::Mine => {}
        }
        let place = if pass.numbers().contains(&number) { &mut pass.wanted } else { &mut pass.condemned };
        place.insert(number, pod.clone());
    }
    pass
}

/// Makes what is missing, lowest number first. False: something has to come about before anything else is done.
fn fill(pass: &Pass<'_>, decision: &mut Decision) -> bool {
    let mut settled = true;
    for number in pass.numbers() {
        match pass.wanted.get(&number) {
            None => {
                create(pass, number, decision);
                settled = false;
            }
            Some(pod) if pods::is_finished(pod) => {
                if !pods::is_terminating(pod) {
                    rebuild(pass, pod, decision);
                }
                settled = false;
            }
            Some(pod) => {
                claims::ensure(pass, number, decision);
                if !pods::is_terminating(pod) {
                    decision
                        .actions
                        .extend(identity::restored(pass, number, pod).map(|p| Action::UpdatePod(Box::new(p))));
                }
                if pass.healthy(pod, decision) || !pass.ordered() {
                    continue;
                }
                settled = false;
            }
        }
        if pass.ordered() {
            return false;
        }
    }
    settled || !pass.ordered()
}

fn rebuild(pass: &Pass<'_>, pod: &Arc<Pod>, decision: &mut Decision) {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let meta = &pass.view.set.metadata;
    let (word, reason) = match pods::phase(pod) {
        "Failed" => ("failed", "RecreatingFailedPod"),
        _ => ("terminated", "RecreatingTerminatedPod"),
    };
    let message = format!(
        "StatefulSet {}/{} is recreating {word} Pod {}",
        text(&meta.namespace),
        text(&meta.name),
        text(&pod.metadata.name)
    );
    decision.actions.push(Action::Event { reason, message });
    decision.actions.push(Action::DeletePod(pod.clone()));
}

fn create(pass: &Pass<'_>, number: i32, decision: &mut Decision) {
    if claims::still_going(pass, number) {
        // The claim of an earlier pod of this number is being deleted; its end wakes us.
        return;
    }
    claims::ensure(pass, number, decision);
    let old = update::keeps_current(pass, number);
    let (revision, template) =
        if old { (pass.current.0.as_str(), &pass.current.1) } else { (pass.update_name(), &pass.spec.template) };
    decision.actions.push(Action::CreatePod(Box::new(identity::pod(pass, number, template, revision))));
}

/// Takes away what is beyond the wanted numbers, highest first.
fn shrink(pass: &Pass<'_>, decision: &mut Decision) -> bool {
    for pod in pass.condemned.values().rev() {
        if pods::is_terminating(pod) {
            if pass.ordered() {
                return false;
            }
            continue;
        }
        decision.actions.push(Action::DeletePod(pod.clone()));
        if pass.ordered() {
            return false;
        }
    }
    true
}

fn expire(pass: &Pass<'_>, decision: &mut Decision) {
    let mut live: BTreeSet<&str> =
        pass.wanted.values().chain(pass.condemned.values()).filter_map(|p| identity::revision_of(p)).collect();
    live.insert(&pass.current.0);
    let expired = revisions::expired(&pass.history, pass.spec.revision_history_limit, &live);
    decision.actions.extend(expired.into_iter().map(Action::Revision));
}

#[cfg(test)]
mod tests;
