//! Admission plugins: quotas, limits, pod security, classes, certificates; with the words that clients see.

use apiserver::Identity;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, PODS, config_map, pod};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

#[tokio::test]
async fn a_quota_is_never_exceeded_by_writers_at_once() {
    let cluster = std::sync::Arc::new(Cluster::start().await);
    cluster.create(QUOTAS, json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "5", "pods": "0"}}})).await;
    let refused = cluster.call(Method::POST, PODS, pod("a")).await;
    refused.fails(
        403,
        "Forbidden",
        "pods \"a\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0",
    );
    let mut writers = tokio::task::JoinSet::new();
    for index in 0..16 {
        let cluster = cluster.clone();
        writers.spawn(async move {
            cluster.call(Method::POST, CONFIG_MAPS, config_map(&format!("c{index}"))).await.code
        });
    }
    let codes = writers.join_all().await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 5, "{codes:?}");
    let quota = cluster.get(&format!("{QUOTAS}/q")).await.ok();
    assert_eq!(quota["status"]["used"]["configmaps"], "5");
    // A dry run is judged and takes nothing.
    assert_eq!(cluster.call(Method::POST, &format!("{CONFIG_MAPS}?dryRun=All"), config_map("d")).await.code, 403);
}

#[tokio::test]
async fn a_quota_of_compute_wants_it_stated_and_sums_it_up() {
    let cluster = Cluster::start().await;
    cluster.create(QUOTAS, json!({"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "1", "limits.memory": "1Gi"}}})).await;
    let refused = cluster.call(Method::POST, PODS, pod("a")).await;
    refused.fails(
        403,
        "Forbidden",
        "pods \"a\" is forbidden: failed quota: q: must specify limits.memory for: main; requests.cpu for: main",
    );
    let sized = |name: &str, cpu: &str| {
        let mut pod = pod(name);
        pod["spec"]["containers"][0]["resources"] =
            json!({"requests": {"cpu": cpu, "memory": "1Mi"}, "limits": {"memory": "100Mi"}});
        pod
    };
    cluster.create(PODS, sized("a", "600m")).await;
    let refused = cluster.call(Method::POST, PODS, sized("b", "500m")).await;
    refused.fails(
        403,
        "Forbidden",
        "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1",
    );
}

#[tokio::test]
async fn a_limit_range_fills_in_and_refuses() {
    let cluster = Cluster::start().await;
    let limits = json!([{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "100m"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "200m"}}]);
    cluster.create("/api/v1/namespaces/default/limitranges", json!({"metadata": {"name": "l"}, "spec": {"limits": limits}})).await;
    let made = cluster.create(PODS, pod("a")).await;
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(resources, &json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "200m"}}));
    assert_eq!(made["status"]["qosClass"], "Burstable");
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container main; cpu limit for container main"
    );
    let mut greedy = pod("b");
    greedy["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "2"}});
    let refused = cluster.call(Method::POST, PODS, greedy).await;
    refused.fails(
        403,
        "Forbidden",
        "pods \"b\" is forbidden: [minimum cpu usage per Container is 100m, but request is 50m, maximum cpu usage per Container is 1, but limit is 2]",
    );
}

#[tokio::test]
async fn pod_security_enforces_and_warns_as_the_namespace_says() {
    let cluster = Cluster::start().await;
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"});
    cluster.patch("/api/v1/namespaces/default", "merge", json!({"metadata": {"labels": labels}})).await.ok();
    let mut host = pod("a");
    host["spec"]["hostNetwork"] = true.into();
    let refused = cluster.call(Method::POST, PODS, host).await;
    refused.fails(
        403,
        "Forbidden",
        "pods \"a\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)",
    );
    let warned = cluster.call(Method::POST, PODS, pod("a")).await;
    assert_eq!(warned.code, 201);
    assert!(warned.warnings[0].contains("would violate PodSecurity \\\"restricted:latest\\\": allowPrivilegeEscalation != false (container \\\"main\\\" must set"), "{:?}", warned.warnings);
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"hostPID": true, "containers": [{"name": "web", "image": "x"}]},
    }}});
    let warned = cluster.call(Method::POST, "/apis/apps/v1/namespaces/default/deployments", deployment).await;
    assert_eq!(warned.code, 201, "workloads are warned of, not refused");
    assert!(warned.warnings[0].contains("host namespaces (hostPID=true)"), "{:?}", warned.warnings);
    // A stricter level tells of pods that are there already; a wrong one is refused.
    let stricter = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let warned = cluster.patch("/api/v1/namespaces/default", "merge", stricter).await;
    assert!(warned.warnings[0].contains("existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce level \\\"restricted:latest\\\""), "{:?}", warned.warnings);
    assert!(warned.warnings[1].contains("a: allowPrivilegeEscalation != false, "), "{:?}", warned.warnings);
    let wrong = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "strict"}}});
    let wrong = cluster.patch("/api/v1/namespaces/default", "merge", wrong).await;
    assert_eq!(wrong.code, 422, "{}", wrong.body);
}

#[tokio::test]
async fn classes_that_are_marked_as_default_are_filled_in() {
    let cluster = Cluster::start().await;
    let storage = "/apis/storage.k8s.io/v1/storageclasses";
    let marked = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    cluster.create(storage, json!({"metadata": {"name": "slow"}, "provisioner": "x"})).await;
    cluster.create(storage, json!({"metadata": {"name": "fast", "annotations": marked}, "provisioner": "x"})).await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = |name: &str| json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    assert_eq!(cluster.create(claims, claim("a")).await["spec"]["storageClassName"], "fast");
    let mut none = claim("b");
    none["spec"]["storageClassName"] = "".into();
    assert_eq!(cluster.create(claims, none).await["spec"]["storageClassName"], "");
    let grown = cluster.patch(&format!("{claims}/a"), "merge", json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}})).await;
    assert!(matches!(grown.code, 403 | 422), "{}", grown.body);

    let marked = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
    cluster.create("/apis/networking.k8s.io/v1/ingressclasses", json!({"metadata": {"name": "i", "annotations": marked}, "spec": {"controller": "example.com/c"}})).await;
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": backend}});
    let made = cluster.create("/apis/networking.k8s.io/v1/namespaces/default/ingresses", ingress).await;
    assert_eq!(made["spec"]["ingressClassName"], "i");

    let mut sandboxed = pod("a");
    sandboxed["spec"]["runtimeClassName"] = "gv".into();
    let refused = cluster.call(Method::POST, PODS, sandboxed.clone()).await;
    assert_eq!(refused.body["message"], "pods is forbidden: pod rejected: RuntimeClass \"gv\" not found");
    let class = json!({"metadata": {"name": "gv"}, "handler": "gv", "overhead": {"podFixed": {"cpu": "10m"}}, "scheduling": {"nodeSelector": {"r": "gv"}}});
    cluster.create("/apis/node.k8s.io/v1/runtimeclasses", class).await;
    let made = cluster.create(PODS, sandboxed).await;
    assert_eq!((&made["spec"]["overhead"]["cpu"], &made["spec"]["nodeSelector"]["r"]), (&json!("10m"), &json!("gv")));
    let node = cluster.create("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    assert_eq!(node["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
}

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn request_of(name: &str, organization: &str) -> Value {
    use base64::Engine as _;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
    let key = rcgen::KeyPair::generate().expect("a key");
    let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    let request = base64::engine::general_purpose::STANDARD.encode(pem);
    json!({"metadata": {"name": name}, "spec": {
        "request": request, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"], "username": "forged",
    }})
}

#[tokio::test]
async fn an_approved_request_is_signed_and_its_certificate_names_the_user() {
    use base64::Engine as _;
    let cluster = Cluster::start().await;
    let made = cluster.create(REQUESTS, request_of("ann", "dev")).await;
    assert_eq!(made["spec"]["username"], "test-admin", "the server says who asks");
    let approval = json!([{"type": "Approved", "status": "True", "reason": "Test"}]);
    let mut approved = made.clone();
    approved["status"] = json!({"conditions": approval});
    let uri = format!("{REQUESTS}/ann/approval");
    let ann = Identity::new("bob", Vec::<String>::new());
    assert_eq!(cluster.call_as(ann, Method::PUT, &uri, "application/json", approved.clone()).await.code, 403);
    let signed = cluster.call(Method::PUT, &uri, approved).await.ok();
    let pem = signed["status"]["certificate"].as_str().expect("a certificate");
    let pem = base64::engine::general_purpose::STANDARD.decode(pem).expect("base64");
    assert!(pem.starts_with(b"-----BEGIN CERTIFICATE-----"));
    assert!(signed["status"]["conditions"][0]["lastTransitionTime"].is_string());
    // Who asks for masters, or sends no request at all, is refused at once.
    let masters = cluster.call(Method::POST, REQUESTS, request_of("eve", "system:masters")).await;
    masters.fails(
        403,
        "Forbidden",
        "certificatesigningrequests.certificates.k8s.io \"eve\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
    );
    let mut broken = request_of("x", "y");
    broken["spec"]["request"] = "AAAA".into();
    assert_eq!(cluster.call(Method::POST, REQUESTS, broken).await.code, 422);
}
