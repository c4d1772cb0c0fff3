//! The four kinds of patch.

use serde_json::json;

use crate::cluster::{CONFIG_MAPS, Cluster, config_map, version};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test]
async fn json_merge_and_strategic_patches_change_what_they_name() {
    let cluster = Cluster::start().await;
    cluster.create(CONFIG_MAPS, config_map("a")).await;
    let uri = format!("{CONFIG_MAPS}/a");
    let after = cluster.patch(&uri, "json", json!([{"op": "add", "path": "/data/b", "value": "2"}])).await.ok();
    assert_eq!(after["data"], json!({"a": "1", "b": "2"}));
    let after = cluster.patch(&uri, "merge", json!({"data": {"a": null}})).await.ok();
    assert_eq!(after["data"], json!({"b": "2"}));
    let after = cluster.patch(&uri, "strategic-merge", json!({"metadata": {"labels": {"x": "y"}}})).await.ok();
    assert_eq!(after["metadata"]["labels"], json!({"x": "y"}));
    let missing = cluster.patch(&uri, "json", json!([{"op": "remove", "path": "/data/none"}])).await;
    assert_eq!(missing.code, 422);
    assert_eq!(cluster.patch(&uri, "odd", json!({})).await.code, 415);
    assert_eq!(cluster.patch(&format!("{CONFIG_MAPS}/none"), "merge", json!({})).await.code, 404);
}

#[tokio::test]
async fn a_strategic_patch_merges_containers_by_name() {
    let cluster = Cluster::start().await;
    cluster.create(DEPLOYMENTS, json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "one"}, {"name": "b", "image": "two"}]},
    }}})).await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "three"}]}}}});
    let after = cluster.patch(&format!("{DEPLOYMENTS}/web"), "strategic-merge", patch).await.ok();
    let images: Vec<&str> = after["spec"]["template"]["spec"]["containers"]
        .as_array()
        .expect("containers")
        .iter()
        .filter_map(|one| one["image"].as_str())
        .collect();
    assert_eq!(images.len(), 2);
    assert!(images.contains(&"one") && images.contains(&"three"), "{images:?}");
}

#[tokio::test]
async fn concurrent_patches_of_one_object_all_land() {
    let cluster = Cluster::start().await;
    cluster.create(CONFIG_MAPS, config_map("a")).await;
    let uri = format!("{CONFIG_MAPS}/a");
    let patches = (0..12).map(|index| cluster.patch(&uri, "merge", json!({"data": {format!("k{index}"): "v"}})));
    for answer in futures_util::future::join_all(patches).await {
        answer.ok();
    }
    let after = cluster.get(&uri).await.ok();
    assert_eq!(after["data"].as_object().expect("data").len(), 13);
}

#[tokio::test]
async fn a_patch_that_names_an_old_version_is_a_conflict() {
    let cluster = Cluster::start().await;
    let made = cluster.create(CONFIG_MAPS, config_map("a")).await;
    let uri = format!("{CONFIG_MAPS}/a");
    cluster.patch(&uri, "merge", json!({"data": {"a": "2"}})).await.ok();
    let stale = json!({"metadata": {"resourceVersion": version(&made).to_string()}, "data": {"a": "3"}});
    assert_eq!(cluster.patch(&uri, "merge", stale).await.code, 409);
}

#[tokio::test]
async fn server_side_apply_creates_owns_and_defends_fields() {
    let cluster = Cluster::start().await;
    let uri = format!("{CONFIG_MAPS}/a");
    let config =
        |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": value}});
    let created = cluster.patch(&format!("{uri}?fieldManager=one"), "apply", config("1")).await;
    assert_eq!(created.code, 201);
    let created = created.ok();
    assert_eq!(created["metadata"]["managedFields"][0]["manager"], "one");
    assert_eq!(created["metadata"]["managedFields"][0]["operation"], "Apply");
    let again = cluster.patch(&format!("{uri}?fieldManager=one"), "apply", config("1")).await.ok();
    assert_eq!(version(&again), version(&created), "nothing changed, so nothing is written");
    let conflict = cluster.patch(&format!("{uri}?fieldManager=two"), "apply", config("2")).await;
    assert_eq!((conflict.code, conflict.body["details"]["causes"][0]["field"].as_str()), (409, Some(".data.a")));
    let forced = cluster.patch(&format!("{uri}?fieldManager=two&force=true"), "apply", config("2")).await.ok();
    assert_eq!(forced["data"]["a"], "2");
    assert_eq!(cluster.patch(&uri, "apply", config("2")).await.code, 400);
}
