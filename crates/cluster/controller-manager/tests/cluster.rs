//! The controllers and the scheduler against the real API server and store, in one process. Only the node is played:
//! it makes its pods ready and lets them go, as the node agent would.

use apiserver::{ApiServer, Config, Identity, InProcess, Pki, ServingNames};
use controller_manager::ControllerManager;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube_client::informer::{Cache, Change, ObjectKey, Scope};
use kube_client::{Client, DeleteOptions, ListOptions, Object, PatchKind, Propagation};
use scheduler::Scheduler;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Cluster {
    client: Client,
    _manager: ControllerManager,
    _scheduler: Scheduler,
    _node: tokio::task::JoinSet<()>,
    _dir: tempfile::TempDir,
}

async fn start() -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let names = ServingNames { host_name: "localhost".to_owned(), addresses: vec![address] };
    let pki = Arc::new(Pki::open(&dir.path().join("pki"), &names).unwrap());
    let store = store::Store::open(dir.path().join("store")).unwrap();
    let config = Config { advertise_address: address, advertise_port: 6443 };
    let server = ApiServer::start(store, pki, config).await.unwrap();
    let admin = Identity::in_process("system:admin");
    let client = Client::new(Arc::new(InProcess::new(server, admin)));
    let config = controller_manager::Config { root_ca: "PEM".into(), ..Default::default() };
    let manager = ControllerManager::start(&client, config);
    let scheduler = Scheduler::start(&client, "test");
    let mut node = tokio::task::JoinSet::new();
    node.spawn(play_node(client.clone()));
    Cluster { client, _manager: manager, _scheduler: scheduler, _node: node, _dir: dir }
}

fn typed<K: Object>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

async fn play_node(client: Client) {
    let status = json!({"allocatable": {"cpu": "8", "memory": "16Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True"}]});
    let node: Node = typed(json!({"metadata": {"name": "node"}, "status": status}));
    client.api::<Node>().create(&node).await.unwrap();
    client.api::<Node>().patch_status("node", PatchKind::Merge, &json!({"status": status})).await.unwrap();
    let pods = Cache::<Pod>::start(&client, Scope { fields: Some("spec.nodeName=node".into()), ..Scope::default() });
    let mut changes = pods.changes();
    let mut ip = 1;
    while let Some(change) = changes.next().await {
        let Change::Applied { new: pod, .. } = change else {
            continue;
        };
        let (meta, name) = (&pod.metadata, pod.metadata.name.clone().unwrap());
        let api = client.api::<Pod>().namespace(meta.namespace.clone().unwrap());
        if meta.deletion_timestamp.is_some() {
            let _ = api.delete(&name, &DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::of(meta) }).await;
        } else if !controllers::pods::is_ready(&pod) {
            ip += 1;
            let status = json!({"status": {"phase": "Running", "podIP": format!("10.42.0.{ip}"),
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
            let _ = api.patch_status(&name, PatchKind::Strategic, &status).await;
        }
    }
}

async fn within<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(8);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn web(image: &str, replicas: i32) -> Deployment {
    typed(json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}
    }))
}

async fn settled(cluster: &Cluster, replicas: i32) -> Deployment {
    let api = cluster.client.api::<Deployment>().namespace("default");
    within("the rollout", async || {
        let deployment = api.get("web").await.unwrap();
        let status = deployment.status.clone().unwrap_or_default();
        let done = status.observed_generation == deployment.metadata.generation
            && status.updated_replicas == Some(replicas)
            && status.replicas == Some(replicas)
            && status.available_replicas == Some(replicas);
        done.then_some(deployment)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_out_updates_heals_and_is_collected() {
    let cluster = start().await;
    let deployments = cluster.client.api::<Deployment>().namespace("default");
    let pods = cluster.client.api::<Pod>().namespace("default");
    let begin = Instant::now();
    deployments.create(&web("one", 3)).await.unwrap();
    settled(&cluster, 3).await;
    println!("3 pods made, placed and ready in {:?}", begin.elapsed());

    let service: Service = typed(json!({"metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]}}));
    cluster.client.api::<Service>().create(&service).await.unwrap();
    let slices = cluster.client.api::<EndpointSlice>().namespace("default");
    let of_web = ListOptions { labels: Some("kubernetes.io/service-name=web".into()), ..ListOptions::default() };
    within("three endpoints", async || {
        let ready = |s: &EndpointSlice| {
            s.endpoints
                .iter()
                .flatten()
                .filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)))
                .count()
        };
        let list = slices.list(&of_web).await.unwrap().items;
        (list.iter().map(ready).sum::<usize>() == 3).then_some(())
    })
    .await;
    within("an external address", async || {
        let service = cluster.client.api::<Service>().namespace("default").get("web").await.unwrap();
        service.status?.load_balancer?.ingress?.first()?.ip.clone().filter(|ip| ip == "10.44.0.1")
    })
    .await;

    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}});
    deployments.patch("web", PatchKind::Strategic, &image).await.unwrap();
    let updated = settled(&cluster, 3).await;
    assert_eq!(updated.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"], "2");
    let sets = cluster.client.api::<ReplicaSet>().namespace("default").list(&ListOptions::default()).await.unwrap();
    assert_eq!(sets.items.len(), 2);

    let victim = pods.list(&ListOptions::default()).await.unwrap().items[0].metadata.clone();
    pods.delete(victim.name.as_deref().unwrap(), &DeleteOptions::default()).await.unwrap();
    within("the replacement", async || {
        let list = pods.list(&ListOptions::default()).await.unwrap().items;
        (list.len() == 3 && list.iter().all(|p| p.metadata.uid != victim.uid && controllers::pods::is_ready(p)))
            .then_some(())
    })
    .await;

    let background = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    deployments.delete("web", &background).await.unwrap();
    within("the collection of everything it owned", async || {
        let sets = cluster.client.api::<ReplicaSet>().list(&ListOptions::default()).await.unwrap().items;
        let left = pods.list(&ListOptions::default()).await.unwrap().items;
        (sets.is_empty() && left.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_furnished_and_taken_apart() {
    let cluster = start().await;
    let namespaces = cluster.client.api::<Namespace>();
    namespaces.create(&typed(json!({"metadata": {"name": "team"}}))).await.unwrap();
    within("the default account and the CA", async || {
        cluster.client.api::<ServiceAccount>().namespace("team").get_opt("default").await.unwrap()?;
        cluster.client.api::<ConfigMap>().namespace("team").get_opt("kube-root-ca.crt").await.unwrap()
    })
    .await;
    let mut deployment = web("one", 2);
    deployment.metadata.namespace = Some("team".into());
    cluster.client.api::<Deployment>().create(&deployment).await.unwrap();
    within("pods", async || {
        let pods = cluster.client.api::<Pod>().namespace("team").list(&ListOptions::default()).await.unwrap().items;
        (pods.len() == 2).then_some(())
    })
    .await;
    namespaces.delete("team", &DeleteOptions::default()).await.unwrap();
    within("the namespace's end", async || namespaces.get_opt("team").await.unwrap().is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fits_nowhere_says_why() {
    let cluster = start().await;
    let pod = json!({"metadata": {"name": "huge", "namespace": "default"}, "spec": {"containers": [
        {"name": "c", "image": "x", "resources": {"requests": {"cpu": "100"}}}]}});
    let pods = cluster.client.api::<Pod>().namespace("default");
    within("the account that pods need", async || pods.create(&typed(pod.clone())).await.ok()).await;
    let message = within("the reason", async || {
        let pod = pods.get("huge").await.unwrap();
        let condition = controllers::pods::condition(&pod, "PodScheduled")?.clone();
        condition.message.filter(|m| m.contains("Insufficient"))
    })
    .await;
    assert_eq!(
        message,
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
         1 Preemption is not helpful for scheduling."
    );
    assert_eq!(ObjectKey::new("default", "huge").to_string(), "default/huge");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_own_and_are_owned_and_go_with_their_namespace() {
    let cluster = start().await;
    let post = async |path: &str, body: Value| -> Value {
        let request = http::Request::post(path).header("content-type", "application/json");
        cluster.client.raw(request.body(body.to_string().into()).unwrap()).await.unwrap()
    };
    let gone = async |path: &str| {
        within(path, async || {
            let request = http::Request::get(path).body(bytes::Bytes::new()).unwrap();
            cluster.client.raw(request).await.is_err_and(|error| error.is_not_found()).then_some(())
        })
        .await;
    };
    let delete = async |path: &str| {
        let request = http::Request::delete(path).body(bytes::Bytes::new()).unwrap();
        cluster.client.raw(request).await.unwrap();
    };
    let names = json!({"plural": "things", "kind": "Thing"});
    let versions = json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]);
    let definition = json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": versions}});
    post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    let things = "/apis/example.com/v1/namespaces/default/things";
    let thing = |name: &str, owner: Option<&Value>| {
        let mut made = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}});
        if let Some(owner) = owner {
            made["metadata"]["ownerReferences"] = json!([{"apiVersion": owner["apiVersion"], "kind": owner["kind"],
                "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true}]);
        }
        made
    };
    // A built-in dependent of a custom owner, and a custom dependent of a custom owner.
    let owner = post(things, thing("owner", None)).await;
    let child = post(things, thing("child", Some(&owner))).await;
    let mut map = thing("map", Some(&child));
    (map["apiVersion"], map["kind"]) = ("v1".into(), "ConfigMap".into());
    post("/api/v1/namespaces/default/configmaps", map).await;
    delete(&format!("{things}/owner?propagationPolicy=Foreground")).await;
    gone("/api/v1/namespaces/default/configmaps/map").await;
    gone(&format!("{things}/child")).await;
    gone(&format!("{things}/owner")).await;
    // Everything goes with its namespace.
    let namespace: Namespace = typed(json!({"metadata": {"name": "short"}}));
    cluster.client.api::<Namespace>().create(&namespace).await.unwrap();
    post("/apis/example.com/v1/namespaces/short/things", thing("in", None)).await;
    delete("/api/v1/namespaces/short").await;
    gone("/api/v1/namespaces/short").await;
    gone("/apis/example.com/v1/namespaces/short/things/in").await;
}
