//! The rolling update of a DaemonSet: whose old pod goes now, or which node gets its new pod beside the old one.
//!
//! Used by the DaemonSet decision. Invariant: pods that serve are only taken within maxUnavailable (or replaced within
//! maxSurge); a pod that does not serve may always be replaced.

use super::{Decision, Pass, Place, Plan, available, is_new, max_surge};
use crate::pods::{self, Availability};
use crate::portion::{self, Round};
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

pub(super) fn update<'a>(pass: &'a Pass<'a>, plan: &mut Plan<'a>, decision: &mut Decision) {
    let strategy = pass.spec.update_strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
        return;
    }
    let desired = i32::try_from(pass.places.iter().filter(|p| p.wanted).count()).unwrap_or(i32::MAX);
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref());
    let unavailable = unavailable.map_or(1, |u| portion::resolve(u, desired, Round::Up));
    let surge = max_surge(pass.spec, desired);
    if surge == 0 {
        in_place(pass, plan, unavailable.max(1), decision);
    } else {
        beside(pass, plan, surge, decision);
    }
}

/// The living pod of the new template, and the one of an older.
fn pair<'a>(pass: &Pass<'_>, place: &'a Place<'_>) -> (Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>) {
    let mut living = place.pods.iter().filter(|p| pods::is_active(p));
    let new = living.clone().find(|p| is_new(pass, p));
    (new, living.find(|p| !is_new(pass, p)))
}

fn in_place<'a>(pass: &'a Pass<'a>, plan: &mut Plan<'a>, limit: i32, decision: &mut Decision) {
    let mut missing = 0;
    let (mut free, mut serving) = (Vec::new(), Vec::new());
    for place in pass.places.iter().filter(|p| p.wanted) {
        match pair(pass, place) {
            (Some(new), _) => match available(pass, new) {
                Availability::Available => {}
                Availability::From(at) => {
                    missing += 1;
                    decision.wake(at);
                }
                Availability::NotReady => missing += 1,
            },
            (None, Some(old)) if available(pass, old) == Availability::NotReady => {
                missing += 1;
                free.push(old.clone());
            }
            (None, Some(old)) => serving.push(old.clone()),
            (None, None) => missing += 1,
        }
    }
    plan.delete.extend(free);
    let budget = usize::try_from(limit - missing).unwrap_or(0);
    plan.delete.extend(serving.into_iter().take(budget));
}

fn beside<'a>(pass: &'a Pass<'a>, plan: &mut Plan<'a>, limit: i32, decision: &mut Decision) {
    let mut extra = 0;
    let (mut free, mut serving) = (Vec::new(), Vec::new());
    for place in pass.places.iter().filter(|p| p.wanted) {
        match pair(pass, place) {
            (Some(new), Some(_)) => {
                extra += 1;
                if let Availability::From(at) = available(pass, new) {
                    decision.wake(at);
                }
            }
            (None, Some(old)) if available(pass, old) == Availability::NotReady => free.push(place.name),
            (None, Some(_)) => serving.push(place.name),
            (Some(_) | None, None) => {}
        }
    }
    plan.create.extend(free);
    plan.create.extend(serving.into_iter().take(usize::try_from(limit - extra).unwrap_or(0)));
}
