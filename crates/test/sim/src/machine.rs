//! The nodes of a run: they start what is bound to them, end it when it is deleted, and let pods of Jobs end.

use crate::actor::Turn;
use crate::objects::Typed;
use controllers::pods;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// One look of all nodes at their pods. `faulty`: pods of Jobs may fail.
pub(crate) fn turn(turn: &mut Turn<'_>, alive: &dyn Fn(&str) -> bool, faulty: bool) {
    for pod in turn.actor.copy.typed::<Pod>() {
        let Some(node) = pods::node_name(&pod).filter(|n| alive(n)) else { continue };
        let _ = node;
        if pods::is_terminating(&pod) {
            if turn.random.chance(500) {
                turn.store.finish(&pod);
            }
        } else if pods::phase(&pod) == "Pending" {
            start(turn, &pod);
        } else if pods::phase(&pod) == "Running" && is_a_jobs(&pod) && turn.random.chance(300) {
            end(turn, &pod, faulty);
        }
    }
}

fn is_a_jobs(pod: &Pod) -> bool {
    controllers::owners::controller_of(&pod.metadata).is_some_and(|o| o.kind == "Job")
}

fn start(turn: &mut Turn<'_>, pod: &Pod) {
    if !turn.random.chance(600) {
        return;
    }
    let mut running = pod.clone();
    let status = running.status.get_or_insert_default();
    status.phase = Some("Running".into());
    status.start_time = Some(Time(turn.store.now));
    status.conditions = Some(vec![PodCondition {
        type_: "Ready".into(),
        status: "True".into(),
        last_transition_time: Some(Time(turn.store.now)),
        ..PodCondition::default()
    }]);
    // A conflict only means that the pod changed: the next look sees how.
    let _ = turn.update_status(running.wrap());
}

fn end(turn: &mut Turn<'_>, pod: &Pod, faulty: bool) {
    let bad = faulty && turn.random.chance(200);
    let mut ended = pod.clone();
    let status = ended.status.get_or_insert_default();
    status.phase = Some(if bad { "Failed" } else { "Succeeded" }.into());
    status.conditions = None;
    let _ = turn.update_status(ended.wrap());
}
