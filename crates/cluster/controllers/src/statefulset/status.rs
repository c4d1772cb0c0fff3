//! A StatefulSet's numbers and revisions, which `kubectl rollout status` reads.
//!
//! Invariant: the current revision becomes the updated one only when every wanted pod has it and is ready.

use super::{Decision, Pass, identity};
use crate::pods::{self, Availability};
use k8s_openapi::api::apps::v1::StatefulSetStatus;

pub(super) fn write(pass: &Pass<'_>, decision: &mut Decision) {
    let old = pass.view.set.status.clone().unwrap_or_default();
    let (mut replicas, mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0, 0);
    for pod in pass.wanted.values().chain(pass.condemned.values()) {
        replicas += 1;
        let is_ready = pods::phase(pod) == "Running" && pods::is_ready(pod);
        ready += i32::from(is_ready);
        match pass.availability(pod) {
            Availability::Available => available += 1,
            Availability::From(at) => decision.wake(at),
            Availability::NotReady => {}
        }
        if !pods::is_terminating(pod) {
            let revision = identity::revision_of(pod);
            current += i32::from(revision == Some(&*pass.current.0));
            updated += i32::from(revision == Some(pass.update_name()));
        }
    }
    let mut revision = pass.current.0.clone();
    let whole = updated == pass.replicas && replicas == updated && ready == replicas;
    let on_delete = pass.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("OnDelete");
    if whole && !on_delete {
        revision = pass.update_name().to_owned();
        current = updated;
    }
    let some = |n: i32| (n != 0).then_some(n);
    decision.status = StatefulSetStatus {
        observed_generation: pass.view.set.metadata.generation,
        replicas,
        ready_replicas: some(ready),
        available_replicas: Some(available),
        current_replicas: some(current),
        updated_replicas: some(updated),
        current_revision: Some(revision),
        update_revision: Some(pass.update_name().to_owned()),
        collision_count: Some(old.collision_count.unwrap_or(0)),
        conditions: old.conditions,
    };
}
