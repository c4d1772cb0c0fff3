//! The shells in short: view from the copy → the real decision → writes in the real shells' order.

use crate::actor::{Over, Turn};
use crate::objects::{Object, Typed};
use controllers::{daemonset, deployment, disruption, job, owners, pods, replicaset, revisions, statefulset};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;

type Played = Result<(), Over>;

fn candidates<K: Typed>(all: Vec<Arc<K>>, owner: &ObjectMeta, meta: impl Fn(&K) -> &ObjectMeta) -> Vec<Arc<K>> {
    let mine = |o: &Arc<K>| match owners::controller_of(meta(o)) {
        Some(reference) => Some(&reference.uid) == owner.uid.as_ref(),
        None => true,
    };
    all.into_iter().filter(mine).collect()
}

fn my_pods(turn: &Turn<'_>, owner: &ObjectMeta) -> Vec<Arc<Pod>> {
    candidates(turn.actor.copy.typed::<Pod>(), owner, |p| &p.metadata)
}

fn create_all(turn: &mut Turn<'_>, made: Vec<Pod>) -> Played {
    for pod in made {
        turn.create(pod.wrap())?;
    }
    Ok(())
}

fn delete_pod(turn: &mut Turn<'_>, pod: &Arc<Pod>) -> Played {
    turn.delete(&Object::Pod(pod.clone()))
}

fn strip(turn: &mut Turn<'_>, pod: &Pod, finalizer: &str) -> Played {
    let newest = turn.actor.copy.get::<Pod>(pod.metadata.name.as_deref().unwrap_or_default());
    let Some(newest) = newest.filter(|p| p.metadata.uid == pod.metadata.uid) else { return Ok(()) };
    let mut changed = Pod::clone(&newest);
    let list = changed.metadata.finalizers.get_or_insert_default();
    list.retain(|f| f != finalizer);
    turn.update(changed.wrap()).map(drop)
}

pub(crate) fn deployments(turn: &mut Turn<'_>) -> Played {
    for desired in turn.actor.copy.typed::<Deployment>() {
        let sets = candidates(turn.actor.copy.typed::<ReplicaSet>(), &desired.metadata, |s| &s.metadata);
        let all = turn.actor.copy.typed::<Pod>();
        let of_sets = |p: &Arc<Pod>| sets.iter().any(|s| owners::is_controlled_by(&p.metadata, &s.metadata));
        let pods: Vec<Arc<Pod>> = all.into_iter().filter(of_sets).collect();
        let view = deployment::View { desired: &desired, sets: &sets, pods: &pods, now: turn.store.now };
        let decision = deployment::decide(&view);
        let mut live = Deployment::clone(&desired);
        for action in decision.actions {
            match action {
                deployment::Action::Create(set) => drop(turn.create(set.wrap())?),
                deployment::Action::Update { set, .. } => drop(turn.update(set.wrap())?),
                deployment::Action::Delete(set) => turn.delete(&Object::ReplicaSet(set))?,
                deployment::Action::SetRevision(revision) => {
                    let annotations = live.metadata.annotations.get_or_insert_default();
                    annotations.insert(deployment::REVISION.into(), revision);
                    if let Object::Deployment(written) = turn.update(live.clone().wrap())? {
                        live = Deployment::clone(&written);
                    }
                }
                deployment::Action::Adopt(_) | deployment::Action::Release(_) => {}
            }
        }
        if live.status.as_ref() != Some(&decision.status) {
            live.status = Some(decision.status);
            turn.update_status(live.wrap())?;
        }
    }
    Ok(())
}

pub(crate) fn replica_sets(turn: &mut Turn<'_>) -> Played {
    for set in turn.actor.copy.typed::<ReplicaSet>() {
        let pods = my_pods(turn, &set.metadata);
        let view = replicaset::View { desired: &set, pods: &pods, now: turn.store.now, failure: None };
        let decision = replicaset::decide(&view);
        for action in decision.actions {
            match action {
                replicaset::Action::Create { count } => {
                    create_all(turn, vec![replicaset::pod_from_template(&set); count])?;
                }
                replicaset::Action::Delete(pod) => delete_pod(turn, &pod)?,
                replicaset::Action::Adopt(_) | replicaset::Action::Release(_) => {}
            }
        }
        if set.status.as_ref() != Some(&decision.status) {
            let changed = ReplicaSet { status: Some(decision.status), ..ReplicaSet::clone(&set) };
            turn.update_status(changed.wrap())?;
        }
    }
    Ok(())
}

fn revise(turn: &mut Turn<'_>, action: revisions::Action) -> Played {
    match action {
        revisions::Action::Create(revision) => turn.create(revision.wrap()).map(drop),
        revisions::Action::Renumber(revision) => turn.update(revision.wrap()).map(drop),
        revisions::Action::Delete(revision) => turn.delete(&Object::ControllerRevision(revision)),
        revisions::Action::Adopt(_) => Ok(()),
    }
}

pub(crate) fn stateful_sets(turn: &mut Turn<'_>) -> Played {
    for set in turn.actor.copy.typed::<StatefulSet>() {
        let pods = my_pods(turn, &set.metadata);
        let known = candidates(turn.actor.copy.typed::<ControllerRevision>(), &set.metadata, |r| &r.metadata);
        let claims = turn.actor.copy.typed::<PersistentVolumeClaim>();
        let view =
            statefulset::View { set: &set, pods: &pods, claims: &claims, revisions: &known, now: turn.store.now };
        let decision = statefulset::decide(&view);
        for action in decision.actions {
            match action {
                statefulset::Action::Revision(action) => revise(turn, action)?,
                statefulset::Action::CreateClaim { claim, .. } => drop(turn.create(claim.wrap())?),
                statefulset::Action::UpdateClaim(claim) => drop(turn.update(claim.wrap())?),
                statefulset::Action::CreatePod(pod) => drop(turn.create(pod.wrap())?),
                statefulset::Action::UpdatePod(pod) => drop(turn.update(pod.wrap())?),
                statefulset::Action::DeletePod(pod) => delete_pod(turn, &pod)?,
                statefulset::Action::Adopt(_) | statefulset::Action::Release(_) => {}
                statefulset::Action::Event { .. } => {}
            }
        }
        if set.status.as_ref() != Some(&decision.status) {
            let changed = StatefulSet { status: Some(decision.status), ..StatefulSet::clone(&set) };
            turn.update_status(changed.wrap())?;
        }
    }
    Ok(())
}

pub(crate) fn daemon_sets(turn: &mut Turn<'_>) -> Played {
    for set in turn.actor.copy.typed::<DaemonSet>() {
        let pods = my_pods(turn, &set.metadata);
        let known = candidates(turn.actor.copy.typed::<ControllerRevision>(), &set.metadata, |r| &r.metadata);
        let nodes = turn.actor.copy.typed::<Node>();
        let view = daemonset::View { set: &set, pods: &pods, nodes: &nodes, revisions: &known, now: turn.store.now };
        let decision = daemonset::decide(&view);
        for action in decision.actions {
            match action {
                daemonset::Action::Revision(action) => revise(turn, action)?,
                daemonset::Action::Create(pods) => create_all(turn, pods)?,
                daemonset::Action::Delete(pod) => delete_pod(turn, &pod)?,
                daemonset::Action::Adopt(_) | daemonset::Action::Release(_) | daemonset::Action::Event { .. } => {}
            }
        }
        if set.status.as_ref() != Some(&decision.status) {
            let changed = DaemonSet { status: Some(decision.status), ..DaemonSet::clone(&set) };
            turn.update_status(changed.wrap())?;
        }
    }
    Ok(())
}

pub(crate) fn jobs(turn: &mut Turn<'_>) -> Played {
    for one in turn.actor.copy.typed::<Job>() {
        let pods = my_pods(turn, &one.metadata);
        let decision = job::decide(&job::View { job: &one, pods: &pods, now: turn.store.now });
        for action in decision.actions {
            match action {
                job::Action::Create(pods) => create_all(turn, pods)?,
                job::Action::Delete(pod) => delete_pod(turn, &pod)?,
                job::Action::Discard(pod) => {
                    strip(turn, &pod, job::TRACKING)?;
                    delete_pod(turn, &pod)?;
                }
                job::Action::DeleteJob => turn.delete(&Object::Job(one.clone()))?,
                job::Action::Adopt(_) | job::Action::Release(_) | job::Action::Event { .. } => {}
            }
        }
        if let Some(status) = decision.status.filter(|s| one.status.as_ref() != Some(s)) {
            let changed = Job { status: Some(status), ..Job::clone(&one) };
            turn.update_status(changed.wrap())?;
        }
        for pod in decision.untrack {
            strip(turn, &pod, job::TRACKING)?;
        }
    }
    Ok(())
}

pub(crate) fn budgets(turn: &mut Turn<'_>) -> Played {
    for budget in turn.actor.copy.typed::<PodDisruptionBudget>() {
        let pods = turn.actor.copy.typed::<Pod>();
        let view = disruption::View { budget: &budget, pods: &pods, scale: None, now: turn.store.now };
        let decision = disruption::decide(&view);
        if budget.status.as_ref() != Some(&decision.status) {
            let changed = PodDisruptionBudget { status: Some(decision.status), ..PodDisruptionBudget::clone(&budget) };
            turn.update_status(changed.wrap())?;
        }
    }
    Ok(())
}

/// A scheduler that builds its picture anew each turn, from its copy.
pub(crate) fn scheduler(turn: &mut Turn<'_>) -> Played {
    let all = turn.actor.copy.typed::<Pod>();
    let bound = all.iter().filter_map(|p| Some((pods::node_name(p)?.to_owned(), p.clone())));
    let mut snapshot = scheduling::Snapshot::new(turn.actor.copy.typed::<Node>(), bound);
    snapshot.budgets = turn.actor.copy.typed::<PodDisruptionBudget>();
    let mut waiting: Vec<Arc<Pod>> =
        all.iter().filter(|p| pods::node_name(p).is_none() && pods::is_active(p)).cloned().collect();
    waiting.sort_by(|a, b| scheduling::queue_order(a, b));
    for pod in waiting {
        let seed = turn.random.next();
        match scheduling::place(&pod, &mut snapshot, seed) {
            scheduling::Placement::Node(node) => {
                snapshot.assign(&node, pod.clone());
                turn.bind(&pod, &node)?;
            }
            scheduling::Placement::Preempt { victims, .. } => {
                for victim in victims {
                    delete_pod(turn, &victim)?;
                }
            }
            scheduling::Placement::Nowhere(_) => {}
        }
    }
    Ok(())
}

/// What lost its owner goes; the pods of a node that is gone end. The store itself is asked, as the real shells do.
pub(crate) fn collector(turn: &mut Turn<'_>) -> Played {
    for pod in turn.actor.copy.typed::<Pod>() {
        let owner_gone = owners::controller_of(&pod.metadata).is_some_and(|o| {
            let kinds = crate::objects::Kind::ALL.iter();
            !kinds.into_iter().any(|k| turn.store.get(&(*k, o.name.clone())).is_some_and(|x| x.uid() == o.uid))
        });
        if owner_gone && !pods::is_terminating(&pod) {
            delete_pod(turn, &pod)?;
        }
        let node = pods::node_name(&pod).map(str::to_owned);
        let lost = node.is_some_and(|n| turn.store.get(&(crate::objects::Kind::Node, n)).is_none());
        if lost {
            turn.store.finish(&pod);
        }
    }
    Ok(())
}
