//! A live copy of one kind of object: list, then watch, and again whenever that breaks.
//!
//! Every controller, the scheduler, the proxy, DNS and the node agent read through it.
//! Invariants: an object in the cache is what the server sent, but for managedFields (they are half of the bytes, and
//! an update that leaves them out keeps them); a key's changes come in order; a subscriber's
//! backlog holds at most one change a key, so that memory is bounded by what exists; what this process wrote and
//! handed to [`Cache::observe`] is visible at once (read your own writes) and is never undone by an older event.

use crate::api::{ListOptions, Object, WatchOptions};
use crate::subscription::{Subscriber, Subscribers};
use crate::watch::WatchEvent;
use crate::{Client, ClientError};
use futures_util::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::watch;

pub use crate::subscription::{Change, Changes};

/// Namespace (empty for cluster-wide kinds) and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        ObjectKey { namespace: namespace.into(), name: name.into() }
    }

    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What to keep a copy of.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub namespace: Option<String>,
    pub labels: Option<String>,
    pub fields: Option<String>,
}

/// Clones share one copy; the task behind it ends with the last of them.
pub struct Cache<K: Object> {
    shared: Arc<Shared<K>>,
    task: Arc<Task>,
}

impl<K: Object> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Cache { shared: self.shared.clone(), task: self.task.clone() }
    }
}

struct Task(tokio::task::AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Shared<K> {
    content: RwLock<Content<K>>,
    synced: watch::Sender<bool>,
}

/// What else an object can be found by (a pod: its node).
pub type Words<K> = fn(&K) -> Vec<String>;

struct Content<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    /// Keys by the uid of their controlling owner; by the empty text what nobody controls.
    owned: HashMap<String, BTreeSet<ObjectKey>>,
    /// The words that an object can be found by, besides its name.
    words: Option<Words<K>>,
    by_word: HashMap<String, BTreeSet<ObjectKey>>,
    /// Everything up to this resourceVersion has been told by list and watch.
    told: u64,
    subscribers: Subscribers<K>,
}

impl<K: Object> Cache<K> {
    /// Starts to list and watch. Must be called inside a tokio runtime.
    pub fn start(client: &Client, scope: Scope) -> Self {
        Self::start_indexed(client, scope, None)
    }

    /// The same, and its objects can be found by `words` too.
    pub fn start_indexed(client: &Client, scope: Scope, words: Option<Words<K>>) -> Self {
        let content = Content {
            objects: BTreeMap::new(),
            owned: HashMap::new(),
            words,
            by_word: HashMap::new(),
            told: 0,
            subscribers: Subscribers::default(),
        };
        let shared = Arc::new(Shared { content: RwLock::new(content), synced: watch::Sender::new(false) });
        let task = tokio::spawn(follow(client.clone(), scope, shared.clone())).abort_handle();
        Cache { shared, task: Arc::new(Task(task)) }
    }

    /// Resolves once the first list is in.
    pub async fn synced(&self) {
        // The sender lives in `shared`, so the wait cannot fail.
        let _ = self.shared.synced.subscribe().wait_for(|synced| *synced).await;
    }

    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get_key(&ObjectKey::new(namespace, name))
    }

    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.shared.read().objects.get(key).cloned()
    }

    /// Everything, by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.read().objects.values().cloned().collect()
    }

    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = ObjectKey::new(namespace, "");
        let content = self.shared.read();
        let inside = content.objects.range(from..).take_while(|(key, _)| key.namespace == namespace);
        inside.map(|(_, object)| object.clone()).collect()
    }

    /// What the object with this uid controls.
    pub fn controlled_by(&self, uid: &str) -> Vec<Arc<K>> {
        let content = self.shared.read();
        let keys = content.owned.get(uid).into_iter().flatten();
        keys.filter_map(|key| content.objects.get(key).cloned()).collect()
    }

    /// What nobody controls in the namespace.
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        let content = self.shared.read();
        let Some(keys) = content.owned.get("") else { return Vec::new() };
        let inside = keys.range(ObjectKey::new(namespace, "")..).take_while(|key| key.namespace == namespace);
        inside.filter_map(|key| content.objects.get(key).cloned()).collect()
    }

    /// What has this word, in a cache that was started with an index.
    pub fn with_word(&self, word: &str) -> Vec<Arc<K>> {
        let content = self.shared.read();
        let keys = content.by_word.get(word).into_iter().flatten();
        keys.filter_map(|key| content.objects.get(key).cloned()).collect()
    }

    pub fn len(&self) -> usize {
        self.shared.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every change from now on, preceded by one `Applied` for each object that is there already. Changes of one key
    /// that pile up become one, with the first `old` and the last `new`; an object that was deleted and made again
    /// in between shows as one change between different uids.
    pub fn changes(&self) -> Changes<K> {
        let mut content = self.shared.write();
        let subscriber = Subscriber::new();
        for (key, object) in &content.objects {
            subscriber.push(key, None, Some(object.clone()));
        }
        content.subscribers.add(&subscriber);
        Changes::new(subscriber)
    }

    /// Takes in the server's answer to a write of our own, ahead of the watch.
    pub fn observe(&self, object: &K) {
        let mut content = self.shared.write();
        let version = version_of(object);
        // What the watch has told already is at least as new: the object may even have been deleted since.
        if version > content.told {
            content.apply(object.clone());
        }
    }

    /// Takes in that a deletion of our own left nothing behind.
    pub fn observe_gone(&self, key: &ObjectKey, uid: Option<&str>) {
        let mut content = self.shared.write();
        let same = content.objects.get(key).is_some_and(|o| o.metadata().uid.as_deref() == uid);
        if same {
            content.remove(key);
        }
    }
}

impl<K> Shared<K> {
    fn read(&self) -> RwLockReadGuard<'_, Content<K>> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Content<K>> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Object> Content<K> {
    /// Puts the object in place unless what stands there is newer.
    fn apply(&mut self, mut object: K) {
        object.metadata_mut().managed_fields = None;
        let key = ObjectKey::of(object.metadata());
        let old = self.objects.get(&key).cloned();
        if old.as_ref().is_some_and(|old| version_of(&**old) >= version_of(&object) && version_of(&object) > 0) {
            return;
        }
        if let Some(old) = &old {
            self.unlink(&key, old);
        }
        let uid = controller_uid(object.metadata()).to_owned();
        self.owned.entry(uid).or_default().insert(key.clone());
        for word in self.words.iter().flat_map(|words| words(&object)) {
            self.by_word.entry(word).or_default().insert(key.clone());
        }
        let new = Arc::new(object);
        self.objects.insert(key.clone(), new.clone());
        self.subscribers.push(&key, old, Some(new));
    }

    fn remove(&mut self, key: &ObjectKey) {
        if let Some(old) = self.objects.remove(key) {
            self.unlink(key, &old);
            self.subscribers.push(key, Some(old), None);
        }
    }

    fn unlink(&mut self, key: &ObjectKey, old: &K) {
        drop_key(&mut self.owned, controller_uid(old.metadata()), key);
        for word in self.words.iter().flat_map(|words| words(old)) {
            drop_key(&mut self.by_word, &word, key);
        }
    }

    fn replace(&mut self, items: Vec<K>, version: u64) {
        let listed: BTreeSet<ObjectKey> = items.iter().map(|o| ObjectKey::of(o.metadata())).collect();
        let gone = self.objects.iter().filter(|(key, object)| {
            // What we wrote after the list was taken is not in it and yet exists.
            !listed.contains(key) && (version == 0 || version_of(&***object) <= version)
        });
        let gone: Vec<ObjectKey> = gone.map(|(key, _)| key.clone()).collect();
        for key in &gone {
            self.remove(key);
        }
        for object in items {
            self.apply(object);
        }
        self.told = self.told.max(version);
    }
}

fn drop_key(index: &mut HashMap<String, BTreeSet<ObjectKey>>, word: &str, key: &ObjectKey) {
    if let Some(keys) = index.get_mut(word) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(word);
        }
    }
}

fn controller_uid(meta: &ObjectMeta) -> &str {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|o| o.controller == Some(true)).map_or("", |o| o.uid.as_str())
}

/// 0 when the server gave none that can be compared.
fn version_of<K: Object>(object: &K) -> u64 {
    parse_version(object.metadata().resource_version.as_deref())
}

fn parse_version(version: Option<&str>) -> u64 {
    version.and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Lists and watches for ever; a break is retried at once, then with growing pauses.
async fn follow<K: Object>(client: Client, scope: Scope, shared: Arc<Shared<K>>) {
    let mut pause = Duration::ZERO;
    let mut resume = None;
    loop {
        let begun = tokio::time::Instant::now();
        let ended = list_and_watch(&client, &scope, &shared, &mut resume).await.err();
        if ended.as_ref().is_some_and(ClientError::is_gone) {
            resume = None;
        }
        if begun.elapsed() > Duration::from_secs(5) {
            pause = Duration::ZERO;
        }
        if let Some(error) = &ended {
            tracing::debug!(kind = K::KIND, %error, ?pause, "a watch ended");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).clamp(Duration::from_millis(10), Duration::from_secs(5));
    }
}

/// `resume` is where the last watch got to; None means that a list has to come first.
async fn list_and_watch<K: Object>(
    client: &Client,
    scope: &Scope,
    shared: &Shared<K>,
    resume: &mut Option<String>,
) -> Result<(), ClientError> {
    let mut api = client.api::<K>();
    if let Some(namespace) = &scope.namespace {
        api = api.namespace(namespace);
    }
    if resume.is_none() {
        let options =
            ListOptions { labels: scope.labels.clone(), fields: scope.fields.clone(), ..ListOptions::default() };
        let list = api.list(&options).await?;
        let version = list.metadata.resource_version.clone();
        shared.write().replace(list.items, parse_version(version.as_deref()));
        shared.synced.send_replace(true);
        *resume = version;
    }
    let options = WatchOptions {
        labels: scope.labels.clone(),
        fields: scope.fields.clone(),
        resource_version: resume.clone(),
        bookmarks: true,
    };
    let mut events = api.watch(&options).await?;
    while let Some(event) = events.next().await {
        let version = take_in(shared, event?);
        if !version.is_empty() {
            *resume = Some(version);
        }
    }
    Ok(())
}

fn take_in<K: Object>(shared: &Shared<K>, event: WatchEvent<K>) -> String {
    let mut content = shared.write();
    let version = match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            let version = object.metadata().resource_version.clone().unwrap_or_default();
            content.apply(object);
            version
        }
        WatchEvent::Deleted(last) => {
            let version = last.metadata().resource_version.clone().unwrap_or_default();
            let key = ObjectKey::of(last.metadata());
            let same = content.objects.get(&key).is_some_and(|o| o.metadata().uid == last.metadata().uid);
            if same {
                content.remove(&key);
            }
            version
        }
        WatchEvent::Bookmark { resource_version } => resource_version,
    };
    content.told = content.told.max(parse_version(Some(&version)));
    version
}
