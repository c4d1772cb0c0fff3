//! List and watch: pages, selectors, versions, order.

use http::{Method, Request};
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, admin, config_map, version};

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().expect("items").iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

fn labelled(name: &str, tier: &str) -> Value {
    let mut object = config_map(name);
    object["metadata"]["labels"] = json!({"tier": tier});
    object
}

#[tokio::test]
async fn pages_of_a_list_are_one_picture_whatever_is_written_meanwhile() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c", "d"] {
        cluster.create(CONFIG_MAPS, config_map(name)).await;
    }
    let first = cluster.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    cluster.delete(&format!("{CONFIG_MAPS}/c")).await.ok();
    cluster.create(CONFIG_MAPS, config_map("bb")).await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let second = cluster.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.ok();
    assert_eq!(names(&second), ["c", "d"]);
    assert!(second["metadata"].get("continue").is_none());
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}?continue=nonsense")).await.code, 400);
}

#[tokio::test]
async fn selectors_choose_by_labels_and_fields() {
    let cluster = Cluster::start().await;
    cluster.create(CONFIG_MAPS, labelled("a", "web")).await;
    cluster.create(CONFIG_MAPS, labelled("b", "db")).await;
    cluster.create(CONFIG_MAPS, config_map("c")).await;
    for (query, expected) in [
        ("labelSelector=tier%3Dweb", vec!["a"]),
        ("labelSelector=tier", vec!["a", "b"]),
        ("labelSelector=!tier", vec!["c"]),
        ("labelSelector=tier+in+(web,db),tier!%3Ddb", vec!["a"]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=metadata.name!%3Db", vec!["a", "c"]),
        ("fieldSelector=metadata.name%3Db&labelSelector=tier%3Dweb", vec![]),
    ] {
        let list = cluster.get(&format!("{CONFIG_MAPS}?{query}")).await.ok();
        assert_eq!(names(&list), expected, "{query}");
    }
    cluster.get(&format!("{CONFIG_MAPS}?fieldSelector=data.a%3D1")).await.fails(
        400,
        "BadRequest",
        "field label not supported: data.a",
    );
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}?labelSelector=a%3D%3D%3Db")).await.code, 400);
}

#[tokio::test]
async fn a_version_from_the_future_is_a_timeout_that_clients_retry() {
    let cluster = Cluster::start().await;
    let answer = cluster.get(&format!("{CONFIG_MAPS}?resourceVersion=999999&resourceVersionMatch=NotOlderThan")).await;
    assert_eq!(answer.code, 504);
    assert_eq!(answer.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn a_watch_from_a_list_misses_nothing_and_repeats_nothing() {
    let cluster = Cluster::start().await;
    cluster.create(CONFIG_MAPS, config_map("before")).await;
    let list = cluster.get(CONFIG_MAPS).await.ok();
    let created = cluster.create(CONFIG_MAPS, config_map("a")).await;
    let mut events = cluster.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", version(&list))).await;
    cluster.patch(&format!("{CONFIG_MAPS}/a"), "merge", json!({"data": {"a": "2"}})).await.ok();
    cluster.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    assert_eq!(events.next().await, Some(("ADDED".to_owned(), created)));
    let (kind, modified) = events.next().await.expect("modified");
    assert_eq!((kind.as_str(), &modified["data"]["a"]), ("MODIFIED", &json!("2")));
    let (kind, deleted) = events.next().await.expect("deleted");
    assert_eq!(kind, "DELETED");
    assert!(version(&deleted) > version(&modified));
    assert_eq!(deleted["metadata"]["uid"], modified["metadata"]["uid"]);
}

#[tokio::test]
async fn objects_enter_and_leave_the_selection_of_a_watch() {
    let cluster = Cluster::start().await;
    let mut events = cluster.watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=tier%3Dweb")).await;
    cluster.create(CONFIG_MAPS, labelled("other", "db")).await;
    cluster.create(CONFIG_MAPS, labelled("a", "db")).await;
    cluster.patch(&format!("{CONFIG_MAPS}/a"), "merge", json!({"metadata": {"labels": {"tier": "web"}}})).await.ok();
    cluster.patch(&format!("{CONFIG_MAPS}/a"), "merge", json!({"data": {"a": "2"}})).await.ok();
    let left =
        cluster.patch(&format!("{CONFIG_MAPS}/a"), "merge", json!({"metadata": {"labels": {"tier": "db"}}})).await.ok();
    assert_eq!(events.name().await, ("ADDED".to_owned(), "a".to_owned()));
    assert_eq!(events.name().await, ("MODIFIED".to_owned(), "a".to_owned()));
    let (kind, object) = events.next().await.expect("an event");
    assert_eq!((kind.as_str(), version(&object)), ("DELETED", version(&left)));
    assert_eq!(object["metadata"]["labels"]["tier"], "web");
}

#[tokio::test]
async fn a_streaming_list_ends_with_a_marked_bookmark_and_goes_on_as_a_watch() {
    let cluster = Cluster::start().await;
    cluster.create(CONFIG_MAPS, config_map("a")).await;
    let query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut events = cluster.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(events.name().await, ("ADDED".to_owned(), "a".to_owned()));
    let (kind, bookmark) = events.next().await.expect("bookmark");
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(bookmark["kind"], "ConfigMap");
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    cluster.create(CONFIG_MAPS, config_map("b")).await;
    assert_eq!(events.name().await, ("ADDED".to_owned(), "b".to_owned()));
}

#[tokio::test]
async fn a_watch_from_a_compacted_version_is_told_to_list_again() {
    let cluster = Cluster::start().await;
    let first = cluster.create(CONFIG_MAPS, config_map("a")).await;
    for value in ["2", "3"] {
        cluster.patch(&format!("{CONFIG_MAPS}/a"), "merge", json!({"data": {"a": value}})).await.ok();
    }
    cluster.store.compact(cluster.store.revision()).await.expect("compaction");
    let mut events = cluster.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", version(&first))).await;
    let (kind, status) = events.next().await.expect("an event");
    assert_eq!((kind.as_str(), &status["code"], &status["reason"]), ("ERROR", &json!(410), &json!("Expired")));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout_after_bookmarks() {
    let cluster = Cluster::start().await;
    tokio::time::pause();
    let mut events = cluster
        .watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=100&allowWatchBookmarks=true&resourceVersion=1"))
        .await;
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    let (kind, bookmark) = events.next().await.expect("a bookmark");
    assert_eq!((kind.as_str(), version(&bookmark)), ("BOOKMARK", cluster.store.revision()));
    tokio::time::advance(std::time::Duration::from_secs(40)).await;
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn tables_and_partial_metadata_are_made_when_they_are_asked_for() {
    let cluster = Cluster::start().await;
    cluster.create(CONFIG_MAPS, config_map("a")).await;
    let shaped = async |uri: &str, shape: &str| {
        let accept = format!("application/json;as={shape};v=v1;g=meta.k8s.io,application/json");
        let request =
            Request::builder().method(Method::GET).uri(uri).header("accept", accept).body(bytes::Bytes::new());
        let response = cluster.send(admin(), request.expect("request")).await;
        serde_json::from_slice::<Value>(&response.into_body().collect().await).expect("JSON")
    };
    let table = shaped(CONFIG_MAPS, "Table").await;
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    let rows: Vec<&Value> = table["rows"].as_array().expect("rows").iter().map(|row| &row["cells"][0]).collect();
    assert!(rows.contains(&&json!("a")));
    let list = shaped(CONFIG_MAPS, "PartialObjectMetadataList").await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    let one = shaped(&format!("{CONFIG_MAPS}/a"), "PartialObjectMetadata").await;
    assert_eq!((&one["kind"], one.get("data")), (&json!("PartialObjectMetadata"), None));
}

#[tokio::test]
async fn large_lists_are_compressed_for_clients_that_can_read_it() {
    let cluster = Cluster::start().await;
    for index in 0..5 {
        let mut object = config_map(&format!("large-{index}"));
        object["data"]["a"] = "x".repeat(40_000).into();
        cluster.create(CONFIG_MAPS, object).await;
    }
    let request = Request::builder().uri(CONFIG_MAPS).header("accept-encoding", "gzip").body(bytes::Bytes::new());
    let response = cluster.send(admin(), request.expect("request")).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert!(response.into_body().collect().await.len() < 20_000);
}

#[tokio::test]
async fn the_resource_version_rules_of_lists_are_kubernetes_own() {
    let cluster = Cluster::start().await;
    let first = cluster.create(CONFIG_MAPS, config_map("a")).await;
    let at = version(&first);
    cluster.create(CONFIG_MAPS, config_map("b")).await;
    let names = async |query: &str| -> Result<Vec<String>, (u16, String)> {
        let answer = cluster.get(&format!("{CONFIG_MAPS}?{query}")).await;
        if answer.code != 200 {
            return Err((answer.code, answer.body["message"].as_str().unwrap_or_default().to_owned()));
        }
        let items = answer.body["items"].as_array().expect("items").clone();
        Ok(items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect())
    };
    let exact = format!("resourceVersion={at}&resourceVersionMatch=Exact");
    assert_eq!(names(&exact).await, Ok(vec!["a".to_owned()]), "the picture of that very moment");
    assert_eq!(names(&format!("resourceVersion={at}&resourceVersionMatch=NotOlderThan")).await.unwrap().len(), 2);
    assert_eq!(names("resourceVersion=0").await.unwrap().len(), 2);
    assert_eq!(names(&format!("resourceVersion={at}&limit=1")).await, Ok(vec!["a".to_owned()]));
    for (query, part) in [
        ("resourceVersion=0&resourceVersionMatch=Exact".to_owned(), "\"Exact\" is forbidden for resourceVersion \"0\""),
        ("resourceVersionMatch=Exact".to_owned(), "resourceVersionMatch"),
        (format!("resourceVersion={at}&resourceVersionMatch=Newest"), "resourceVersionMatch"),
        ("resourceVersion=x".to_owned(), "invalid resource version"),
    ] {
        let (code, message) = names(&query).await.expect_err(&query);
        assert!(code == 400 && message.contains(part), "{query}: {code} {message}");
    }
    cluster.store.compact(cluster.store.revision()).await.expect("compaction");
    let (code, message) = names(&exact).await.expect_err("compacted");
    assert_eq!(code, 410, "{message}");
}
