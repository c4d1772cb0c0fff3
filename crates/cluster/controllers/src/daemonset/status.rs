//! A DaemonSet's numbers, which `kubectl rollout status` reads.

use super::{Decision, Pass, available, is_new};
use crate::pods::{self, Availability};
use k8s_openapi::api::apps::v1::DaemonSetStatus;

pub(super) fn write(pass: &Pass<'_>, decision: &mut Decision) {
    let old = pass.view.set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        observed_generation: pass.view.set.metadata.generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
        ..DaemonSetStatus::default()
    };
    let (mut ready, mut serving, mut updated) = (0, 0, 0);
    for place in &pass.places {
        let living = || place.pods.iter().filter(|p| pods::is_active(p));
        if !place.wanted {
            status.number_misscheduled += i32::from(living().next().is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        status.current_number_scheduled += i32::from(living().next().is_some());
        ready += i32::from(living().any(|p| pods::is_ready(p)));
        updated += i32::from(living().any(|p| is_new(pass, p)));
        let best = living().map(|p| available(pass, p));
        let mut here = false;
        for availability in best {
            match availability {
                Availability::Available => here = true,
                Availability::From(at) => decision.wake(at),
                Availability::NotReady => {}
            }
        }
        serving += i32::from(here);
    }
    status.number_ready = ready;
    let some = |n: i32| (n != 0).then_some(n);
    status.number_available = some(serving);
    status.updated_number_scheduled = some(updated);
    status.number_unavailable = some(status.desired_number_scheduled - serving);
    decision.status = status;
}
