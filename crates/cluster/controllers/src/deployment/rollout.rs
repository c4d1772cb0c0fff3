//! The two strategies: rolling (up and down within the limits) and recreate (all down, then all up).
//!
//! Invariant of `rolling`: it scales up only into the room that maxSurge leaves, and down only by what is available
//! beyond `replicas - maxUnavailable`, counting pods of the new ReplicaSet that are not available yet as missing.

use super::sets::{Change, Sets};
use super::status::Happened;
use super::{Limits, View};
use crate::{owners, pods};

pub(crate) fn rolling(view: &View<'_>, sets: &mut Sets, limits: Limits, happened: &mut Happened) {
    happened.created = sets.ensure_new(view.desired, |sets| new_size(sets, limits), limits);
    if happened.created {
        return;
    }
    let size = match sets.new.as_ref().map_or(0, Change::replicas) {
        current if current > limits.replicas => limits.replicas,
        current if current == limits.replicas => current,
        _ => new_size(sets, limits),
    };
    if let Some(new) = &mut sets.new
        && new.replicas() != size
    {
        // Scaling down happens on the next pass, when this is on record.
        new.scale_to(size, limits);
        return;
    }
    shrink_old(sets, limits);
}

/// How large the new ReplicaSet may be now.
fn new_size(sets: &Sets, limits: Limits) -> i32 {
    let current = sets.new.as_ref().map_or(0, Change::replicas);
    let room = limits.replicas + limits.max_surge - sets.total();
    if room <= 0 {
        return current;
    }
    current + room.min(limits.replicas - current).max(0)
}

fn shrink_old(sets: &mut Sets, limits: Limits) {
    let min_available = limits.replicas - limits.max_unavailable;
    let new_unavailable = sets.new.as_ref().map_or(0, |new| new.replicas() - new.available());
    let most = sets.total() - min_available - new_unavailable;
    if most <= 0 {
        return;
    }
    // First those that serve nobody: taking them away costs no availability.
    let mut cleaned = 0;
    for old in sets.old.iter_mut().filter(|c| c.replicas() > 0) {
        let unhealthy = (old.replicas() - old.available()).min(most - cleaned);
        if unhealthy > 0 {
            old.scale_to(old.replicas() - unhealthy, limits);
            cleaned += unhealthy;
        }
    }
    // A ReplicaSet that was just made smaller may still report the pods that it is about to lose.
    let available: i32 = sets.all().map(|c| c.available().min(c.replicas())).sum();
    let mut surplus = available - min_available;
    for old in sets.old.iter_mut().filter(|c| c.replicas() > 0) {
        let step = old.replicas().min(surplus);
        if step > 0 {
            old.scale_to(old.replicas() - step, limits);
            surplus -= step;
        }
    }
}

pub(crate) fn recreate(view: &View<'_>, sets: &mut Sets, limits: Limits, happened: &mut Happened) {
    let mut scaled_down = false;
    for old in sets.old.iter_mut().filter(|c| c.replicas() > 0) {
        old.scale_to(0, limits);
        scaled_down = true;
    }
    if scaled_down || old_pods_run(view, sets) {
        sets.sync_revision(view.desired);
        return;
    }
    happened.created = sets.ensure_new(view.desired, |_| limits.replicas, limits);
    if let Some(new) = &mut sets.new
        && new.replicas() != limits.replicas
    {
        new.scale_to(limits.replicas, limits);
    }
}

/// A pod that is being deleted still runs.
fn old_pods_run(view: &View<'_>, sets: &Sets) -> bool {
    view.pods
        .iter()
        .filter(|pod| !pods::is_finished(pod))
        .any(|pod| sets.old.iter().any(|old| owners::is_controlled_by(&pod.metadata, &old.now.metadata)))
}
