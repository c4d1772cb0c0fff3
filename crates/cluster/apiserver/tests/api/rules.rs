//! CEL rules of custom resources: refused definitions, refused instances, budgets.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::custom::{CRONTABS, DEFINITIONS, crontab, definition};

fn with_rules(spec: Value) -> Value {
    let mut made = definition();
    let schema = &mut made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    schema["x-kubernetes-validations"] = spec;
    made
}

#[tokio::test]
async fn rules_refuse_what_they_say_with_their_message_reason_and_path() {
    let cluster = Cluster::start().await;
    let made = with_rules(json!([
        {"rule": "self.replicas <= 5 || self.image == 'big'", "message": "only big images may have many replicas"},
        {"rule": "self.cronSpec.size() > 3", "messageExpression": "'cronSpec has only %d characters'.format([self.cronSpec.size()])", "fieldPath": ".cronSpec", "reason": "FieldValueForbidden"},
        {"rule": "self.image == oldSelf.image", "message": "image is immutable"},
    ]));
    cluster.create(DEFINITIONS, made).await;
    let mut object = crontab("a");
    object["spec"]["replicas"] = 6.into();
    let answer = cluster.call(Method::POST, CRONTABS, object).await;
    answer.fails(422, "Invalid", "CronTab.stable.example.com \"a\" is invalid: spec: Invalid value: \"object\": only big images may have many replicas");
    let mut object = crontab("a");
    object["spec"]["cronSpec"] = "*".into();
    let answer = cluster.call(Method::POST, CRONTABS, object).await;
    answer.fails(422, "Invalid", "CronTab.stable.example.com \"a\" is invalid: spec.cronSpec: Forbidden: cronSpec has only 1 characters");
    cluster.create(CRONTABS, crontab("a")).await;
    let answer = cluster.patch(&format!("{CRONTABS}/a"), "merge", json!({"spec": {"image": "other"}})).await;
    answer.fails(422, "Invalid", "CronTab.stable.example.com \"a\" is invalid: spec: Invalid value: \"object\": image is immutable");
    cluster.patch(&format!("{CRONTABS}/a"), "merge", json!({"spec": {"replicas": 2}})).await.ok();
}

#[tokio::test]
async fn rules_that_cannot_be_compiled_or_paid_for_refuse_the_definition() {
    let cluster = Cluster::start().await;
    let at = "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
    let whole = |words: &str| format!("CustomResourceDefinition.apiextensions.k8s.io \"crontabs.stable.example.com\" is invalid: {words}");
    let answer = cluster.call(Method::POST, DEFINITIONS, with_rules(json!([{"rule": "self.nosuch == 1"}]))).await;
    answer.fails(422, "Invalid", &whole(&format!("{at}: Invalid value: \"self.nosuch == 1\": compilation failed: ERROR: <input>:1:5: undefined field 'nosuch'\n | self.nosuch == 1\n | ....^")));
    let answer = cluster.call(Method::POST, DEFINITIONS, with_rules(json!([{"rule": "self.replicas + 1"}]))).await;
    answer.fails(422, "Invalid", &whole(&format!("{at}: Invalid value: \"self.replicas + 1\": cel expression must evaluate to a bool")));
    let dear = "self.steps.all(a, self.steps.all(b, self.steps.all(c, a.name != b.name || b.name != c.name)))";
    let answer = cluster.call(Method::POST, DEFINITIONS, with_rules(json!([{"rule": dear}]))).await;
    assert_eq!(answer.code, 422);
    let message = answer.body["message"].as_str().unwrap_or("").to_owned();
    assert!(message.contains(&format!("{at}: Forbidden: estimated rule cost exceeds budget by factor of more than 100x")), "{message}");
    assert_eq!(cluster.get(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.code, 404);
}

#[tokio::test]
async fn old_objects_live_on_under_stricter_rules() {
    let cluster = Cluster::start().await;
    cluster.create(DEFINITIONS, definition()).await;
    cluster.create(CRONTABS, crontab("a")).await;
    let mut stricter = cluster.get(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.ok();
    let schema = &mut stricter["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    schema["cronSpec"]["x-kubernetes-validations"] = json!([{"rule": "self.startsWith('@')", "message": "must start with @"}]);
    cluster.call(Method::PUT, &format!("{DEFINITIONS}/crontabs.stable.example.com"), stricter).await.ok();
    cluster.patch(&format!("{CRONTABS}/a"), "merge", json!({"spec": {"replicas": 3}})).await.ok();
    let answer = cluster.patch(&format!("{CRONTABS}/a"), "merge", json!({"spec": {"cronSpec": "other"}})).await;
    answer.fails(422, "Invalid", "CronTab.stable.example.com \"a\" is invalid: spec.cronSpec: Invalid value: \"other\": must start with @");
}
