use super::*;
use k8s_openapi::api::core::v1::Node;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

fn node(name: &str, change: impl FnOnce(&mut Value)) -> Arc<Node> {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": "a"}}, "spec": {},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}
    });
    change(&mut value);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "n", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "web:1", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}]}
    });
    change(&mut value);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn plain(name: &str) -> Arc<Pod> {
    pod(name, |_| {})
}

fn snapshot(nodes: Vec<Arc<Node>>, bound: Vec<(&str, Arc<Pod>)>) -> Snapshot {
    Snapshot::new(nodes, bound.into_iter().map(|(node, pod)| (node.to_owned(), pod)))
}

fn why(pod: &Pod, snapshot: &Snapshot) -> String {
    match place(pod, snapshot, 0) {
        Placement::Nowhere(message) => message,
        Placement::Node(name) => panic!("placed on {name}"),
    }
}

#[test]
fn each_filter_says_in_kubernetes_words_why_a_node_is_out() {
    type Change = fn(&mut Value);
    let same: Change = |_| {};
    let cases: [(Change, Change, &str); 10] = [
        (|n| n["spec"]["unschedulable"] = true.into(), same, "node(s) were unschedulable"),
        (
            |n| n["spec"]["taints"] = json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]),
            same,
            "node(s) had untolerated taint {k: v}",
        ),
        (
            same,
            |p| p["spec"]["nodeSelector"] = json!({"disk": "ssd"}),
            "node(s) didn't match Pod's node affinity/selector",
        ),
        (
            same,
            |p| {
                p["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}]}}})
            },
            "node(s) didn't match Pod's node affinity/selector",
        ),
        (same, |p| p["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "3".into(), "Insufficient cpu"),
        (same, |p| p["spec"]["containers"][0]["resources"]["requests"]["memory"] = "5Gi".into(), "Insufficient memory"),
        (
            same,
            |p| p["spec"]["containers"][0]["resources"]["requests"]["example.com/gpu"] = "1".into(),
            "Insufficient example.com/gpu",
        ),
        (|n| n["status"]["allocatable"]["pods"] = "0".into(), same, "Too many pods"),
        (
            same,
            |p| {
                p["spec"]["topologySpreadConstraints"] =
                    json!([{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}])
            },
            "node(s) didn't match pod topology spread constraints (missing required label)",
        ),
        (
            same,
            |p| {
                p["spec"]["affinity"] = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "db"}}}]}})
            },
            "node(s) didn't match pod affinity rules",
        ),
    ];
    for (change_node, change_pod, reason) in cases {
        let snapshot = snapshot(vec![node("one", change_node)], vec![]);
        assert_eq!(why(&pod("p", change_pod), &snapshot), format!("0/1 nodes are available: 1 {reason}."));
    }
    assert_eq!(why(&plain("p"), &Snapshot::default()), "no nodes available to schedule pods");
}

#[test]
fn reasons_of_all_nodes_are_counted_and_sorted() {
    let nodes = vec![
        node("a", |n| n["status"]["allocatable"]["cpu"] = "100m".into()),
        node("b", |n| n["status"]["allocatable"] = json!({"cpu": "100m", "memory": "1Mi", "pods": "5"})),
        node("c", |n| n["spec"]["unschedulable"] = true.into()),
    ];
    assert_eq!(
        why(&plain("p"), &snapshot(nodes, vec![])),
        "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu."
    );
}

#[test]
fn a_toleration_opens_a_tainted_or_cordoned_node() {
    let cordoned = node("one", |n| {
        n["spec"] = json!({"unschedulable": true, "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]});
    });
    let tolerant = pod("p", |p| p["spec"]["tolerations"] = json!([{"operator": "Exists"}]));
    assert_eq!(place(&tolerant, &snapshot(vec![cordoned], vec![]), 0), Placement::Node("one".into()));
}

#[test]
fn room_is_what_running_pods_leave_and_ended_pods_leave_all() {
    let done = pod("done", |p| p["status"] = json!({"phase": "Succeeded"}));
    let full =
        vec![("one", plain("a")), ("one", plain("b")), ("one", plain("c")), ("one", plain("d")), ("one", done.clone())];
    assert!(why(&plain("p"), &snapshot(vec![node("one", |_| {})], full)).contains("Insufficient cpu"));
    let free = vec![("one", plain("a")), ("one", done.clone()), ("one", done.clone()), ("one", done)];
    assert_eq!(place(&plain("p"), &snapshot(vec![node("one", |_| {})], free), 0), Placement::Node("one".into()));
}

#[test]
fn host_ports_clash_on_the_same_or_on_all_addresses() {
    let with_port = |name: &str, ip: &str, protocol: &str| {
        pod(name, |p| {
            p["spec"]["containers"][0]["ports"] =
                json!([{"containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": protocol}])
        })
    };
    for (there, wanted, clash) in [
        (("", "TCP"), ("", "TCP"), true),
        (("10.0.0.1", "TCP"), ("", "TCP"), true),
        (("10.0.0.1", "TCP"), ("10.0.0.2", "TCP"), false),
        (("", "UDP"), ("", "TCP"), false),
    ] {
        let snapshot = snapshot(vec![node("one", |_| {})], vec![("one", with_port("a", there.0, there.1))]);
        let placed = place(&with_port("p", wanted.0, wanted.1), &snapshot, 0);
        assert_eq!(matches!(placed, Placement::Nowhere(_)), clash, "{there:?} {wanted:?}");
    }
}

#[test]
fn pods_spread_over_nodes_and_prefer_the_emptier_one() {
    let nodes = vec![node("a", |_| {}), node("b", |_| {})];
    let mut snapshot = snapshot(nodes, vec![("a", plain("x"))]);
    for expected in ["b", "a", "b"] {
        let Placement::Node(name) = place(&plain("p"), &snapshot, 0) else { panic!() };
        if expected == "b" {
            assert_eq!(name, "b");
        }
        snapshot.assign(&name, plain("p"));
    }
}

#[test]
fn anti_affinity_keeps_pods_apart_in_both_directions() {
    let loner = |name: &str| {
        pod(name, |p| {
            p["spec"]["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}})
        })
    };
    let world = |there: Arc<Pod>| snapshot(vec![node("one", |_| {})], vec![("one", there)]);
    assert!(why(&loner("p"), &world(plain("x"))).contains("didn't match pod anti-affinity rules"));
    assert!(why(&plain("p"), &world(loner("x"))).contains("didn't satisfy existing pods anti-affinity rules"));
    let elsewhere = pod("x", |p| p["metadata"]["namespace"] = "other".into());
    assert_eq!(place(&loner("p"), &world(elsewhere), 0), Placement::Node("one".into()), "another namespace");
}

#[test]
fn the_first_pod_of_a_group_that_seeks_itself_is_placed_and_the_next_joins_it() {
    let social = |name: &str| {
        pod(name, |p| {
            p["spec"]["affinity"] = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}}]}})
        })
    };
    let nodes = || vec![node("a", |_| {}), node("b", |n| n["metadata"]["labels"]["zone"] = "b".into())];
    assert!(matches!(place(&social("p"), &snapshot(nodes(), vec![]), 0), Placement::Node(_)));
    let joined = place(&social("p"), &snapshot(nodes(), vec![("b", plain("x")), ("b", plain("y"))]), 0);
    assert_eq!(joined, Placement::Node("b".into()));
}

#[test]
fn spread_constraints_bound_the_skew() {
    let spread = pod("p", |p| {
        p["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}])
    });
    let nodes = || vec![node("a", |_| {}), node("b", |n| n["metadata"]["labels"]["zone"] = "b".into())];
    assert_eq!(place(&spread, &snapshot(nodes(), vec![("a", plain("x"))]), 0), Placement::Node("b".into()));
    let full_b = vec![
        node("a", |_| {}),
        node("b", |n| {
            n["metadata"]["labels"]["zone"] = "b".into();
            n["status"]["allocatable"]["cpu"] = "1m".into();
        }),
    ];
    let message = why(&spread, &snapshot(full_b, vec![("a", plain("x"))]));
    assert!(message.contains("1 node(s) didn't match pod topology spread constraints"), "{message}");
}

#[test]
fn higher_priority_goes_first_then_the_older_pod() {
    let with = |name: &str, priority: i32, second: u8| {
        pod(name, |p| {
            p["spec"]["priority"] = priority.into();
            p["metadata"]["creationTimestamp"] = format!("2026-01-01T00:00:{second:02}Z").into();
        })
    };
    let mut pods = [with("young", 0, 9), with("old", 0, 1), with("vip", 5, 30)];
    pods.sort_by(|a, b| queue_order(a, b));
    assert_eq!(pods.map(|p| p.metadata.name.clone().unwrap()), ["vip", "old", "young"]);
}

proptest! {
    /// However pods arrive, no node is ever given more than it has, and no pod is refused while one has room.
    #[test]
    fn nodes_are_never_overfilled(cpus in proptest::collection::vec(1i64..2500, 1..30), seed: u64) {
        let mut snapshot = snapshot(vec![node("a", |_| {}), node("b", |_| {})], vec![]);
        for (n, cpu) in cpus.into_iter().enumerate() {
            let pod = pod(&n.to_string(), |p| p["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": format!("{cpu}m")}));
            let room = |info: &NodeInfo| info.pods.len() < 10 && info.requested.get("cpu") + cpu <= 2000;
            match place(&pod, &snapshot, seed.wrapping_add(n as u64)) {
                Placement::Node(name) => {
                    prop_assert!(snapshot.nodes.iter().any(|info| info.name() == name && room(info)));
                    snapshot.assign(&name, pod);
                }
                Placement::Nowhere(_) => prop_assert!(!snapshot.nodes.iter().any(room)),
            }
        }
    }
}
