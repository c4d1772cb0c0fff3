//! The cache against a server that is played by a script: what it lists, what it streams, and how it breaks off.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube_client::informer::{Cache, Change, Changes, ObjectKey, Scope};
use kube_client::{Body, Client, ClientError, Transport};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Each list takes the next entry of `lists`, each watch the next of `watches`; `asked` keeps the requests.
#[derive(Default)]
struct Script {
    lists: Mutex<VecDeque<Value>>,
    watches: Mutex<VecDeque<UnboundedReceiver<Value>>>,
    asked: Mutex<Vec<String>>,
}

impl Transport for Script {
    fn call(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, ClientError>> {
        let uri = request.uri().to_string();
        self.asked.lock().unwrap().push(uri.clone());
        Box::pin(async move {
            if !uri.contains("watch=true") {
                let list = self.lists.lock().unwrap().pop_front();
                let Some(list) = list else {
                    return std::future::pending().await;
                };
                return Ok(http::Response::new(Body::full(list.to_string())));
            }
            let watch = self.watches.lock().unwrap().pop_front();
            let Some(watch) = watch else {
                return std::future::pending().await;
            };
            let lines = stream::unfold(watch, |mut watch| async {
                watch.recv().await.map(|event| (Ok(Bytes::from(format!("{event}\n"))), watch))
            });
            Ok(http::Response::new(Body::from_stream(lines.boxed())))
        })
    }
}

fn pod(name: &str, uid: &str, version: u64) -> Value {
    json!({"metadata": {"namespace": "n", "name": name, "uid": uid, "resourceVersion": version.to_string()}})
}

fn list(version: u64, items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": version.to_string()}, "items": items})
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

struct Played {
    script: Arc<Script>,
    cache: Cache<Pod>,
    changes: Changes<Pod>,
    streams: Vec<Option<UnboundedSender<Value>>>,
}

async fn play(lists: Vec<Value>, watches: usize) -> Played {
    let script = Arc::new(Script::default());
    script.lists.lock().unwrap().extend(lists);
    let mut streams = Vec::new();
    for _ in 0..watches {
        let (sender, receiver) = unbounded_channel();
        script.watches.lock().unwrap().push_back(receiver);
        streams.push(Some(sender));
    }
    let cache = Cache::<Pod>::start(&Client::new(script.clone()), Scope::default());
    cache.synced().await;
    let changes = cache.changes();
    Played { script, cache, changes, streams }
}

async fn next(changes: &mut Changes<Pod>) -> String {
    let change = tokio::time::timeout(Duration::from_secs(2), changes.next()).await.expect("a change comes");
    let version =
        |p: &Pod| format!("{}@{}", p.metadata.name.clone().unwrap(), p.metadata.resource_version.clone().unwrap());
    match change.unwrap() {
        Change::Applied { old: None, new } => format!("+{}", version(&new)),
        Change::Applied { old: Some(old), new } => format!("{}>{}", version(&old), version(&new)),
        Change::Deleted { last } => format!("-{}", version(&last)),
    }
}

#[tokio::test]
async fn list_then_watch_keeps_the_copy_and_tells_every_change() {
    let mut p = play(vec![list(5, &[pod("a", "1", 3)])], 1).await;
    assert_eq!(next(&mut p.changes).await, "+a@3");
    let stream = p.streams[0].as_ref().unwrap();
    stream.send(event("MODIFIED", pod("a", "1", 6))).unwrap();
    assert_eq!(next(&mut p.changes).await, "a@3>a@6");
    stream.send(event("ADDED", pod("b", "2", 7))).unwrap();
    assert_eq!(next(&mut p.changes).await, "+b@7");
    stream.send(event("DELETED", pod("a", "1", 8))).unwrap();
    assert_eq!(next(&mut p.changes).await, "-a@6");
    assert_eq!(p.cache.list().len(), 1);
    assert!(p.script.asked.lock().unwrap()[1].contains("resourceVersion=5"));
}

#[tokio::test]
async fn a_broken_watch_resumes_where_it_was_and_an_expired_one_lists_again() {
    let mut p = play(vec![list(5, &[pod("a", "1", 3), pod("b", "2", 4)]), list(20, &[pod("b", "2", 15)])], 3).await;
    for _ in 0..2 {
        next(&mut p.changes).await;
    }
    p.streams[0].as_ref().unwrap().send(event("BOOKMARK", json!({"metadata": {"resourceVersion": "9"}}))).unwrap();
    p.streams[0] = None;
    let expired = json!({"kind": "Status", "code": 410, "reason": "Expired"});
    p.streams[1].as_ref().unwrap().send(event("ERROR", expired)).unwrap();
    assert_eq!(next(&mut p.changes).await, "-a@3", "what a relist misses was deleted");
    assert_eq!(next(&mut p.changes).await, "b@4>b@15");
    let asked = p.script.asked.lock().unwrap().clone();
    assert!(asked[2].contains("resourceVersion=9"), "resumed from the bookmark: {asked:?}");
    assert!(!asked[3].contains("watch=true"), "listed again: {asked:?}");
}

#[tokio::test]
async fn own_writes_are_visible_at_once_and_older_news_does_not_undo_them() {
    let mut p = play(vec![list(5, &[pod("a", "1", 3)])], 1).await;
    next(&mut p.changes).await;
    let written: Pod = serde_json::from_value(pod("a", "1", 9)).unwrap();
    p.cache.observe(&written);
    assert_eq!(next(&mut p.changes).await, "a@3>a@9");
    let stream = p.streams[0].as_ref().unwrap();
    stream.send(event("MODIFIED", pod("a", "1", 8))).unwrap();
    stream.send(event("MODIFIED", pod("a", "1", 9))).unwrap();
    stream.send(event("DELETED", pod("a", "1", 10))).unwrap();
    assert_eq!(next(&mut p.changes).await, "-a@9");
    p.cache.observe(&written);
    assert!(p.cache.is_empty(), "a late answer does not bring back what was deleted since");
}

#[tokio::test]
async fn changes_that_pile_up_become_one_a_key() {
    let mut p = play(vec![list(5, &[pod("a", "1", 3)])], 1).await;
    next(&mut p.changes).await;
    for version in 10..500 {
        let object: Pod = serde_json::from_value(pod("a", "1", version)).unwrap();
        p.cache.observe(&object);
    }
    let passing: Pod = serde_json::from_value(pod("x", "9", 600)).unwrap();
    p.cache.observe(&passing);
    p.cache.observe_gone(&ObjectKey::new("n", "x"), Some("9"));
    assert_eq!(next(&mut p.changes).await, "a@3>a@499");
    assert!(p.changes.try_next().is_none(), "what came and went unseen is not told");
}

#[tokio::test]
async fn what_an_object_controls_is_found_by_its_uid() {
    let mut owned = pod("a", "1", 3);
    owned["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r1", "controller": true}]);
    let p = play(vec![list(5, &[owned, pod("b", "2", 4)])], 1).await;
    assert_eq!(p.cache.controlled_by("r1").len(), 1);
    p.streams[0].as_ref().unwrap().send(event("MODIFIED", pod("a", "1", 6))).unwrap();
    for _ in 0..200 {
        if p.cache.controlled_by("r1").is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("an orphan is still found by its former owner");
}

#[tokio::test]
async fn the_last_clone_ends_the_task_and_the_subscriptions() {
    let mut p = play(vec![list(5, &[])], 1).await;
    drop(p.cache);
    let ended = tokio::time::timeout(Duration::from_secs(2), p.changes.next()).await;
    assert!(ended.expect("the subscription ends").is_none());
}
