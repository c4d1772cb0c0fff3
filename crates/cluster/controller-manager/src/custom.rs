//! Custom resources in garbage collection: one metadata watch for each established CustomResourceDefinition.
//!
//! Started by `garbage`, into whose graph and queue it feeds. Invariant: what a watch knew is taken out of the graph when its
//! definition goes, so no edge outlives its kind.

use crate::Context;
use crate::discovery::{self, Place};
use crate::garbage::{Shared, absorb, lock};
use crate::graph::Item;
use crate::runner::Queue;
use futures_util::StreamExt as _;
use http::header::{ACCEPT, HeaderValue};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_client::informer::{Cache, Change, ObjectKey, Scope};
use kube_client::{Client, ClientError, Partial};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};

const PARTIAL: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a watch has seen and not seen go, by uid.
type Known = Arc<Mutex<HashMap<String, ObjectMeta>>>;

/// Where the events of a kind go.
#[derive(Clone)]
struct Feed {
    client: Client,
    graph: Shared,
    queue: Queue,
    place: Place,
    known: Known,
}

/// Follows the definitions, and with them what they define.
pub(crate) fn spawn(tasks: &mut JoinSet<()>, context: &Arc<Context>, graph: &Shared, queue: &Queue) {
    let definitions = Cache::<Partial<CustomResourceDefinition>>::start(&context.client, Scope::default());
    let (client, graph, queue) = (context.client.clone(), graph.clone(), queue.clone());
    tasks.spawn(async move {
        let mut changes = definitions.changes();
        let mut running: HashMap<String, (AbortHandle, Feed)> = HashMap::new();
        let mut watches = JoinSet::new();
        while let Some(change) = changes.next().await {
            while watches.try_join_next().is_some() {}
            match change {
                Change::Deleted { last } => {
                    let uid = last.metadata.uid.clone().unwrap_or_default();
                    if let Some((watch, feed)) = running.remove(&uid) {
                        watch.abort();
                        feed.forget_all();
                    }
                }
                Change::Applied { new, .. } => {
                    let uid = new.metadata.uid.clone().unwrap_or_default();
                    let name = new.metadata.name.clone().unwrap_or_default();
                    if running.contains_key(&uid) {
                        continue;
                    }
                    if let Some(place) = established(&client, &name).await {
                        let (client, graph, queue) = (client.clone(), graph.clone(), queue.clone());
                        let feed = Feed { client, graph, queue, place, known: Known::default() };
                        running.insert(uid, (watches.spawn(feed.clone().run()), feed));
                    }
                }
            }
        }
    });
}

/// Where the resources of an established definition are.
async fn established(client: &Client, name: &str) -> Option<Place> {
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
    let definition = client.raw(discovery::get(&path).ok()?).await.ok()?;
    let conditions = definition["status"]["conditions"].as_array()?;
    conditions.iter().find(|c| c["type"] == "Established" && c["status"] == "True")?;
    let spec = &definition["spec"];
    let version = spec["versions"].as_array()?.iter().find(|version| version["served"] == true)?;
    Some(Place {
        api_version: format!("{}/{}", spec["group"].as_str()?, version["name"].as_str()?),
        kind: spec["names"]["kind"].as_str()?.to_owned(),
        plural: spec["names"]["plural"].as_str()?.to_owned(),
        namespaced: spec["scope"] == "Namespaced",
        can_delete: true,
    })
}

impl Feed {
    /// Lists and watches until it is aborted; a break is retried at once, then with growing pauses.
    async fn run(self) {
        let mut pause = Duration::ZERO;
        loop {
            let begun = tokio::time::Instant::now();
            if let Err(error) = self.list_and_watch().await {
                tracing::debug!(kind = self.place.kind, %error, "a metadata watch ended");
            }
            pause = if begun.elapsed() > LONGEST_PAUSE { Duration::ZERO } else { pause };
            tokio::time::sleep(pause).await;
            pause = (pause * 2).clamp(Duration::from_millis(10), LONGEST_PAUSE);
        }
    }

    async fn list_and_watch(&self) -> Result<(), ClientError> {
        let path = self.place.path("", "");
        let mut request = discovery::get(&path)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(PARTIAL));
        let list = self.client.raw(request).await?;
        let items: Vec<ObjectMeta> = list["items"].as_array().into_iter().flatten().filter_map(metadata).collect();
        let gone: Vec<ObjectMeta> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.values().filter(|old| !items.iter().any(|item| item.uid == old.uid)).cloned().collect()
        };
        gone.into_iter().for_each(|meta| self.gone(&meta));
        items.into_iter().for_each(|meta| self.here(meta));
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let mut request =
            discovery::get(&format!("{path}?watch=true&allowWatchBookmarks=true&resourceVersion={version}"))?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(PARTIAL));
        let mut events = self.client.watch_raw(request).await?;
        while let Some(event) = events.next().await {
            let (kind, object) = event?;
            match (kind.as_str(), metadata(&object)) {
                ("ADDED" | "MODIFIED", Some(meta)) => self.here(meta),
                ("DELETED", Some(meta)) => self.gone(&meta),
                _ => {}
            }
        }
        Ok(())
    }

    fn here(&self, meta: ObjectMeta) {
        let uid = meta.uid.clone().unwrap_or_default();
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, meta.clone());
        let item =
            Item { api_version: self.place.api_version.clone().into(), kind: self.place.kind.clone().into(), meta };
        self.tell(absorb(&mut lock(&self.graph), None, Some(item)));
    }

    fn gone(&self, meta: &ObjectMeta) {
        let uid = meta.uid.clone().unwrap_or_default();
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        self.tell(absorb(&mut lock(&self.graph), Some(meta), None));
    }

    fn forget_all(&self) {
        let known: Vec<ObjectMeta> =
            self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        known.iter().for_each(|meta| self.gone(meta));
    }

    fn tell(&self, uids: Vec<String>) {
        uids.into_iter().for_each(|uid| self.queue.add(ObjectKey::new("", uid)));
    }
}

fn metadata(object: &Value) -> Option<ObjectMeta> {
    serde_json::from_value(object.get("metadata")?.clone()).ok()
}
