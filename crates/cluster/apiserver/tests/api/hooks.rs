//! Webhooks over real TLS, and admission policies.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, config_map, pod, PODS};
use crate::custom::{CRONTABS, DEFINITIONS, crontab, definition};
use crate::hook_server::{HookServer, patch, reviewed};

const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";

fn rule(resource: &str) -> Value {
    json!({"apiGroups": ["*"], "apiVersions": ["*"], "resources": [resource], "operations": ["CREATE", "UPDATE", "DELETE"]})
}

fn hook(name: &str, client: Value, resource: &str) -> Value {
    json!({"name": name, "clientConfig": client, "rules": [rule(resource)], "sideEffects": "None", "admissionReviewVersions": ["v1"]})
}

async fn register(cluster: &Cluster, kind: &str, name: &str, hooks: Value) {
    let plural = format!("{REGISTRATION}/{}s", kind.to_lowercase());
    let body = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": hooks});
    cluster.create(&plural, body).await;
}

#[tokio::test]
async fn mutating_webhooks_patch_in_order_and_are_asked_again_when_they_want() {
    let cluster = Cluster::start().await;
    let server = HookServer::start(|path, review| {
        let data = &review["request"]["object"]["data"];
        let operations = match path.split('?').next() {
            Some("/count") => json!([{"op": "add", "path": "/data/count", "value": data.as_object().map_or(0, |d| d.len()).to_string()}]),
            _ => json!([{"op": "add", "path": "/data/added", "value": "yes"}]),
        };
        reviewed(review, patch(&operations))
    })
    .await;
    let mut first = hook("count.example.com", server.config("/count"), "configmaps");
    first["reinvocationPolicy"] = "IfNeeded".into();
    register(&cluster, "MutatingWebhookConfiguration", "a", json!([first])).await;
    register(&cluster, "MutatingWebhookConfiguration", "b", json!([hook("add.example.com", server.config("/add"), "configmaps")])).await;
    let made = cluster.create(CONFIG_MAPS, config_map("a")).await;
    assert_eq!(made["data"], json!({"a": "1", "added": "yes", "count": "3"}));
    assert_eq!(server.calls(), 3);
    let (path, headers, review) = server.last();
    assert_eq!(path, "/count?timeout=10s");
    assert_eq!(headers["content-type"], "application/json");
    let request = &review["request"];
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(request["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!((&request["operation"], &request["namespace"], &request["name"]), (&json!("CREATE"), &json!("default"), &json!("a")));
    assert_eq!((&request["userInfo"]["username"], &request["options"]["kind"]), (&json!("test-admin"), &json!("CreateOptions")));
    assert_eq!((&request["dryRun"], &request["oldObject"]), (&json!(false), &Value::Null));
}

#[tokio::test]
async fn validating_webhooks_deny_with_their_words_and_warn() {
    let cluster = Cluster::start().await;
    let server = HookServer::start(|_, review| {
        let name = review["request"]["name"].as_str().unwrap_or("");
        let response = match name {
            "denied" => json!({"allowed": false, "status": {"code": 403, "message": "no such names"}}),
            "mute" => json!({"allowed": false}),
            _ => json!({"allowed": true, "warnings": ["beware"]}),
        };
        reviewed(review, response)
    })
    .await;
    let mut only = hook("deny.example.com", server.config("/"), "configmaps");
    only["objectSelector"] = json!({"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]});
    only["matchConditions"] = json!([{"name": "no-leases", "expression": "request.name != 'unasked' && (request.operation == 'DELETE' || !object.metadata.name.startsWith('x-'))"}]);
    register(&cluster, "ValidatingWebhookConfiguration", "a", json!([only])).await;
    let answer = cluster.call(Method::POST, CONFIG_MAPS, config_map("denied")).await;
    answer.fails(403, "Forbidden", "admission webhook \"deny.example.com\" denied the request: no such names");
    let answer = cluster.call(Method::POST, CONFIG_MAPS, config_map("mute")).await;
    answer.fails(400, "", "admission webhook \"deny.example.com\" denied the request without explanation");
    let answer = cluster.call(Method::POST, CONFIG_MAPS, config_map("good")).await;
    assert_eq!((answer.code, answer.warnings), (201, vec!["299 - \"beware\"".to_owned()]));
    let calls = server.calls();
    let mut skipped = config_map("denied");
    skipped["metadata"]["labels"] = json!({"skip": "1"});
    cluster.create(CONFIG_MAPS, skipped).await;
    cluster.create(CONFIG_MAPS, config_map("unasked")).await;
    assert_eq!(server.calls(), calls);
    cluster.delete(&format!("{CONFIG_MAPS}/good")).await.ok();
    let (_, _, review) = server.last();
    assert_eq!((&review["request"]["operation"], &review["request"]["oldObject"]["metadata"]["name"]), (&json!("DELETE"), &json!("good")));
    let dry = cluster.call(Method::POST, &format!("{CONFIG_MAPS}?dryRun=All"), config_map("dry")).await;
    assert_eq!((dry.code, &server.last().2["request"]["dryRun"]), (201, &json!(true)));
}

#[tokio::test]
async fn a_webhook_that_hangs_is_waited_for_no_longer_than_it_may_take() {
    let cluster = Cluster::start().await;
    let server = HookServer::start(|_, review| reviewed(review, json!({"allowed": true}))).await;
    let mut slow = hook("slow.example.com", server.config("/hang"), "configmaps");
    slow["timeoutSeconds"] = 1.into();
    register(&cluster, "ValidatingWebhookConfiguration", "a", json!([slow.clone()])).await;
    let begun = Instant::now();
    let answer = cluster.call(Method::POST, CONFIG_MAPS, config_map("a")).await;
    let url = format!("https://{}/hang?timeout=1s", server.address);
    answer.fails(500, "InternalError", &format!("Internal error occurred: failed calling webhook \"slow.example.com\": failed to call webhook: Post \"{url}\": context deadline exceeded"));
    assert!(begun.elapsed() < Duration::from_secs(4));
    // Others go on meanwhile, and a policy of Ignore lets the write through.
    cluster.create(PODS, pod("a")).await;
    cluster.delete(&format!("{REGISTRATION}/validatingwebhookconfigurations/a")).await.ok();
    slow["failurePolicy"] = "Ignore".into();
    register(&cluster, "ValidatingWebhookConfiguration", "b", json!([slow])).await;
    cluster.create(CONFIG_MAPS, config_map("a")).await;
}

#[tokio::test]
async fn a_webhook_is_reached_through_a_service_and_only_with_its_certificate() {
    let cluster = Cluster::start().await;
    let server = HookServer::start(|_, review| reviewed(review, json!({"allowed": true, "warnings": ["through the service"]}))).await;
    let service = json!({"namespace": "default", "name": "hook", "path": "/review", "port": 8443});
    let client = json!({"service": service, "caBundle": server.bundle});
    register(&cluster, "ValidatingWebhookConfiguration", "a", json!([hook("service.example.com", client.clone(), "configmaps")])).await;
    let answer = cluster.call(Method::POST, CONFIG_MAPS, config_map("a")).await;
    answer.fails(500, "InternalError", "Internal error occurred: failed calling webhook \"service.example.com\": failed to call webhook: Post \"https://hook.default.svc:8443/review?timeout=10s\": service \"hook\" not found");
    cluster.create("/api/v1/namespaces/default/services", json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 8443}]}})).await;
    cluster.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", json!({
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": server.address.port(), "protocol": "TCP"}],
    })).await;
    let answer = cluster.call(Method::POST, CONFIG_MAPS, config_map("a")).await;
    assert_eq!((answer.code, answer.warnings), (201, vec!["299 - \"through the service\"".to_owned()]));
    let other = HookServer::start(|_, _| Value::Null).await;
    let mut client = server.config("/");
    client["caBundle"] = other.bundle.as_str().into();
    register(&cluster, "ValidatingWebhookConfiguration", "b", json!([hook("stranger.example.com", client, "secrets")])).await;
    let answer = cluster.call(Method::POST, "/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "a"}})).await;
    assert_eq!(answer.code, 500);
    assert!(answer.body["message"].as_str().unwrap_or("").contains("tls: failed to verify certificate"), "{}", answer.body);
}

#[tokio::test]
async fn conversion_webhooks_turn_versions_into_each_other() {
    let cluster = Cluster::start().await;
    let server = HookServer::start(|_, review| {
        let request = &review["request"];
        let wanted = request["desiredAPIVersion"].as_str().unwrap_or("");
        let converted: Vec<Value> = request["objects"].as_array().expect("objects").iter().map(|object| {
            let mut object = object.clone();
            object["apiVersion"] = wanted.into();
            let spec = object["spec"].as_object_mut().expect("spec");
            let (from, to) = if wanted.ends_with("/v1") { ("schedule", "cronSpec") } else { ("cronSpec", "schedule") };
            if let Some(value) = spec.remove(from) {
                spec.insert(to.to_owned(), value);
            }
            object
        }).collect();
        json!({"kind": "ConversionReview", "apiVersion": review["apiVersion"],
            "response": {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted}})
    }).await;
    let mut two = definition();
    let mut second = two["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    let spec = &mut second["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["required"] = json!(["schedule"]);
    spec["properties"] = json!({"schedule": {"type": "string"}, "replicas": {"type": "integer"}, "image": {"type": "string"}});
    second["additionalPrinterColumns"] = json!([]);
    two["spec"]["versions"].as_array_mut().expect("versions").push(second);
    two["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"clientConfig": server.config("/convert"), "conversionReviewVersions": ["v1"]}});
    cluster.create(DEFINITIONS, two).await;
    cluster.create(CRONTABS, crontab("a")).await;
    let v2 = "/apis/stable.example.com/v2/namespaces/default/crontabs";
    assert_eq!(cluster.get(&format!("{v2}/a")).await.ok()["spec"]["schedule"], "* * * * *");
    let mut events = cluster.watch(&format!("{v2}?watch=1")).await;
    assert_eq!(events.next().await.expect("an event").1["spec"]["schedule"], "* * * * *");
    let patched = cluster.patch(&format!("{v2}/a"), "merge", json!({"spec": {"schedule": "@daily"}})).await.ok();
    assert_eq!((&patched["apiVersion"], &patched["spec"]["schedule"]), (&json!("stable.example.com/v2"), &json!("@daily")));
    assert_eq!(cluster.get(&format!("{CRONTABS}/a")).await.ok()["spec"]["cronSpec"], "@daily");
    let list = cluster.get(v2).await.ok();
    assert_eq!(list["items"][0]["spec"]["schedule"], "@daily");
}

async fn bind(cluster: &Cluster, spec: Value) {
    let body = json!({"metadata": {"name": "binding"}, "spec": spec});
    cluster.create(&format!("{REGISTRATION}/validatingadmissionpolicybindings"), body).await;
}

#[tokio::test]
async fn validating_policies_deny_warn_and_take_parameters() {
    let cluster = Cluster::start().await;
    let policy = json!({"metadata": {"name": "limits"}, "spec": {
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}]},
        "matchConditions": [{"name": "not-the-parameters", "expression": "object.metadata.name != 'parameters'"}],
        "variables": [{"name": "count", "expression": "has(object.data) ? object.data.size() : 0"}],
        "validations": [
            {"expression": "variables.count <= int(params.data.max)", "messageExpression": "'at most ' + params.data.max + ' entries'"},
            {"expression": "request.userInfo.username == 'test-admin' && authorizer.group('').resource('configmaps').namespace('default').check('create').allowed()", "reason": "Forbidden"},
        ],
    }});
    cluster.create(&format!("{REGISTRATION}/validatingadmissionpolicies"), policy.clone()).await;
    let three = |name: &str| { let mut map = config_map(name); map["data"] = json!({"a": "", "b": "", "c": ""}); map };
    cluster.create(CONFIG_MAPS, three("unbound")).await;
    let mut parameters = config_map("parameters");
    parameters["data"] = json!({"max": "2"});
    cluster.create(CONFIG_MAPS, parameters).await;
    let reference = json!({"name": "parameters", "namespace": "default", "parameterNotFoundAction": "Deny"});
    bind(&cluster, json!({"policyName": "limits", "validationActions": ["Deny"], "paramRef": reference})).await;
    let answer = cluster.call(Method::POST, CONFIG_MAPS, three("a")).await;
    answer.fails(422, "Invalid", "configmaps \"a\" is forbidden: ValidatingAdmissionPolicy 'limits' with binding 'binding' denied request: at most 2 entries");
    cluster.create(CONFIG_MAPS, config_map("a")).await;
    let uri = format!("{REGISTRATION}/validatingadmissionpolicybindings/binding");
    cluster.patch(&uri, "merge", json!({"spec": {"validationActions": ["Warn", "Audit"]}})).await.ok();
    let answer = cluster.call(Method::POST, CONFIG_MAPS, three("b")).await;
    assert_eq!((answer.code, answer.warnings), (201, vec!["299 - \"Validation failed for ValidatingAdmissionPolicy 'limits' with binding 'binding': at most 2 entries\"".to_owned()]));
    let mut bad = policy;
    bad["metadata"]["name"] = "bad".into();
    bad["spec"]["validations"] = json!([{"expression": "object.x =="}]);
    let answer = cluster.call(Method::POST, &format!("{REGISTRATION}/validatingadmissionpolicies"), bad).await;
    assert_eq!(answer.code, 422);
    assert!(answer.body["message"].as_str().unwrap_or("").contains("spec.validations[0].expression: Invalid value: \"object.x ==\": compilation failed: ERROR: <input>:1:12: Syntax error"), "{}", answer.body);
}

#[tokio::test]
async fn mutating_policies_apply_and_patch() {
    let cluster = Cluster::start().await;
    let policy = json!({"metadata": {"name": "sidecar"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
        "reinvocationPolicy": "Never",
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'proxy', image: 'proxy'}]}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'containers': string(object.spec.containers.size())}}]"}},
        ],
    }});
    cluster.create(&format!("{REGISTRATION}/mutatingadmissionpolicies"), policy).await;
    let binding = json!({"metadata": {"name": "binding"}, "spec": {"policyName": "sidecar"}});
    cluster.create(&format!("{REGISTRATION}/mutatingadmissionpolicybindings"), binding).await;
    let made = cluster.create(PODS, pod("a")).await;
    let names: Vec<&str> = made["spec"]["containers"].as_array().expect("containers").iter().filter_map(|c| c["name"].as_str()).collect();
    assert!(names.contains(&"main") && names.contains(&"proxy"), "{names:?}");
    assert_eq!(made["metadata"]["labels"], json!({"containers": "2"}));
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
}

#[tokio::test]
async fn a_policys_status_says_which_expressions_do_not_fit_its_kinds() {
    let cluster = Cluster::start().await;
    let policy = json!({"metadata": {"name": "typed"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}]},
        "validations": [{"expression": "object.spec.replicas < 5"}, {"expression": "object.spec.replicaz < 5"}],
    }});
    let path = format!("{REGISTRATION}/validatingadmissionpolicies");
    cluster.create(&path, policy).await;
    let mut found = cluster.get(&format!("{path}/typed")).await.ok();
    for _ in 0..500 {
        if found["status"]["observedGeneration"] == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        found = cluster.get(&format!("{path}/typed")).await.ok();
    }
    let warnings = &found["status"]["typeChecking"]["expressionWarnings"];
    assert_eq!(warnings.as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[1].expression");
    assert_eq!(warnings[0]["warning"], "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replicaz'\n | object.spec.replicaz < 5\n | ...........^");
}

#[tokio::test]
async fn evictions_and_streams_are_asked_about_too() {
    let cluster = Cluster::start().await;
    let server = HookServer::start(|_, review| reviewed(review, json!({"allowed": false, "status": {"code": 403, "message": "not now"}}))).await;
    let mut only = hook("parts.example.com", server.config("/"), "pods/eviction");
    only["rules"][0]["resources"] = json!(["pods/eviction", "pods/exec"]);
    only["rules"][0]["operations"] = json!(["CREATE", "CONNECT"]);
    register(&cluster, "ValidatingWebhookConfiguration", "a", json!([only])).await;
    cluster.create(PODS, pod("a")).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let answer = cluster.call(Method::POST, &format!("{PODS}/a/eviction"), eviction).await;
    answer.fails(403, "Forbidden", "admission webhook \"parts.example.com\" denied the request: not now");
    assert_eq!(server.last().2["request"]["kind"], json!({"group": "policy", "version": "v1", "kind": "Eviction"}));
    let answer = cluster.get(&format!("{PODS}/a/exec?command=ls&command=-l&stdout=true")).await;
    answer.fails(403, "Forbidden", "admission webhook \"parts.example.com\" denied the request: not now");
    let request = server.last().2["request"].clone();
    assert_eq!((&request["operation"], &request["object"]["command"]), (&json!("CONNECT"), &json!(["ls", "-l"])));
    assert_eq!(request["object"]["kind"], "PodExecOptions");
}
