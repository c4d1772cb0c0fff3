//! Cluster addresses and node ports: unique, durable, given back.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}});
    for (key, value) in spec.as_object().expect("an object") {
        service["spec"][key] = value.clone();
    }
    service
}

#[tokio::test]
async fn the_kubernetes_service_is_there_from_the_start() {
    let cluster = Cluster::start().await;
    let service = cluster.get(&format!("{SERVICES}/kubernetes")).await.ok();
    assert_eq!(service["spec"]["clusterIP"], "10.43.0.1");
    let slice = cluster.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await.ok();
    assert_eq!(
        (&slice["endpoints"][0]["addresses"][0], &slice["ports"][0]["port"]),
        (&json!("127.0.0.1"), &json!(6443))
    );
}

#[tokio::test]
async fn services_made_at_once_all_get_addresses_of_their_own() {
    let cluster = Cluster::start().await;
    let names: Vec<String> = (0..20).map(|index| format!("s{index}")).collect();
    let made = futures_util::future::join_all(
        names.iter().map(|name| cluster.create(SERVICES, service(name, json!({"type": "NodePort"})))),
    )
    .await;
    let addresses: BTreeSet<&str> = made.iter().filter_map(|made| made["spec"]["clusterIP"].as_str()).collect();
    let ports: BTreeSet<u64> = made.iter().filter_map(|made| made["spec"]["ports"][0]["nodePort"].as_u64()).collect();
    assert_eq!((addresses.len(), ports.len()), (20, 20));
    assert!(addresses.iter().all(|address| address.starts_with("10.43.")));
    assert!(ports.iter().all(|port| (30000..=32767).contains(port)));
    assert_eq!(made[0]["spec"]["clusterIPs"][0], made[0]["spec"]["clusterIP"]);
}

#[tokio::test]
async fn an_address_belongs_to_one_service_until_that_is_deleted() {
    let cluster = Cluster::start().await;
    let fixed = json!({"clusterIP": "10.43.0.10"});
    cluster.create(SERVICES, service("a", fixed.clone())).await;
    let taken = cluster.call(Method::POST, SERVICES, service("b", fixed.clone())).await;
    assert_eq!(taken.code, 422);
    let text = taken.body["message"].as_str().expect("message").to_owned();
    assert!(text.contains("failed to allocate IP 10.43.0.10: provided IP is already allocated"), "{text}");
    cluster.delete(&format!("{SERVICES}/a")).await.ok();
    cluster.create(SERVICES, service("b", fixed)).await;
    let outside = cluster.call(Method::POST, SERVICES, service("c", json!({"clusterIP": "10.0.0.1"}))).await;
    assert!(outside.body["message"].as_str().expect("message").contains("not in the valid range"), "{}", outside.body);
}

#[tokio::test]
async fn node_ports_come_and_go_with_the_type_of_the_service() {
    let cluster = Cluster::start().await;
    let uri = format!("{SERVICES}/a");
    let made = cluster.create(SERVICES, service("a", json!({"type": "LoadBalancer"}))).await;
    let port = made["spec"]["ports"][0]["nodePort"].as_u64().expect("a node port");
    let taken = service("b", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}));
    let taken = cluster.call(Method::POST, SERVICES, taken).await;
    assert!(
        taken.body["message"].as_str().expect("message").contains("provided port is already allocated"),
        "{}",
        taken.body
    );
    // An update that does not mention address and port keeps them.
    let mut update = service("a", json!({"type": "LoadBalancer"}));
    update["metadata"]["labels"] = json!({"x": "y"});
    let kept = cluster.call(Method::PUT, &uri, update).await.ok();
    assert_eq!(kept["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    assert_eq!(kept["spec"]["ports"][0]["nodePort"], port);
    let mut plain = kept.clone();
    plain["spec"]["type"] = "ClusterIP".into();
    let plain = cluster.call(Method::PUT, &uri, plain).await.ok();
    assert!(plain["spec"]["ports"][0].get("nodePort").is_none(), "{plain}");
    cluster
        .create(SERVICES, service("b", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]})))
        .await;
}

#[tokio::test]
async fn a_headless_service_has_no_address() {
    let cluster = Cluster::start().await;
    let made = cluster.create(SERVICES, service("a", json!({"clusterIP": "None"}))).await;
    assert_eq!((&made["spec"]["clusterIP"], &made["spec"]["clusterIPs"]), (&json!("None"), &json!(["None"])));
}

#[tokio::test]
async fn a_restart_writes_nothing_but_the_servers_new_address() {
    let mut cluster = Cluster::start().await;
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let before = cluster.get(slice).await.ok();
    let revision = cluster.store.revision();
    cluster.restart("127.0.0.1".parse().expect("address")).await;
    assert_eq!(cluster.store.revision(), revision);
    cluster.restart("127.0.0.2".parse().expect("address")).await;
    let after = cluster.get(slice).await.ok();
    assert_eq!(after["endpoints"][0]["addresses"][0], "127.0.0.2");
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
}
