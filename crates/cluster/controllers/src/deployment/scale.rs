//! Changing the size of a Deployment: one ReplicaSet takes it all, or several share it in proportion.
//!
//! Used when `spec.replicas` changed and while a rollout is paused. Invariant: the sizes add up to at most
//! `replicas + maxSurge`, and each ReplicaSet keeps its share of a rollout that is under way.

use super::sets::{Change, Sets};
use super::{DESIRED_REPLICAS, Limits, MAX_REPLICAS, is_recreate};
use k8s_openapi::api::apps::v1::Deployment;

/// The size was changed since the ReplicaSets were last sized.
pub(crate) fn is_scaling_event(sets: &Sets, limits: Limits) -> bool {
    let mut active = sets.all().filter(|c| c.replicas() > 0);
    active.any(|c| c.annotation(DESIRED_REPLICAS).is_some_and(|desired| desired != limits.replicas))
}

pub(crate) fn scale(deployment: &Deployment, sets: &mut Sets, limits: Limits) {
    if let Some(only) = active_or_latest(sets) {
        if only.replicas() != limits.replicas {
            only.scale_to(limits.replicas, limits);
        } else if only.replicas() > 0 {
            only.scale_to(only.replicas(), limits);
        }
        return;
    }
    if is_saturated(sets, limits) {
        for old in sets.old.iter_mut().filter(|c| c.replicas() > 0) {
            old.scale_to(0, limits);
        }
        return;
    }
    if !is_recreate(deployment) {
        share(deployment, sets, limits);
    }
}

/// The one ReplicaSet that has replicas; with none, the new one or the latest old one.
fn active_or_latest(sets: &mut Sets) -> Option<&mut Change> {
    let active = sets.all().filter(|c| c.replicas() > 0).count();
    match active {
        0 if sets.new.is_some() => sets.new.as_mut(),
        0 => sets.old.last_mut(),
        1 => sets.old.iter_mut().chain(sets.new.as_mut()).find(|c| c.replicas() > 0),
        _ => None,
    }
}

/// The new ReplicaSet carries the whole Deployment by itself.
fn is_saturated(sets: &Sets, limits: Limits) -> bool {
    sets.new.as_ref().is_some_and(|new| {
        new.replicas() == limits.replicas
            && new.annotation(DESIRED_REPLICAS) == Some(limits.replicas)
            && new.available() == limits.replicas
    })
}

fn share(deployment: &Deployment, sets: &mut Sets, limits: Limits) {
    let room = if limits.replicas > 0 { limits.replicas + limits.max_surge } else { 0 };
    let mut active: Vec<&mut Change> =
        sets.old.iter_mut().chain(sets.new.as_mut()).filter(|c| c.replicas() > 0).collect();
    let to_add = room - active.iter().map(|c| c.replicas()).sum::<i32>();
    // Larger ones first; among equals the newer grow first and the older shrink first.
    active.reverse();
    if to_add < 0 {
        active.reverse();
    }
    active.sort_by_key(|c| -c.replicas());
    let mut added = 0;
    let mut sizes = Vec::with_capacity(active.len());
    for change in &active {
        let share = proportion(deployment, change, limits, to_add, added);
        added += share;
        sizes.push(change.replicas() + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (change, size) in active.into_iter().zip(sizes) {
        change.scale_to(size, limits);
    }
}

fn proportion(deployment: &Deployment, change: &Change, limits: Limits, to_add: i32, added: i32) -> i32 {
    if to_add == 0 || to_add == added {
        return 0;
    }
    let current = change.replicas();
    let fraction = if limits.replicas == 0 {
        -current
    } else {
        let observed = deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let before = change.annotation(MAX_REPLICAS).filter(|m| *m > 0).unwrap_or(observed).max(1);
        let room = f64::from(limits.replicas + limits.max_surge);
        (f64::from(current) * room / f64::from(before)).round() as i32 - current
    };
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}
