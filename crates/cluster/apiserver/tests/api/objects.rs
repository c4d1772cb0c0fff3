//! Create, read, update: identity, versions, conflicts and errors.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, config_map, version};

#[tokio::test]
async fn created_objects_get_identity_and_can_be_read_back_as_they_were_answered() {
    let cluster = Cluster::start().await;
    let created = cluster.create(CONFIG_MAPS, config_map("a")).await;
    assert_eq!(created["kind"], "ConfigMap");
    assert_eq!(created["metadata"]["namespace"], "default");
    assert_eq!(created["metadata"]["uid"].as_str().expect("uid").len(), 36);
    assert!(created["metadata"]["creationTimestamp"].is_string());
    let read = cluster.get(&format!("{CONFIG_MAPS}/a")).await.ok();
    assert_eq!(read, created);
}

#[tokio::test]
async fn errors_are_worded_as_kubernetes_words_them() {
    let cluster = Cluster::start().await;
    cluster.create(CONFIG_MAPS, config_map("a")).await;
    let exists = cluster.call(Method::POST, CONFIG_MAPS, config_map("a")).await;
    let exists = exists.fails(409, "AlreadyExists", "configmaps \"a\" already exists");
    assert_eq!(exists["details"], json!({"name": "a", "kind": "configmaps"}));
    cluster.get(&format!("{CONFIG_MAPS}/b")).await.fails(404, "NotFound", "configmaps \"b\" not found");
    cluster.get("/apis/apps/v1/namespaces/default/deployments/x").await.fails(
        404,
        "NotFound",
        "deployments.apps \"x\" not found",
    );
    cluster.get("/api/v1/nonsense").await.fails(404, "NotFound", "the server could not find the requested resource");
    cluster.get("/nonsense").await.fails(404, "NotFound", "the server could not find the requested resource");
    let lost = cluster.call(Method::POST, "/api/v1/namespaces/none/configmaps", config_map("a")).await;
    lost.fails(404, "NotFound", "namespaces \"none\" not found");
    let wrong = cluster.call(Method::PUT, &format!("{CONFIG_MAPS}/a"), config_map("b")).await;
    wrong.fails(400, "BadRequest", "the name of the object (b) does not match the name on the URL (a)");
    let elsewhere = json!({"metadata": {"name": "c", "namespace": "other"}});
    let elsewhere = cluster.call(Method::POST, CONFIG_MAPS, elsewhere).await;
    elsewhere.fails(
        400,
        "BadRequest",
        "the namespace of the provided object does not match the namespace sent on the request",
    );
    assert_eq!(cluster.call(Method::PUT, CONFIG_MAPS, config_map("a")).await.code, 405);
}

#[tokio::test]
async fn an_update_of_an_old_version_is_a_conflict_and_one_that_changes_nothing_writes_nothing() {
    let cluster = Cluster::start().await;
    let uri = format!("{CONFIG_MAPS}/a");
    let first = cluster.create(CONFIG_MAPS, config_map("a")).await;
    let mut changed = first.clone();
    changed["data"]["a"] = "2".into();
    let second = cluster.call(Method::PUT, &uri, changed.clone()).await.ok();
    assert!(version(&second) > version(&first));
    assert_eq!(second["metadata"]["uid"], first["metadata"]["uid"]);
    let stale = cluster.call(Method::PUT, &uri, changed).await;
    stale.fails(409, "Conflict", "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again");
    let same = cluster.call(Method::PUT, &uri, second.clone()).await.ok();
    assert_eq!(version(&same), version(&second));
}

#[tokio::test]
async fn a_client_cannot_change_what_belongs_to_the_server() {
    let cluster = Cluster::start().await;
    let first = cluster.create(CONFIG_MAPS, config_map("a")).await;
    let mut changed = first.clone();
    changed["metadata"]["creationTimestamp"] = "2000-01-01T00:00:00Z".into();
    changed["metadata"]["deletionTimestamp"] = "2000-01-01T00:00:00Z".into();
    changed["metadata"]["labels"] = json!({"x": "y"});
    let second = cluster.call(Method::PUT, &format!("{CONFIG_MAPS}/a"), changed.clone()).await.ok();
    assert_eq!(second["metadata"]["creationTimestamp"], first["metadata"]["creationTimestamp"]);
    assert!(second["metadata"].get("deletionTimestamp").is_none());
    changed["metadata"]["uid"] = "other".into();
    changed["metadata"]["resourceVersion"] = Value::Null;
    let other = cluster.call(Method::PUT, &format!("{CONFIG_MAPS}/a"), changed).await;
    assert_eq!((other.code, other.body["reason"].as_str()), (409, Some("Conflict")));
}

#[tokio::test]
async fn names_are_generated_and_a_name_is_required() {
    let cluster = Cluster::start().await;
    let made = cluster.create(CONFIG_MAPS, json!({"metadata": {"generateName": "web-"}})).await;
    let name = made["metadata"]["name"].as_str().expect("name");
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    let none = cluster.call(Method::POST, CONFIG_MAPS, json!({"metadata": {}})).await;
    assert_eq!(none.code, 422);
    assert!(none.body["message"].as_str().expect("message").contains("name or generateName is required"));
}

#[tokio::test]
async fn a_dry_run_answers_like_the_real_thing_and_stores_nothing() {
    let cluster = Cluster::start().await;
    let revision = cluster.store.revision();
    let made = cluster.create(&format!("{CONFIG_MAPS}?dryRun=All"), config_map("a")).await;
    assert!(made["metadata"]["uid"].is_string());
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    assert_eq!(cluster.store.revision(), revision);
    assert_eq!(cluster.call(Method::POST, &format!("{CONFIG_MAPS}?dryRun=Some"), config_map("a")).await.code, 400);
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_dropped_as_the_client_wants() {
    let cluster = Cluster::start().await;
    let mut odd = config_map("a");
    odd["colour"] = "red".into();
    let strict = cluster.call(Method::POST, &format!("{CONFIG_MAPS}?fieldValidation=Strict"), odd.clone()).await;
    assert_eq!(strict.code, 400);
    assert!(
        strict.body["message"].as_str().expect("message").contains("strict decoding error: unknown field \"colour\""),
        "{}",
        strict.body
    );
    let warned = cluster.call(Method::POST, CONFIG_MAPS, odd.clone()).await;
    assert_eq!(warned.warnings, ["299 - \"unknown field \\\"colour\\\"\""]);
    assert!(warned.ok().get("colour").is_none());
    odd["metadata"]["name"] = "b".into();
    let ignored = cluster.call(Method::POST, &format!("{CONFIG_MAPS}?fieldValidation=Ignore"), odd).await;
    assert!(ignored.warnings.is_empty());
}

#[tokio::test]
async fn of_many_creators_of_one_name_exactly_one_succeeds() {
    let cluster = Cluster::start().await;
    let calls = (0..16).map(|_| cluster.call(Method::POST, CONFIG_MAPS, config_map("a")));
    let codes: Vec<u16> = futures_util::future::join_all(calls).await.into_iter().map(|answer| answer.code).collect();
    assert_eq!(codes.iter().filter(|&&code| code == 201).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|&&code| code == 409).count(), 15, "{codes:?}");
}

#[tokio::test]
async fn bodies_that_are_no_objects_are_refused_without_harm() {
    let cluster = Cluster::start().await;
    for body in [
        json!([]),
        json!(1),
        json!("x"),
        json!({"metadata": []}),
        json!({"metadata": {"name": 1}}),
        json!({"kind": "Pod"}),
        json!({"data": {"a": 1}}),
    ] {
        let answer = cluster.call(Method::POST, CONFIG_MAPS, body.clone()).await;
        assert!(matches!(answer.code, 400 | 422), "{body}: {} {}", answer.code, answer.body);
    }
    for name in ["..", "a/b", "a%2Fb", "A_B", ""] {
        let answer = cluster.call(Method::POST, CONFIG_MAPS, config_map(name)).await;
        assert!(matches!(answer.code, 400 | 422), "{name}: {}", answer.code);
    }
    let protobuf = cluster
        .call_as(crate::cluster::admin(), Method::POST, CONFIG_MAPS, "application/vnd.kubernetes.protobuf", json!({}))
        .await;
    assert_eq!(protobuf.code, 400);
    let xml = cluster.call_as(crate::cluster::admin(), Method::POST, CONFIG_MAPS, "text/xml", json!({})).await;
    assert_eq!(xml.code, 415);
}
