//! The rolling update of a StatefulSet: from the highest number down to the partition.
//!
//! Invariant: pods that are missing or not available count against maxUnavailable, and the walk never passes one that
//! has used it up.

use super::{Action, Decision, Pass, identity};
use crate::pods;
use crate::portion::{self, Round};

fn is_rolling(pass: &Pass<'_>) -> bool {
    pass.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("OnDelete")
}

fn partition(pass: &Pass<'_>) -> Option<i32> {
    let strategy = pass.spec.update_strategy.as_ref()?;
    strategy.rolling_update.as_ref()?.partition.filter(|p| *p > 0)
}

/// Whether a new pod of this number is still made of the revision before the update.
pub(super) fn keeps_current(pass: &Pass<'_>, number: i32) -> bool {
    is_rolling(pass) && partition(pass).is_some_and(|partition| number < pass.start.saturating_add(partition))
}

pub(super) fn update(pass: &Pass<'_>, decision: &mut Decision) {
    if !is_rolling(pass) {
        return;
    }
    let strategy = pass.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let limit = strategy.and_then(|r| r.max_unavailable.as_ref());
    let mut budget = limit.map_or(1, |l| portion::resolve(l, pass.replicas, Round::Down)).max(1);
    let lowest = pass.start.saturating_add(partition(pass).unwrap_or(0));
    for number in pass.numbers().rev().take_while(|n| *n >= lowest) {
        if budget == 0 {
            return;
        }
        match pass.wanted.get(&number) {
            None => budget -= 1,
            Some(pod) if pods::is_terminating(pod) => budget -= 1,
            Some(pod) if identity::revision_of(pod) != Some(pass.update_name()) => {
                decision.actions.push(Action::DeletePod(pod.clone()));
                budget -= 1;
            }
            Some(pod) if !pass.healthy(pod, decision) => budget -= 1,
            Some(_) => {}
        }
    }
}
