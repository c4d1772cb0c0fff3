//! An extension API server behind an APIService: availability, discovery, requests in the user's name.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, admin};
use crate::hook_server::HookServer;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

async fn condition(cluster: &Cluster, wanted: &str) -> Value {
    for _ in 0..500 {
        let found = cluster.get(&format!("{SERVICES}/v1.ext.example.com")).await.ok();
        let condition = found["status"]["conditions"][0].clone();
        if condition["reason"] == wanted {
            return condition;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never {wanted}: {}", cluster.get(&format!("{SERVICES}/v1.ext.example.com")).await.body);
}

#[tokio::test]
async fn an_extension_server_answers_for_its_group_once_it_is_available() {
    let cluster = Cluster::start().await;
    let server = HookServer::start(|path, _| match path.split('?').next() {
        Some("/apis/ext.example.com/v1") => json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "ext.example.com/v1", "resources": [
            {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get", "list"], "shortNames": ["th"]},
            {"name": "things/status", "singularName": "", "namespaced": true, "kind": "Thing", "verbs": ["get"]},
        ]}),
        Some(other) => json!({"kind": "Echo", "path": other}),
        None => Value::Null,
    })
    .await;
    let service = json!({"metadata": {"name": "v1.ext.example.com"}, "spec": {
        "group": "ext.example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15,
        "service": {"namespace": "default", "name": "hook"}, "caBundle": server.bundle,
    }});
    cluster.create(SERVICES, service).await;
    let condition_text = condition(&cluster, "ServiceNotFound").await;
    assert_eq!((&condition_text["status"], &condition_text["message"]), (&json!("False"), &json!("service/hook in \"default\" is not present")));
    assert_eq!(cluster.get("/apis/ext.example.com/v1/namespaces/default/things").await.code, 503);
    cluster.create("/api/v1/namespaces/default/services", json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 443}]}})).await;
    condition(&cluster, "MissingEndpoints").await;
    cluster.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", json!({
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": server.address.port(), "protocol": "TCP"}],
    })).await;
    assert_eq!(condition(&cluster, "Passed").await["status"], "True");
    let groups = cluster.get("/apis").await.ok();
    assert!(groups["groups"].as_array().expect("groups").iter().any(|group| group["name"] == "ext.example.com"));
    assert_eq!(cluster.get("/apis/ext.example.com/v1").await.ok()["resources"][0]["name"], "things");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let request = http::Request::builder().uri("/apis").header("accept", accept).body(bytes::Bytes::new()).expect("request");
    let document: Value = serde_json::from_slice(&cluster.send(admin(), request).await.into_body().collect().await).expect("JSON");
    let group = document["items"].as_array().expect("items").iter().find(|one| one["metadata"]["name"] == "ext.example.com").expect("the group");
    assert_eq!(group["versions"][0]["resources"][0]["subresources"][0]["subresource"], "status");
    let user = apiserver::Identity::new("jane", ["system:masters"]);
    let answer = cluster.call_as(user, Method::GET, "/apis/ext.example.com/v1/namespaces/default/things/a?x=1", "application/json", Value::Null).await;
    assert_eq!(answer.ok(), json!({"kind": "Echo", "path": "/apis/ext.example.com/v1/namespaces/default/things/a"}));
    let (path, headers, _) = server.last();
    assert_eq!(path, "/apis/ext.example.com/v1/namespaces/default/things/a?x=1");
    assert_eq!(headers["x-remote-user"], "jane");
    let groups: Vec<_> = headers.get_all("x-remote-group").iter().collect();
    assert_eq!(groups, ["system:masters", "system:authenticated"]);
    assert!(headers.get("authorization").is_none());
    let stranger = apiserver::Identity::new("bob", [""; 0]);
    let answer = cluster.call_as(stranger, Method::GET, "/apis/ext.example.com/v1/namespaces/default/things", "application/json", Value::Null).await;
    assert_eq!(answer.code, 403);
    let map = cluster.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await.ok();
    assert_eq!(map["data"]["requestheader-allowed-names"], "[\"front-proxy-client\"]");
}

#[tokio::test]
async fn what_is_served_here_has_apiservices_of_its_own() {
    let cluster = Cluster::start().await;
    cluster.create(crate::custom::DEFINITIONS, crate::custom::definition()).await;
    let mut found = cluster.get(&format!("{SERVICES}/v1.stable.example.com")).await;
    for _ in 0..500 {
        if found.code == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        found = cluster.get(&format!("{SERVICES}/v1.stable.example.com")).await;
    }
    assert_eq!(found.ok()["status"]["conditions"][0]["reason"], "Local");
    assert_eq!(cluster.get(&format!("{SERVICES}/v1.apps")).await.ok()["spec"]["group"], "apps");
    assert_eq!(cluster.get(&format!("{SERVICES}/v1.")).await.ok()["spec"]["version"], "v1");
}
