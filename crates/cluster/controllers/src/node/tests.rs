use super::*;
use serde_json::{Value, json};

fn node(change: impl FnOnce(&mut Value)) -> Node {
    let mut value = json!({"metadata": {"name": "n"}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}]}});
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, tolerations: Value) -> Arc<Pod> {
    let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    let value =
        json!({"metadata": {"name": name}, "spec": {"containers": [], "tolerations": tolerations}, "status": ready});
    Arc::new(serde_json::from_value(value).unwrap())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn run(node: &Node, pods: &[Arc<Pod>], now: i64) -> Decision {
    decide(&View { node, pods, renewed: at(0), now: at(now) })
}

#[test]
fn a_node_that_renews_in_time_is_left_alone_until_its_patience_ends() {
    let decision = run(&node(|_| {}), &[], 39);
    assert!(decision.actions.is_empty());
    assert_eq!(decision.wake_at, Some(at(40)));
}

#[test]
fn a_silent_node_becomes_unknown_is_tainted_and_its_pods_are_not_ready() {
    let pods = [pod("p", json!([{"operator": "Exists"}]))];
    let decision = run(&node(|_| {}), &pods, 40);
    let [Action::SetConditions(conditions), Action::SetTaints(taints), Action::MarkNotReady(_)] = &decision.actions[..]
    else {
        panic!("{:?}", decision.actions)
    };
    assert!(conditions.iter().all(|c| c.status == "Unknown"));
    let keys: Vec<_> = taints.iter().map(|t| (t.key.as_str(), t.effect.as_str())).collect();
    assert_eq!(keys, [(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]);
}

#[test]
fn pods_leave_when_their_tolerations_run_out() {
    let tainted = node(|n| {
        n["status"]["conditions"][0]["status"] = "False".into();
        n["spec"]["taints"] = json!([{"key": NOT_READY, "effect": "NoSchedule"},
            {"key": NOT_READY, "effect": "NoExecute", "timeAdded": "1970-01-01T00:00:10Z"}]);
    });
    let pods = [
        pod("none", json!([])),
        pod("short", json!([{"key": NOT_READY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}])),
        pod(
            "usual",
            json!([{"key": NOT_READY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]),
        ),
        pod("forever", json!([{"operator": "Exists"}])),
    ];
    let decision = decide(&View { node: &tainted, pods: &pods, renewed: at(19), now: at(20) });
    assert_eq!(decision.actions, [Action::Evict(pods[0].clone()), Action::Evict(pods[1].clone())]);
    assert_eq!(decision.wake_at, Some(at(59)), "the earlier of patience and toleration");
}

#[test]
fn taints_of_others_stay_and_ours_follow_the_conditions() {
    let other = json!({"key": "dedicated", "value": "x", "effect": "NoSchedule"});
    let recovered = node(|n| {
        n["spec"] = json!({"unschedulable": true, "taints": [other, {"key": UNREACHABLE, "effect": "NoExecute"}]});
        n["status"]["conditions"][1]["status"] = "True".into();
    });
    let decision = run(&recovered, &[], 1);
    let [Action::SetTaints(taints)] = &decision.actions[..] else { panic!("{:?}", decision.actions) };
    let keys: Vec<_> = taints.iter().map(|t| t.key.as_str()).collect();
    assert_eq!(keys, ["dedicated", "node.kubernetes.io/disk-pressure", UNSCHEDULABLE]);
    let mut after = recovered.clone();
    after.spec.as_mut().unwrap().taints = Some(taints.clone());
    assert!(run(&after, &[], 1).actions.is_empty(), "a second pass does nothing");
}
