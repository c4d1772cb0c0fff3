//! ReplicationController: the oldest workload, which is a ReplicaSet by another name.
//!
//! Called by the controller manager's shell, which translates as Kubernetes itself does: the decision is ReplicaSet's.
//! Invariant: what it makes names the ReplicationController as its owner.

use crate::{owners, replicaset};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    Pod, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The ReplicaSet that behaves like this.
pub fn as_replica_set(controller: &ReplicationController) -> ReplicaSet {
    let spec = controller.spec.clone().unwrap_or_default();
    let status = controller.status.clone().unwrap_or_default();
    let condition = |c: ReplicationControllerCondition| k8s_openapi::api::apps::v1::ReplicaSetCondition {
        type_: c.type_,
        status: c.status,
        reason: c.reason,
        message: c.message,
        last_transition_time: c.last_transition_time,
    };
    ReplicaSet {
        metadata: controller.metadata.clone(),
        spec: Some(ReplicaSetSpec {
            replicas: spec.replicas,
            min_ready_seconds: spec.min_ready_seconds,
            selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
            template: spec.template,
        }),
        status: Some(ReplicaSetStatus {
            conditions: status.conditions.map(|all| all.into_iter().map(condition).collect()),
            ..ReplicaSetStatus::default()
        }),
    }
}

pub fn status(of_set: ReplicaSetStatus) -> ReplicationControllerStatus {
    let condition = |c: k8s_openapi::api::apps::v1::ReplicaSetCondition| ReplicationControllerCondition {
        type_: c.type_,
        status: c.status,
        reason: c.reason,
        message: c.message,
        last_transition_time: c.last_transition_time,
    };
    let some = |n: Option<i32>| n.filter(|n| *n != 0);
    ReplicationControllerStatus {
        replicas: of_set.replicas,
        ready_replicas: some(of_set.ready_replicas),
        available_replicas: some(of_set.available_replicas),
        fully_labeled_replicas: some(of_set.fully_labeled_replicas),
        observed_generation: of_set.observed_generation,
        conditions: of_set.conditions.map(|all| all.into_iter().map(condition).collect()),
    }
}

pub fn pod(set: &ReplicaSet) -> Pod {
    let mut pod = replicaset::pod_from_template(set);
    pod.metadata.owner_references = Some(vec![owners::reference::<ReplicationController>(&set.metadata)]);
    pod
}
