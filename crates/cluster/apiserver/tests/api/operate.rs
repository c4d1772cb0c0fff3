//! What operators look at: health, metrics, audit; and the ways in beside certificates.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use apiserver::{ApiServer, AuditConfig, Config, Identity, Pki, ServingNames};
use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, admin, config_map};

#[tokio::test]
async fn health_is_told_check_by_check_and_readiness_ends_with_the_shutdown() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.get("/livez").await.body, "ok");
    let verbose = cluster.get("/readyz?verbose").await.body;
    let verbose = verbose.as_str().expect("text");
    for line in [
        "[+]ping ok",
        "[+]etcd ok",
        "[+]poststarthook/rbac/bootstrap-roles ok",
        "[+]shutdown ok",
        "readyz check passed",
    ] {
        assert!(verbose.contains(line), "{verbose}");
    }
    assert!(
        cluster.get("/livez?verbose&exclude=etcd").await.body.as_str().expect("text").contains("[+]etcd excluded: ok")
    );
    assert_eq!(cluster.get("/readyz/etcd").await.body, "ok");
    assert_eq!(cluster.get("/readyz/nosuch").await.code, 404);
    cluster.server.close_streams();
    let ending = cluster.get("/readyz").await;
    assert_eq!(ending.code, 500);
    assert!(ending.body.as_str().expect("text").contains("[-]shutdown failed: reason withheld"), "{}", ending.body);
    assert_eq!(cluster.get("/livez").await.code, 200);
}

#[tokio::test]
async fn metrics_have_kubernetes_names_and_count_what_happened() {
    let cluster = Cluster::start().await;
    // The server writes a few of its own at its start.
    let told = cluster.get("/metrics").await.body;
    let count = |line: &str| {
        let found = told
            .as_str()
            .and_then(|text| text.lines().find_map(|own| own.strip_prefix(line)?.trim().parse::<u64>().ok()));
        found.unwrap_or(0) + 1
    };
    let labels = "component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"POST\",version=\"v1\"}";
    let (requests, durations) = (
        format!("apiserver_request_total{{code=\"201\",{labels} "),
        format!("apiserver_request_duration_seconds_count{{{labels} "),
    );
    let objects = "apiserver_storage_objects{resource=\"configmaps\"} ";
    let (requests, durations, objects) = (
        format!("{requests}{}", count(&requests)),
        format!("{durations}{}", count(&durations)),
        format!("{objects}{}", count(objects)),
    );
    cluster.create(CONFIG_MAPS, config_map("a")).await;
    cluster.get("/api/v1/namespaces/default/nosuch/x").await;
    let _watch = cluster.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    let text = cluster.get("/metrics").await.body;
    let text = text.as_str().expect("text");
    for line in [
        requests.as_str(),
        durations.as_str(),
        "apiserver_longrunning_requests{component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 1",
        objects.as_str(),
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1",
        "kubernetes_healthcheck{name=\"etcd\",type=\"healthz\"} 1",
        "# TYPE process_resident_memory_bytes gauge",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("nosuch"), "what is not served makes no label");
    let ann = Identity::new("ann", Vec::<String>::new());
    assert_eq!(cluster.call_as(ann, Method::GET, "/metrics", "", Value::Null).await.code, 403);
}

#[tokio::test]
async fn the_audit_log_holds_what_the_policy_wants() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (policy, log) = (directory.path().join("policy.yaml"), directory.path().join("logs/audit.log"));
    std::fs::write(
        &policy,
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n  resources: [{group: '', resources: [secrets]}]\n- level: RequestResponse\n  verbs: [create]\n  resources: [{group: '', resources: [configmaps]}]\n",
    )
    .expect("a policy");
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let names = ServingNames { host_name: "test".to_owned(), addresses: vec![address] };
    let pki = Arc::new(Pki::open(&directory.path().join("pki"), &names).expect("pki"));
    let store = store::Store::open(directory.path().join("store")).expect("store");
    let config = Config { advertise_address: address, advertise_port: 6443 };
    let audit = AuditConfig { policy, log: log.clone() };
    let server = ApiServer::start_audited(store, pki, config, Some(&audit)).await.expect("server");
    let send = async |uri: &str, body: Value| {
        let request = Request::post(uri).header("content-type", "application/json").body(Bytes::from(body.to_string()));
        server.handle(admin(), request.expect("request")).await.status().as_u16()
    };
    assert_eq!(send(CONFIG_MAPS, config_map("a")).await, 201);
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"p": "hidden"}});
    assert_eq!(send("/api/v1/namespaces/default/secrets", secret).await, 201);
    assert_eq!(send("/api/v1/namespaces/default/services", json!({"metadata": {"name": "x"}})).await, 422);
    assert_eq!(send(CONFIG_MAPS, config_map("a")).await, 409);
    let mut text = String::new();
    for _ in 0..200 {
        text = std::fs::read_to_string(&log).unwrap_or_default();
        // The server's own writes at its start are in the log, too.
        text = text.lines().filter(|line| line.contains("test-admin")).collect::<Vec<_>>().join("\n");
        if text.lines().count() >= 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(events.len(), 3, "{text}");
    let first = &events[0];
    assert_eq!(
        (&first["level"], &first["stage"], &first["verb"], &first["user"]["username"]),
        (&json!("RequestResponse"), &json!("ResponseComplete"), &json!("create"), &json!("test-admin"))
    );
    assert_eq!((&first["objectRef"]["resource"], &first["objectRef"]["name"]), (&json!("configmaps"), &json!("a")));
    assert_eq!(
        (&first["requestObject"]["data"]["a"], &first["responseObject"]["data"]["a"]),
        (&json!("1"), &json!("1"))
    );
    assert_eq!((&events[1]["level"], &events[1]["responseStatus"]["code"]), (&json!("Metadata"), &json!(201)));
    assert!(!text.contains("hidden") && events[1].get("requestObject").is_none());
    assert_eq!(events[2]["responseStatus"]["reason"], "AlreadyExists");
}

#[tokio::test]
async fn the_issuers_keys_verify_its_tokens_and_its_document_names_them() {
    use base64::Engine as _;
    let cluster = Cluster::start().await;
    let document = cluster.get("/.well-known/openid-configuration").await.ok();
    assert_eq!(document["jwks_uri"], format!("{}/openid/v1/jwks", document["issuer"].as_str().expect("issuer")));
    let keys = cluster.get("/openid/v1/jwks").await.ok();
    let key = &keys["keys"][0];
    let granted = cluster.create("/api/v1/namespaces/default/serviceaccounts/default/token", json!({"spec": {}})).await;
    let token = granted["status"]["token"].as_str().expect("a token");
    let decode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).expect("base64");
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let header: Value = serde_json::from_slice(&decode(signed.split('.').next().expect("header"))).expect("JSON");
    assert_eq!((&header["kid"], &header["alg"]), (&key["kid"], &key["alg"]));
    let point = [vec![4], decode(key["x"].as_str().expect("x")), decode(key["y"].as_str().expect("y"))].concat();
    ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &decode(signature))
        .expect("a signature of that key");
    let stranger = cluster.call_as(Identity::anonymous(), Method::GET, "/openid/v1/jwks", "", Value::Null).await;
    assert_eq!(stranger.code, 403);
}

#[tokio::test]
async fn answers_come_as_protobuf_to_who_asks_for_it() {
    let cluster = Cluster::start().await;
    cluster.create(CONFIG_MAPS, config_map("a")).await;
    let ask = async |uri: &str, accept: &str| {
        let request = Request::get(uri).header("accept", accept).body(Bytes::new()).expect("request");
        let response = cluster.send(admin(), request).await;
        let kind = response.headers()["content-type"].to_str().expect("text").to_owned();
        (kind, response.into_body())
    };
    let typed = "application/vnd.kubernetes.protobuf,application/json";
    let (kind, body) = ask(&format!("{CONFIG_MAPS}/a"), typed).await;
    let body = body.collect().await;
    assert_eq!((kind.as_str(), &body[..4]), ("application/vnd.kubernetes.protobuf", &b"k8s\0"[..]));
    // What a typed client read it can write back.
    let request =
        Request::put(format!("{CONFIG_MAPS}/a")).header("content-type", "application/vnd.kubernetes.protobuf");
    let put = cluster.send(admin(), request.header("accept", "application/json").body(body).expect("request")).await;
    assert_eq!(put.status(), 200);
    let back: Value = serde_json::from_slice(&put.into_body().collect().await).expect("JSON");
    assert_eq!(back["data"], json!({"a": "1"}));
    let (kind, body) = ask(CONFIG_MAPS, typed).await;
    assert_eq!(kind, "application/vnd.kubernetes.protobuf");
    let body = body.collect().await;
    assert!(body.windows(13).any(|window| window == b"ConfigMapList"));
    let (kind, _) = ask(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=0"), typed).await;
    assert_eq!(kind, "application/vnd.kubernetes.protobuf;stream=watch");
    let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    assert_eq!(ask(CONFIG_MAPS, table).await.0, "application/json");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_token_lets_a_machine_in_until_it_expires() {
    let cluster = Cluster::start().await;
    let secret = |id: &str, until: &str| {
        json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token", "stringData": {
            "token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true", "expiration": until,
            "auth-extra-groups": "system:bootstrappers:workers,system:masters",
        }})
    };
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    cluster.create(secrets, secret("abcdef", "2999-01-01T00:00:00Z")).await;
    cluster.create(secrets, secret("oldold", "2020-01-01T00:00:00Z")).await;
    let listening = crate::wire::Listening::over(cluster).await;
    let whoami = async |token: &str| listening.whoami(token).await;
    let user = whoami("abcdef.0123456789abcdef").await.expect("let in");
    assert_eq!(user["username"], "system:bootstrap:abcdef");
    assert_eq!(user["groups"], json!(["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"]));
    for wrong in ["abcdef.0123456789abcdee", "oldold.0123456789abcdef", "nosuch.0123456789abcdef"] {
        assert!(whoami(wrong).await.is_none(), "{wrong}");
    }
    listening.stop().await;
}
