//! Custom resources: from the definition to its end, as clients see it.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, version};

pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(crate) const CRONTABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

pub(crate) fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"},
                },
                "selectableFields": [{"jsonPath": ".spec.image"}],
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                ],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["cronSpec"], "properties": {
                        "cronSpec": {"type": "string", "description": "When it runs."},
                        "image": {"type": "string", "default": "busybox"},
                        "replicas": {"type": "integer", "minimum": 0, "maximum": 10, "default": 1},
                        "steps": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                                  "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "run": {"type": "string"}}}},
                    }},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}},
                }}},
            }],
        },
    })
}

pub(crate) fn crontab(name: &str) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": {"cronSpec": "* * * * *"}})
}

async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.create(DEFINITIONS, definition()).await;
    cluster
}

#[tokio::test]
async fn a_definition_is_established_and_its_resource_is_found_by_clients() {
    let cluster = cluster().await;
    let made = cluster.get(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.ok();
    let conditions: Vec<(&str, &str)> = made["status"]["conditions"]
        .as_array()
        .expect("conditions")
        .iter()
        .map(|one| (one["type"].as_str().unwrap_or(""), one["status"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(conditions, [("NamesAccepted", "True"), ("Established", "True")]);
    assert_eq!(made["status"]["acceptedNames"]["singular"], "crontab");
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    let list = cluster.get("/apis/stable.example.com/v1").await.ok();
    let names: Vec<&str> =
        list["resources"].as_array().expect("resources").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["crontabs", "crontabs/status", "crontabs/scale"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["ct"]));
    let groups = cluster.get("/apis").await.ok();
    assert!(groups["groups"].as_array().expect("groups").iter().any(|group| group["name"] == "stable.example.com"));
    let index = cluster.get("/openapi/v3").await.ok();
    assert!(index["paths"].get("apis/stable.example.com/v1").is_some());
    let document = cluster.get("/openapi/v3/apis/stable.example.com/v1").await.ok();
    let schema = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(schema["properties"]["spec"]["properties"]["cronSpec"]["description"], "When it runs.");
    let v2 = cluster.get("/openapi/v2").await.ok();
    assert_eq!(v2["definitions"]["com.example.stable.v1.CronTab"]["x-kubernetes-group-version-kind"][0]["kind"], "CronTab");
}

#[tokio::test]
async fn custom_resources_are_defaulted_pruned_validated_and_watched() {
    let cluster = cluster().await;
    let mut events = cluster.watch(&format!("{CRONTABS}?watch=1")).await;
    let mut object = crontab("a");
    object["spec"]["unknown"] = 1.into();
    let answer = cluster.call(Method::POST, CRONTABS, object.clone()).await;
    assert_eq!(answer.warnings, ["299 - \"unknown field \\\"spec.unknown\\\"\""]);
    let made = answer.ok();
    assert_eq!(made["spec"], json!({"cronSpec": "* * * * *", "image": "busybox", "replicas": 1}));
    assert_eq!(made["metadata"]["generation"], 1);
    let strict = cluster.call(Method::POST, &format!("{CRONTABS}?fieldValidation=Strict"), object).await;
    strict.fails(400, "BadRequest", "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \"spec.unknown\"");
    let mut wrong = crontab("b");
    wrong["spec"] = json!({"replicas": 11});
    let answer = cluster.call(Method::POST, CRONTABS, wrong).await;
    answer.fails(422, "Invalid", "CronTab.stable.example.com \"b\" is invalid: [spec.cronSpec: Required value, spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10]");
    assert_eq!(events.name().await, ("ADDED".to_owned(), "a".to_owned()));
    let patched = cluster.patch(&format!("{CRONTABS}/a"), "merge", json!({"spec": {"image": "web"}})).await.ok();
    assert_eq!((&patched["spec"]["image"], &patched["metadata"]["generation"]), (&json!("web"), &json!(2)));
    assert_eq!(events.name().await, ("MODIFIED".to_owned(), "a".to_owned()));
    let answer = cluster.patch(&format!("{CRONTABS}/a"), "strategic-merge", json!({"spec": {}})).await;
    answer.fails(415, "UnsupportedMediaType", "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml");
    let chosen = cluster.get(&format!("{CRONTABS}?fieldSelector=spec.image%3Dweb")).await.ok();
    assert_eq!((chosen["kind"].clone(), chosen["items"].as_array().expect("items").len()), (json!("CronTabList"), 1));
    assert_eq!(cluster.get(&format!("{CRONTABS}?fieldSelector=spec.cronSpec%3Dx")).await.code, 400);
}

#[tokio::test]
async fn status_and_scale_of_a_custom_resource_are_apart() {
    let cluster = cluster().await;
    let mut made = cluster.create(CRONTABS, crontab("a")).await;
    made["status"] = json!({"replicas": 3, "selector": "app=a"});
    made["spec"]["replicas"] = 9.into();
    let after = cluster.call(Method::PUT, &format!("{CRONTABS}/a/status"), made).await.ok();
    assert_eq!((&after["spec"]["replicas"], &after["status"]["replicas"], &after["metadata"]["generation"]), (&json!(1), &json!(3), &json!(1)));
    let scale = cluster.get(&format!("{CRONTABS}/a/scale")).await.ok();
    assert_eq!((&scale["spec"], &scale["status"]), (&json!({"replicas": 1}), &json!({"replicas": 3, "selector": "app=a"})));
    let scaled = cluster.patch(&format!("{CRONTABS}/a/scale"), "merge", json!({"spec": {"replicas": 5}})).await.ok();
    assert_eq!(scaled["spec"]["replicas"], 5);
    let after = cluster.get(&format!("{CRONTABS}/a")).await.ok();
    assert_eq!((&after["spec"]["replicas"], &after["metadata"]["generation"]), (&json!(5), &json!(2)));
}

#[tokio::test]
async fn apply_merges_a_custom_list_map_by_its_keys() {
    let cluster = cluster().await;
    let steps = |name: &str, run: &str| {
        let mut object = crontab("a");
        object["spec"]["steps"] = json!([{"name": name, "run": run}]);
        object
    };
    let uri = |manager: &str| format!("{CRONTABS}/a?fieldManager={manager}");
    cluster.patch(&uri("one"), "apply", steps("build", "make")).await.ok();
    let both = cluster.patch(&uri("two"), "apply", steps("test", "check")).await.ok();
    assert_eq!(both["spec"]["steps"].as_array().expect("steps").len(), 2);
    let clash = cluster.patch(&uri("two"), "apply", steps("build", "other")).await;
    clash.fails(409, "Conflict", "Apply failed with 1 conflict: conflict with \"one\": .spec.steps[name=\"build\"].run");
}

#[tokio::test]
async fn versions_of_a_custom_resource_are_one_object() {
    let cluster = Cluster::start().await;
    let mut two = definition();
    let mut second = two["spec"]["versions"][0].clone();
    second["name"] = "v1beta1".into();
    second["storage"] = false.into();
    second["deprecated"] = true.into();
    two["spec"]["versions"].as_array_mut().expect("versions").push(second);
    cluster.create(DEFINITIONS, two.clone()).await;
    let old = "/apis/stable.example.com/v1beta1/namespaces/default/crontabs";
    let mut object = crontab("a");
    object["apiVersion"] = "stable.example.com/v1beta1".into();
    let answer = cluster.call(Method::POST, old, object).await;
    assert_eq!(answer.warnings, ["299 - \"stable.example.com/v1beta1 CronTab is deprecated\""]);
    assert_eq!(answer.ok()["apiVersion"], "stable.example.com/v1beta1");
    let stored = cluster.store.get(b"/registry/stable.example.com/crontabs/default/a").expect("stored");
    assert!(stored.value.starts_with(b"{\"apiVersion\":\"stable.example.com/v1\""));
    assert_eq!(cluster.get(&format!("{CRONTABS}/a")).await.ok()["apiVersion"], "stable.example.com/v1");
    let group = cluster.get("/apis/stable.example.com").await.ok();
    assert_eq!(group["preferredVersion"]["version"], "v1");
    // The other version becomes the stored one; a write moves the object.
    let mut turned = cluster.get(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.ok();
    turned["spec"]["versions"][0]["storage"] = false.into();
    turned["spec"]["versions"][1]["storage"] = true.into();
    let turned = cluster.call(Method::PUT, &format!("{DEFINITIONS}/crontabs.stable.example.com"), turned).await.ok();
    assert_eq!(turned["status"]["storedVersions"], json!(["v1", "v1beta1"]));
    let read = cluster.get(&format!("{CRONTABS}/a")).await.ok();
    cluster.call(Method::PUT, &format!("{CRONTABS}/a"), read).await.ok();
    let stored = cluster.store.get(b"/registry/stable.example.com/crontabs/default/a").expect("stored");
    assert!(stored.value.starts_with(b"{\"apiVersion\":\"stable.example.com/v1beta1\""));
}

#[tokio::test]
async fn a_deleted_definition_takes_its_instances_along_and_waits_for_their_finalizers() {
    let cluster = cluster().await;
    cluster.create(CRONTABS, crontab("a")).await;
    let mut held = crontab("b");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.create(CRONTABS, held).await;
    let name = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let mut events = cluster.watch(&format!("{DEFINITIONS}?watch=1")).await;
    assert_eq!(events.name().await.0, "ADDED");
    let mut instances = cluster.watch(&format!("{CRONTABS}?watch=1")).await;
    cluster.delete(&name).await.ok();
    while cluster.get(&format!("{CRONTABS}/a")).await.code != 404 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let answer = cluster.call(Method::POST, CRONTABS, crontab("c")).await;
    answer.fails(405, "MethodNotAllowed", "create not allowed while custom resource definition is terminating");
    let terminating = cluster.get(&name).await.ok();
    assert!(terminating["status"]["conditions"].as_array().expect("conditions").iter().any(|one| one["type"] == "Terminating"));
    assert!(version(&terminating) > 0);
    cluster.patch(&format!("{CRONTABS}/b"), "merge", json!({"metadata": {"finalizers": null}})).await.ok();
    while let Some((kind, _)) = events.next().await {
        if kind == "DELETED" {
            break;
        }
    }
    for _ in 0..200 {
        if cluster.get("/apis/stable.example.com/v1").await.code == 404 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(cluster.get("/apis/stable.example.com/v1").await.code, 404);
    assert_eq!(cluster.get(CRONTABS).await.code, 404);
    // Who watches is told of the last deletion, then the watch ends.
    let mut last = String::new();
    while let Some((kind, _)) = instances.next().await {
        last = kind;
    }
    assert_eq!(last, "DELETED");
    // It can come again.
    cluster.create(DEFINITIONS, definition()).await;
    cluster.create(CRONTABS, crontab("a")).await;
}

#[tokio::test]
async fn definitions_that_cannot_be_are_refused_and_clashing_names_are_not_accepted() {
    let cluster = cluster().await;
    let mut bad = definition();
    bad["metadata"]["name"] = "others.stable.example.com".into();
    let answer = cluster.call(Method::POST, DEFINITIONS, bad).await;
    answer.fails(422, "Invalid", "CustomResourceDefinition.apiextensions.k8s.io \"others.stable.example.com\" is invalid: metadata.name: Invalid value: \"others.stable.example.com\": must be spec.names.plural+\".\"+spec.group");
    let mut clash = definition();
    clash["metadata"]["name"] = "others.stable.example.com".into();
    clash["spec"]["names"] = json!({"plural": "others", "kind": "CronTab"});
    cluster.create(DEFINITIONS, clash).await;
    let clash = cluster.get(&format!("{DEFINITIONS}/others.stable.example.com")).await.ok();
    let names = &clash["status"]["conditions"][0];
    assert_eq!((&names["status"], &names["reason"]), (&json!("False"), &json!("ListKindConflict")));
    assert_eq!(cluster.get("/apis/stable.example.com/v1/others").await.code, 404);
}
