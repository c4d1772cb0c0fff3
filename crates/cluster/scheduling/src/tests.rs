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

/// The filters' part of the message.
fn why(pod: &Pod, snapshot: &mut Snapshot) -> String {
    match place(pod, snapshot, 0) {
        Placement::Nowhere(message) => message.split(" preemption: ").next().unwrap_or_default().to_owned(),
        other => panic!("placed: {other:?}"),
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
        let mut snapshot = snapshot(vec![node("one", change_node)], vec![]);
        assert_eq!(why(&pod("p", change_pod), &mut snapshot), format!("0/1 nodes are available: 1 {reason}."));
    }
    assert_eq!(why(&plain("p"), &mut Snapshot::default()), "no nodes available to schedule pods");
}

#[test]
fn reasons_of_all_nodes_are_counted_and_sorted() {
    let nodes = vec![
        node("a", |n| n["status"]["allocatable"]["cpu"] = "100m".into()),
        node("b", |n| n["status"]["allocatable"] = json!({"cpu": "100m", "memory": "1Mi", "pods": "5"})),
        node("c", |n| n["spec"]["unschedulable"] = true.into()),
    ];
    assert_eq!(
        why(&plain("p"), &mut snapshot(nodes, vec![])),
        "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu."
    );
}

#[test]
fn a_toleration_opens_a_tainted_or_cordoned_node() {
    let cordoned = node("one", |n| {
        n["spec"] = json!({"unschedulable": true, "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]});
    });
    let tolerant = pod("p", |p| p["spec"]["tolerations"] = json!([{"operator": "Exists"}]));
    assert_eq!(place(&tolerant, &mut snapshot(vec![cordoned], vec![]), 0), Placement::Node("one".into()));
}

#[test]
fn room_is_what_running_pods_leave_and_ended_pods_leave_all() {
    let done = pod("done", |p| p["status"] = json!({"phase": "Succeeded"}));
    let full =
        vec![("one", plain("a")), ("one", plain("b")), ("one", plain("c")), ("one", plain("d")), ("one", done.clone())];
    assert!(why(&plain("p"), &mut snapshot(vec![node("one", |_| {})], full)).contains("Insufficient cpu"));
    let free = vec![("one", plain("a")), ("one", done.clone()), ("one", done.clone()), ("one", done)];
    assert_eq!(place(&plain("p"), &mut snapshot(vec![node("one", |_| {})], free), 0), Placement::Node("one".into()));
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
        let mut snapshot = snapshot(vec![node("one", |_| {})], vec![("one", with_port("a", there.0, there.1))]);
        let placed = place(&with_port("p", wanted.0, wanted.1), &mut snapshot, 0);
        assert_eq!(matches!(placed, Placement::Nowhere(_)), clash, "{there:?} {wanted:?}");
    }
}

#[test]
fn pods_spread_over_nodes_and_prefer_the_emptier_one() {
    let nodes = vec![node("a", |_| {}), node("b", |_| {})];
    let mut snapshot = snapshot(nodes, vec![("a", plain("x"))]);
    for expected in ["b", "a", "b"] {
        let Placement::Node(name) = place(&plain("p"), &mut snapshot, 0) else { panic!() };
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
    assert!(why(&loner("p"), &mut world(plain("x"))).contains("didn't match pod anti-affinity rules"));
    assert!(why(&plain("p"), &mut world(loner("x"))).contains("didn't satisfy existing pods anti-affinity rules"));
    let elsewhere = pod("x", |p| p["metadata"]["namespace"] = "other".into());
    assert_eq!(place(&loner("p"), &mut world(elsewhere), 0), Placement::Node("one".into()), "another namespace");
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
    assert!(matches!(place(&social("p"), &mut snapshot(nodes(), vec![]), 0), Placement::Node(_)));
    let joined = place(&social("p"), &mut snapshot(nodes(), vec![("b", plain("x")), ("b", plain("y"))]), 0);
    assert_eq!(joined, Placement::Node("b".into()));
}

#[test]
fn spread_constraints_bound_the_skew() {
    let spread = pod("p", |p| {
        p["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}])
    });
    let nodes = || vec![node("a", |_| {}), node("b", |n| n["metadata"]["labels"]["zone"] = "b".into())];
    assert_eq!(place(&spread, &mut snapshot(nodes(), vec![("a", plain("x"))]), 0), Placement::Node("b".into()));
    let full_b = vec![
        node("a", |_| {}),
        node("b", |n| {
            n["metadata"]["labels"]["zone"] = "b".into();
            n["status"]["allocatable"]["cpu"] = "1m".into();
        }),
    ];
    let message = why(&spread, &mut snapshot(full_b, vec![("a", plain("x"))]));
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
            match place(&pod, &mut snapshot, seed.wrapping_add(n as u64)) {
                Placement::Node(name) => {
                    prop_assert!(snapshot.nodes.iter().any(|info| info.name() == name && room(info)));
                    snapshot.assign(&name, pod);
                }
                Placement::Nowhere(_) => prop_assert!(!snapshot.nodes.iter().any(room)),
                Placement::Preempt { .. } => prop_assert!(false, "all count the same"),
            }
        }
    }
}

fn with_priority(name: &str, priority: i32, cpu: &str) -> Arc<Pod> {
    pod(name, |p| {
        p["spec"]["priority"] = priority.into();
        p["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": cpu});
        p["metadata"]["uid"] = name.into();
    })
}

fn victims(placement: &Placement) -> (String, Vec<String>) {
    let Placement::Preempt { node, victims, .. } = placement else { panic!("{placement:?}") };
    (node.clone(), victims.iter().filter_map(|p| p.metadata.name.clone()).collect())
}

#[test]
fn preemption_takes_as_few_and_as_unimportant_pods_as_it_can() {
    let nodes = vec![node("a", |_| {}), node("b", |_| {})];
    let there = vec![
        ("a", with_priority("a1", 5, "1")),
        ("a", with_priority("a2", 5, "1")),
        ("b", with_priority("b1", 1, "500m")),
        ("b", with_priority("b2", 2, "500m")),
        ("b", with_priority("b3", 20, "1")),
    ];
    let mut snapshot = snapshot(nodes, there);
    let before: Vec<usize> = snapshot.nodes.iter().map(|n| n.pods.len()).collect();
    let found = place(&with_priority("vip", 10, "500m"), &mut snapshot, 0);
    assert_eq!(victims(&found), ("b".into(), vec!["b1".into()]));
    let found = place(&with_priority("vip", 10, "1"), &mut snapshot, 0);
    assert_eq!(victims(&found), ("b".into(), vec!["b2".into(), "b1".into()]), "lowest of the highest priorities");
    let after: Vec<usize> = snapshot.nodes.iter().map(|n| n.pods.len()).collect();
    assert_eq!(before, after, "nothing has moved yet");
    let nobody = place(&with_priority("low", 0, "1"), &mut snapshot, 0);
    let expected = "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: \
        2 No preemption victims found for incoming pod.";
    assert_eq!(nobody, Placement::Nowhere(expected.into()));
    let too_large = place(&with_priority("vip", 10, "3"), &mut snapshot, 0);
    let expected = "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: \
        2 Preemption is not helpful for scheduling.";
    assert_eq!(too_large, Placement::Nowhere(expected.into()));
    let polite = pod("polite", |p| {
        p["spec"]["priority"] = 10.into();
        p["spec"]["preemptionPolicy"] = "Never".into();
        p["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": "1"});
    });
    let Placement::Nowhere(message) = place(&polite, &mut snapshot, 0) else { panic!() };
    assert!(message.ends_with("preemption: not eligible due to preemptionPolicy=Never."), "{message}");
}

#[test]
fn preemption_spares_pods_that_a_budget_keeps() {
    let nodes = vec![node("a", |_| {}), node("b", |_| {})];
    let kept = pod("kept", |p| {
        p["metadata"]["labels"] = json!({"app": "kept"});
        p["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": "2"});
    });
    let mut snapshot = snapshot(nodes, vec![("a", kept), ("b", with_priority("important", 5, "2"))]);
    let budget = json!({"metadata": {"namespace": "n"}, "spec": {"selector": {"matchLabels": {"app": "kept"}}},
        "status": {"disruptionsAllowed": 0}});
    snapshot.budgets = vec![Arc::new(serde_json::from_value(budget).unwrap())];
    let found = place(&with_priority("vip", 10, "1"), &mut snapshot, 0);
    assert_eq!(victims(&found).0, "b", "a more important pod rather than a broken budget");
}

#[test]
fn promised_room_is_kept_for_the_pod_that_it_was_promised_to() {
    let mut snapshot = snapshot(vec![node("a", |_| {})], vec![]);
    let vip = with_priority("vip", 10, "2");
    snapshot.nominate("a", &vip);
    assert!(why(&with_priority("low", 0, "1"), &mut snapshot).contains("Insufficient cpu"));
    assert_eq!(place(&vip, &mut snapshot, 0), Placement::Node("a".into()));
    assert_eq!(place(&with_priority("higher", 20, "1"), &mut snapshot, 0), Placement::Node("a".into()));
}

#[test]
fn wishes_about_other_pods_move_the_score_in_both_directions() {
    let nodes = || vec![node("a", |_| {}), node("b", |_| {})];
    let wish = |kind: &str, name: &str| {
        pod(name, |p| {
            p["metadata"]["labels"] = json!({"app": "seeker"});
            p["spec"]["affinity"] = json!({kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100,
                "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}}]}});
        })
    };
    let there = || vec![("a", plain("x"))];
    let placed = |p: &Pod, s: Vec<(&str, Arc<Pod>)>| place(p, &mut snapshot(nodes(), s), 0);
    assert_eq!(placed(&wish("podAffinity", "p"), there()), Placement::Node("a".into()));
    assert_eq!(placed(&wish("podAntiAffinity", "p"), there()), Placement::Node("b".into()));
    let seeker_runs = vec![("a", wish("podAffinity", "s"))];
    assert_eq!(placed(&plain("p"), seeker_runs), Placement::Node("a".into()), "a running pod's wish counts too");
}

#[test]
fn soft_spreading_prefers_the_emptier_domain_and_policies_choose_the_domains() {
    let zone = |name: &str, zone: &str, change: fn(&mut Value)| {
        node(name, |n| {
            n["metadata"]["labels"]["zone"] = zone.into();
            change(n);
        })
    };
    let rule = |when: &str, more: Value| {
        let mut rule = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": "web"}}});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        pod("p", move |p| p["spec"]["topologySpreadConstraints"] = json!([rule]))
    };
    let two = || vec![zone("a", "a", |_| {}), zone("b", "b", |_| {})];
    let crowded = || vec![("a", plain("x")), ("a", plain("y")), ("b", plain("z"))];
    let soft = rule("ScheduleAnyway", json!({}));
    assert_eq!(place(&soft, &mut snapshot(two(), crowded()), 0), Placement::Node("b".into()));
    // An empty zone whose only node is tainted: by default it counts as a domain, which nobody can fill.
    let tainted = || {
        let taint: fn(&mut Value) = |n| n["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]);
        vec![zone("a", "a", |_| {}), zone("t", "t", taint)]
    };
    let one = || vec![("a", plain("x"))];
    assert!(why(&rule("DoNotSchedule", json!({})), &mut snapshot(tainted(), one())).contains("topology spread"));
    let honouring = rule("DoNotSchedule", json!({"nodeTaintsPolicy": "Honor"}));
    assert_eq!(place(&honouring, &mut snapshot(tainted(), one()), 0), Placement::Node("a".into()));
    let many = rule("DoNotSchedule", json!({"minDomains": 3}));
    let full = vec![("a", plain("x")), ("b", plain("y"))];
    assert!(why(&many, &mut snapshot(two(), full)).contains("topology spread"), "a third zone is waited for");
    let by_version = rule("DoNotSchedule", json!({"matchLabelKeys": ["version"]}));
    let mut by_version = Pod::clone(&by_version);
    by_version.metadata.labels.as_mut().unwrap().insert("version".into(), "2".into());
    let placed = place(&by_version, &mut snapshot(vec![zone("a", "a", |_| {})], one()), 0);
    assert_eq!(placed, Placement::Node("a".into()), "pods of another version do not count");
}

#[test]
fn images_that_are_there_attract() {
    let has = |n: &mut Value| n["status"]["images"] = json!([{"names": ["web:1"], "sizeBytes": 900 << 20}]);
    let nodes = vec![node("a", |_| {}), node("b", has)];
    assert_eq!(place(&plain("p"), &mut snapshot(nodes, vec![]), 0), Placement::Node("b".into()));
}

#[test]
fn volumes_decide_where_a_pod_can_be() {
    let user = pod("p", |p| p["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]));
    let fresh = || snapshot(vec![node("a", |_| {}), node("b", |_| {})], vec![]);
    let claim = |spec: Value| Arc::new(serde_json::from_value(json!({"spec": spec})).unwrap());
    assert!(why(&user, &mut fresh()).contains("persistentvolumeclaim \"c\" not found"));
    let mut immediate = fresh();
    immediate.volumes.claims.insert("n/c".into(), claim(json!({})));
    assert!(why(&user, &mut immediate).contains("pod has unbound immediate PersistentVolumeClaims"));
    let mut bound = fresh();
    bound.volumes.claims.insert("n/c".into(), claim(json!({"volumeName": "v"})));
    let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]});
    let volume = json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}});
    bound.volumes.volumes.insert("v".into(), Arc::new(serde_json::from_value(volume).unwrap()));
    assert_eq!(place(&user, &mut bound, 0), Placement::Node("b".into()));
    let mut waiting = fresh();
    waiting.volumes.claims.insert("n/c".into(), claim(json!({"storageClassName": "l"})));
    let class = json!({"provisioner": "x", "volumeBindingMode": "WaitForFirstConsumer", "allowedTopologies": [
        {"matchLabelExpressions": [{"key": "kubernetes.io/hostname", "values": ["a"]}]}]});
    waiting.volumes.classes.insert("l".into(), Arc::new(serde_json::from_value(class).unwrap()));
    assert_eq!(place(&user, &mut waiting, 0), Placement::Node("a".into()));
    let alone = || claim(json!({"volumeName": "v", "accessModes": ["ReadWriteOncePod"]}));
    let mut taken = snapshot(vec![node("a", |_| {})], vec![("a", user.clone())]);
    taken.volumes.claims.insert("n/c".into(), alone());
    taken.volumes.volumes.insert("v".into(), Arc::new(serde_json::from_value(json!({"spec": {}})).unwrap()));
    let second =
        pod("q", |p| p["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]));
    assert!(why(&second, &mut taken).contains("ReadWriteOncePod access mode"));
}

proptest! {
    /// Counts that are kept while pods come and go are those of a fresh look.
    #[test]
    fn a_snapshot_that_changed_decides_as_a_fresh_one(moves in proptest::collection::vec((0..6usize, 0..3usize), 1..12)) {
        let loner = |n: usize| pod(&n.to_string(), |p| {
            p["metadata"]["uid"] = n.to_string().into();
            p["metadata"]["labels"]["app"] = format!("app{}", n % 2).into();
            p["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": "100m"});
            p["spec"]["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": format!("app{}", n % 2)}}}]}});
        });
        let names = ["a", "b"];
        let zoned = |name: &str| node(name, |n| n["metadata"]["labels"]["zone"] = name.into());
        let mut kept = snapshot(names.map(zoned).to_vec(), vec![]);
        let mut there: std::collections::BTreeMap<usize, usize> = Default::default();
        for (which, to) in moves {
            if to == 2 {
                kept.remove(&loner(which));
                there.remove(&which);
            } else {
                kept.assign(names[to], loner(which));
                there.insert(which, to);
            }
            let mut fresh = snapshot(names.map(zoned).to_vec(), there.iter().map(|(p, n)| (names[*n], loner(*p))).collect());
            for probe in [8, 9] {
                let (ours, theirs) = (place(&loner(probe), &mut kept, 0), place(&loner(probe), &mut fresh, 0));
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
