//! Deletion: grace, finalizers, preconditions, namespaces.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, PODS, config_map, pod};

async fn bound_pod(cluster: &Cluster, name: &str) {
    cluster.create(PODS, pod(name)).await;
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
    cluster.create(&format!("{PODS}/{name}/binding"), binding).await;
}

#[tokio::test]
async fn deleting_answers_with_a_status_that_names_the_object() {
    let cluster = Cluster::start().await;
    let made = cluster.create(CONFIG_MAPS, config_map("a")).await;
    let status = cluster.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    assert_eq!(status["status"], "Success");
    assert_eq!(status["details"], json!({"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}));
    cluster.delete(&format!("{CONFIG_MAPS}/a")).await.fails(404, "NotFound", "configmaps \"a\" not found");
}

#[tokio::test]
async fn a_running_pod_is_marked_and_goes_when_its_node_says_so() {
    let cluster = Cluster::start().await;
    bound_pod(&cluster, "a").await;
    let uri = format!("{PODS}/a");
    let marked = cluster.delete(&uri).await.ok();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let again = cluster.delete(&uri).await.ok();
    assert_eq!(again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"], "nothing new was asked");
    let shorter = cluster.delete(&format!("{uri}?gracePeriodSeconds=5")).await.ok();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    cluster.call(Method::DELETE, &uri, json!({"gracePeriodSeconds": 0})).await.ok();
    assert_eq!(cluster.get(&uri).await.code, 404);
}

#[tokio::test]
async fn a_pod_that_was_never_placed_goes_at_once() {
    let cluster = Cluster::start().await;
    cluster.create(PODS, pod("a")).await;
    cluster.delete(&format!("{PODS}/a")).await.ok();
    assert_eq!(cluster.get(&format!("{PODS}/a")).await.code, 404);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_one_is_taken_off() {
    let cluster = Cluster::start().await;
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.create(CONFIG_MAPS, object).await;
    let uri = format!("{CONFIG_MAPS}/a");
    let held = cluster.call(Method::DELETE, &uri, json!({"propagationPolicy": "Foreground"})).await.ok();
    assert_eq!(held["metadata"]["finalizers"], json!(["example.com/hold", "foregroundDeletion"]));
    let mut events = cluster
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&resourceVersion={}",
            held["metadata"]["resourceVersion"].as_str().expect("version")
        ))
        .await;
    cluster.patch(&uri, "merge", json!({"metadata": {"finalizers": ["foregroundDeletion"]}})).await.ok();
    cluster.patch(&uri, "merge", json!({"metadata": {"finalizers": null}})).await.ok();
    assert_eq!(cluster.get(&uri).await.code, 404);
    assert_eq!(events.name().await.0, "MODIFIED");
    assert_eq!(events.name().await.0, "DELETED");
}

#[tokio::test]
async fn preconditions_protect_an_object_of_the_same_name() {
    let cluster = Cluster::start().await;
    let made = cluster.create(CONFIG_MAPS, config_map("a")).await;
    let uri = format!("{CONFIG_MAPS}/a");
    let wrong = cluster.call(Method::DELETE, &uri, json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!((wrong.code, wrong.body["reason"].as_str()), (409, Some("Conflict")));
    cluster.call(Method::DELETE, &uri, json!({"preconditions": {"uid": made["metadata"]["uid"]}})).await.ok();
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let cluster = Cluster::start().await;
    for (name, tier) in [("a", "web"), ("b", "web"), ("c", "db")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"tier": tier});
        cluster.create(CONFIG_MAPS, object).await;
    }
    cluster.delete(&format!("{CONFIG_MAPS}?labelSelector=tier%3Dweb")).await.ok();
    let left = cluster.get(CONFIG_MAPS).await.ok();
    assert_eq!(left["items"].as_array().expect("items").len(), 1);
}

#[tokio::test]
async fn a_namespace_terminates_takes_nothing_new_and_goes_when_it_is_finalized() {
    let cluster = Cluster::start().await;
    let made = cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "a"}})).await;
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "a");
    assert_eq!((&made["spec"]["finalizers"], &made["status"]["phase"]), (&json!(["kubernetes"]), &json!("Active")));
    let mut going = cluster.delete("/api/v1/namespaces/a").await.ok();
    assert_eq!(going["status"]["phase"], "Terminating");
    let late = cluster.call(Method::POST, "/api/v1/namespaces/a/configmaps", config_map("x")).await;
    assert_eq!((late.code, late.body["details"]["causes"][0]["reason"].as_str()), (403, Some("NamespaceTerminating")));
    going["spec"]["finalizers"] = json!([]);
    cluster.call(Method::PUT, "/api/v1/namespaces/a/finalize", going).await.ok();
    assert_eq!(cluster.get("/api/v1/namespaces/a").await.code, 404);
    let immortal = cluster.delete("/api/v1/namespaces/default").await;
    immortal.fails(403, "Forbidden", "namespaces \"default\" is forbidden: this namespace may not be deleted");
}

#[tokio::test]
async fn a_dry_run_deletes_nothing() {
    let cluster = Cluster::start().await;
    cluster.create(CONFIG_MAPS, config_map("a")).await;
    cluster.call(Method::DELETE, &format!("{CONFIG_MAPS}/a"), json!({"dryRun": ["All"]})).await.ok();
    let still: Value = cluster.get(&format!("{CONFIG_MAPS}/a")).await.ok();
    assert!(still["metadata"].get("deletionTimestamp").is_none());
}
