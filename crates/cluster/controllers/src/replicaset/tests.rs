use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn set(replicas: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "set", "generation": 2},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}
    }))
    .unwrap()
}

fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "web"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "set", "controller": true}]},
        "spec": {"nodeName": "node", "containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}]}
    });
    change(&mut value);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn now() -> Timestamp {
    "2026-01-01T00:01:00Z".parse().unwrap()
}

fn run(set: &ReplicaSet, pods: &[Arc<Pod>]) -> Decision {
    decide(&View { desired: set, pods, now: now(), failure: None })
}

fn victims(decision: &Decision) -> Vec<String> {
    let deleted = decision.actions.iter().filter_map(|a| match a {
        Action::Delete(pod) => pod.metadata.name.clone(),
        Action::Adopt(_) | Action::Release(_) | Action::Create { .. } => None,
    });
    deleted.collect()
}

#[test]
fn missing_pods_are_made_and_finished_or_terminating_ones_do_not_count() {
    let pods = [
        pod("a", |_| {}),
        pod("b", |p| p["status"]["phase"] = "Failed".into()),
        pod("c", |p| p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z".into()),
    ];
    let decision = run(&set(3), &pods);
    assert_eq!(decision.actions, [Action::Create { count: 2 }]);
    let status = decision.status;
    assert_eq!((status.replicas, status.ready_replicas, status.terminating_replicas), (1, Some(1), Some(1)));
    assert_eq!(status.observed_generation, Some(2));
}

#[test]
fn surplus_pods_go_in_kubernetes_order() {
    let pods = [
        pod("steady", |_| {}),
        pod("unassigned", |p| {
            p["spec"]["nodeName"] = Value::Null;
            p["status"] = json!({"phase": "Pending"});
        }),
        pod("pending", |p| p["status"] = json!({"phase": "Pending"})),
        pod("unready", |p| p["status"]["conditions"][0]["status"] = "False".into()),
        pod("cheap", |p| p["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "-5"})),
        pod("fresh", |p| p["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:00:50Z".into()),
        pod("crashy", |p| {
            p["status"]["containerStatuses"] =
                json!([{"name": "c", "ready": true, "restartCount": 4, "image": "", "imageID": ""}])
        }),
        pod("newer", |p| p["metadata"]["creationTimestamp"] = "2026-01-01T00:00:01Z".into()),
    ];
    let order = ["unassigned", "pending", "unready", "cheap", "fresh", "crashy", "newer", "steady"];
    for left in 0..order.len() {
        let got = victims(&run(&set(left as i32), &pods));
        assert_eq!(got, order[..order.len() - left], "{left} left");
    }
}

#[test]
fn a_pod_on_a_crowded_node_goes_before_one_that_is_alone() {
    let on = |name: &str, node: &str| pod(name, |p| p["spec"]["nodeName"] = node.into());
    let pods = [on("a", "quiet"), on("b", "busy"), on("c", "busy")];
    assert_eq!(victims(&run(&set(2), &pods)), ["b"]);
}

#[test]
fn orphans_that_match_are_adopted_and_own_pods_that_do_not_are_let_go() {
    let pods = [
        pod("orphan", |p| p["metadata"]["ownerReferences"] = json!([])),
        pod("relabelled", |p| p["metadata"]["labels"]["app"] = "debug".into()),
        pod("foreign", |p| p["metadata"]["ownerReferences"][0]["uid"] = "other".into()),
    ];
    let decision = run(&set(2), &pods);
    assert_eq!(
        decision.actions,
        [Action::Adopt(pods[0].clone()), Action::Release(pods[1].clone()), Action::Create { count: 1 }]
    );
}

#[test]
fn a_set_that_is_being_deleted_only_reports() {
    let mut going = set(3);
    going.metadata.deletion_timestamp = Some(Time(now()));
    assert!(run(&going, &[]).actions.is_empty());
}

#[test]
fn availability_waits_for_min_ready_seconds_and_says_when_to_look_again() {
    let mut slow = set(2);
    slow.spec.as_mut().unwrap().min_ready_seconds = Some(30);
    let late = pod("late", |p| p["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:00:50Z".into());
    let decision = run(&slow, &[pod("early", |_| {}), late]);
    assert_eq!((decision.status.ready_replicas, decision.status.available_replicas), (Some(2), Some(1)));
    assert_eq!(decision.wake_at, Some("2026-01-01T00:01:20Z".parse().unwrap()));
}

#[test]
fn a_failed_creation_is_shown_and_cleared() {
    let wanted = set(1);
    let failed = decide(&View { desired: &wanted, pods: &[], now: now(), failure: Some("quota") });
    let condition = &failed.status.conditions.as_ref().unwrap()[0];
    assert_eq!((condition.type_.as_str(), condition.reason.as_deref()), ("ReplicaFailure", Some("FailedCreate")));
    let after = ReplicaSet { status: Some(failed.status), ..wanted };
    assert_eq!(run(&after, &[]).status.conditions, None);
}

proptest! {
    /// Whatever the pods are: the outcome of one pass is the wanted number, and a second pass does nothing.
    #[test]
    fn one_pass_converges(replicas in 0i32..8, kinds in proptest::collection::vec(0u8..5, 0..12)) {
        let wanted = set(replicas);
        let mut pods: Vec<_> = kinds.iter().enumerate().map(|(n, kind)| pod(&format!("p{n}"), |p| match kind {
            0 => p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z".into(),
            1 => p["status"]["phase"] = "Succeeded".into(),
            2 => p["metadata"]["ownerReferences"] = json!([]),
            3 => p["metadata"]["labels"]["app"] = "x".into(),
            _ => {}
        })).collect();
        let first = run(&wanted, &pods);
        let creates = first.actions.iter().any(|a| matches!(a, Action::Create { .. }));
        prop_assert!(!creates || victims(&first).is_empty());
        for action in &first.actions {
            match action {
                Action::Create { count } => {
                    for n in 0..*count {
                        let mut made = pod_from_template(&wanted);
                        made.metadata.name = Some(format!("new{n}"));
                        pods.push(Arc::new(made));
                    }
                }
                Action::Delete(gone) | Action::Release(gone) => pods.retain(|p| p.metadata.name != gone.metadata.name),
                Action::Adopt(orphan) => {
                    pods.retain(|p| p.metadata.name != orphan.metadata.name);
                    let mut mine = Pod::clone(orphan);
                    mine.metadata.owner_references = Some(vec![owners::reference::<ReplicaSet>(&wanted.metadata)]);
                    pods.push(Arc::new(mine));
                }
            }
        }
        let second = run(&wanted, &pods);
        prop_assert!(second.actions.is_empty(), "{:?}", second.actions);
        prop_assert_eq!(second.status.replicas, replicas);
    }
}
