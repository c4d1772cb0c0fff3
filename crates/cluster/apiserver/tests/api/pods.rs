//! Pods: what admission adds, binding, eviction, scale.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, PODS, pod, version};

#[tokio::test]
async fn a_pod_gets_its_account_token_volume_tolerations_and_priority() {
    let cluster = Cluster::start().await;
    let made = cluster.create(PODS, pod("a")).await;
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["status"]["phase"], "Pending");
    let volume = &made["spec"]["volumes"][0];
    assert!(volume["name"].as_str().expect("name").starts_with("kube-api-access-"));
    assert_eq!(volume["projected"]["sources"][1]["configMap"]["name"], "kube-root-ca.crt");
    let mount = &made["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(
        (&mount["name"], &mount["mountPath"]),
        (&volume["name"], &json!("/var/run/secrets/kubernetes.io/serviceaccount"))
    );
    let keys: Vec<&str> = made["spec"]["tolerations"]
        .as_array()
        .expect("tolerations")
        .iter()
        .filter_map(|one| one["key"].as_str())
        .collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    assert_eq!(made["spec"]["priority"], 0);
    let mut critical = pod("b");
    critical["spec"]["priorityClassName"] = "system-node-critical".into();
    let critical = cluster.create(PODS, critical).await;
    assert_eq!(critical["spec"]["priority"], 2_000_001_000);
}

#[tokio::test]
async fn a_pod_of_a_missing_account_or_priority_class_is_forbidden() {
    let cluster = Cluster::start().await;
    let mut lost = pod("a");
    lost["spec"]["serviceAccountName"] = "nobody".into();
    let answer = cluster.call(Method::POST, PODS, lost).await;
    answer.fails(
        403,
        "Forbidden",
        "pods \"a\" is forbidden: error looking up service account default/nobody: serviceaccount \"nobody\" not found",
    );
    let mut lost = pod("a");
    lost["spec"]["priorityClassName"] = "none".into();
    let answer = cluster.call(Method::POST, PODS, lost).await;
    answer.fails(403, "Forbidden", "pods \"a\" is forbidden: no PriorityClass with name none was found");
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let cluster = Cluster::start().await;
    cluster.create(PODS, pod("a")).await;
    let binding = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"}, "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
    cluster.create(&format!("{PODS}/a/binding"), binding("n1")).await;
    let bound = cluster.get(&format!("{PODS}/a")).await.ok();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let again = cluster.call(Method::POST, &format!("{PODS}/a/binding"), binding("n2")).await;
    again.fails(
        409,
        "Conflict",
        "Operation cannot be fulfilled on pods \"a\": pod a is already assigned to node \"n1\"",
    );
    let by_node = cluster.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn1")).await.ok();
    assert_eq!(by_node["items"].as_array().expect("items").len(), 1);
}

#[tokio::test]
async fn the_status_subresource_changes_status_alone() {
    let cluster = Cluster::start().await;
    let made = cluster.create(PODS, pod("a")).await;
    let mut changed = made.clone();
    changed["status"]["phase"] = "Running".into();
    changed["spec"]["containers"][0]["image"] = "other".into();
    let after = cluster.call(Method::PUT, &format!("{PODS}/a/status"), changed.clone()).await.ok();
    assert_eq!(
        (&after["status"]["phase"], &after["spec"]["containers"][0]["image"]),
        (&json!("Running"), &json!("web"))
    );
    changed["metadata"]["resourceVersion"] = after["metadata"]["resourceVersion"].clone();
    changed["status"]["phase"] = "Failed".into();
    let after = cluster.call(Method::PUT, &format!("{PODS}/a"), changed).await.ok();
    assert_eq!(
        (&after["status"]["phase"], &after["spec"]["containers"][0]["image"]),
        (&json!("Running"), &json!("other"))
    );
}

#[tokio::test]
async fn eviction_is_refused_while_a_disruption_budget_allows_none() {
    let cluster = Cluster::start().await;
    let mut labelled = pod("a");
    labelled["metadata"]["labels"] = json!({"app": "web"});
    cluster.create(PODS, labelled).await;
    cluster.patch(&format!("{PODS}/a/status"), "merge", json!({"status": {"phase": "Running"}})).await.ok();
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    cluster.create("/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let refused = cluster.call(Method::POST, &format!("{PODS}/a/eviction"), eviction.clone()).await;
    refused.fails(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
    let allowed =
        json!({"status": {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    cluster.patch("/apis/policy/v1/namespaces/default/poddisruptionbudgets/b/status", "merge", allowed).await.ok();
    cluster.create(&format!("{PODS}/a/eviction"), eviction).await;
    assert_eq!(cluster.get(&format!("{PODS}/a")).await.code, 404);
}

fn deployment() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "nginx"}]},
    }}})
}

#[tokio::test]
async fn scale_reads_and_writes_the_replicas_and_counts_a_generation() {
    let cluster = Cluster::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let made = cluster.create(deployments, deployment()).await;
    assert_eq!(made["metadata"]["generation"], 1);
    let scale = cluster.get(&format!("{deployments}/web/scale")).await.ok();
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["selector"]),
        (&json!("Scale"), &json!(2), &json!("app=web"))
    );
    let scaled =
        cluster.patch(&format!("{deployments}/web/scale"), "merge", json!({"spec": {"replicas": 5}})).await.ok();
    assert_eq!(scaled["spec"]["replicas"], 5);
    let stale = cluster.call(Method::PUT, &format!("{deployments}/web/scale"), scale).await;
    assert_eq!(stale.code, 409);
    let now = cluster.get(&format!("{deployments}/web")).await.ok();
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(5), &json!(2)));
    assert_eq!(version(&now), version(&scaled));
    let negative = cluster.patch(&format!("{deployments}/web/scale"), "merge", json!({"spec": {"replicas": -1}})).await;
    assert_eq!(negative.code, 422);
}
