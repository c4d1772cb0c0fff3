//! What clients read before anything else: version, health, discovery, OpenAPI.

use http::Request;
use serde_json::{Value, json};

use crate::cluster::{Cluster, admin};

#[tokio::test]
async fn version_and_health_are_those_of_a_kubernetes_server() {
    let cluster = Cluster::start().await;
    let version = cluster.get("/version").await.ok();
    assert_eq!(
        (&version["gitVersion"], &version["major"], &version["minor"]),
        (&json!("v1.36.0"), &json!("1"), &json!("36"))
    );
    assert_eq!(cluster.get("/readyz").await.ok(), json!("ok"));
    let verbose = cluster.get("/livez?verbose").await.ok();
    let verbose = verbose.as_str().expect("text");
    assert!(verbose.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n"), "{verbose}");
    assert!(verbose.ends_with("livez check passed\n"), "{verbose}");
}

#[tokio::test]
async fn discovery_lists_groups_versions_and_resources() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.get("/api").await.ok()["versions"], json!(["v1"]));
    let groups = cluster.get("/apis").await.ok();
    let names: Vec<&str> =
        groups["groups"].as_array().expect("groups").iter().filter_map(|group| group["name"].as_str()).collect();
    assert!(names.contains(&"apps") && names.contains(&"rbac.authorization.k8s.io"), "{names:?}");
    let core = cluster.get("/api/v1").await.ok();
    let find = |name: &str| {
        core["resources"]
            .as_array()
            .expect("resources")
            .iter()
            .find(|one| one["name"] == name)
            .cloned()
            .expect("the resource")
    };
    assert_eq!(find("pods")["shortNames"], json!(["po"]));
    assert_eq!(find("pods/log")["kind"], "Pod");
    assert_eq!(cluster.get("/apis/apps").await.ok()["preferredVersion"]["groupVersion"], "apps/v1");
    assert_eq!(cluster.get("/apis/none").await.code, 404);
    assert_eq!(cluster.get("/apis/none/v1").await.code, 404);
}

#[tokio::test]
async fn aggregated_discovery_is_one_document_for_all_groups() {
    let cluster = Cluster::start().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let request = Request::builder().uri("/apis").header("accept", accept).body(bytes::Bytes::new()).expect("request");
    let response = cluster.send(admin(), request).await;
    assert_eq!(
        response.headers()["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let document: Value = serde_json::from_slice(&response.into_body().collect().await).expect("JSON");
    let apps = document["items"]
        .as_array()
        .expect("items")
        .iter()
        .find(|group| group["metadata"]["name"] == "apps")
        .expect("apps");
    let deployments = apps["versions"][0]["resources"]
        .as_array()
        .expect("resources")
        .iter()
        .find(|one| one["resource"] == "deployments")
        .expect("deployments");
    assert_eq!(deployments["scope"], "Namespaced");
    assert_eq!(deployments["responseKind"], json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
    let scale = deployments["subresources"]
        .as_array()
        .expect("subresources")
        .iter()
        .find(|one| one["subresource"] == "scale")
        .expect("scale");
    assert_eq!(scale["responseKind"]["group"], "autoscaling");
}
