use crate::{Client, api::Object};
use std::sync::Arc;

/// namespace (empty for cluster-scoped kinds) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey { pub namespace: String, pub name: String }

/// What to keep a copy of.
#[derive(Clone, Debug, Default)]
pub struct Scope { pub namespace: Option<String>, pub labels: Option<String>, pub fields: Option<String> }

/// One change, with both sides; a relist is told as changes too.
pub enum Change<K> { Applied { old: Option<Arc<K>>, new: Arc<K> }, Deleted { last: Arc<K> } }

/// A live copy of one kind: list + watch, reconnects by itself. Clones share the copy; the task ends with the last clone.
#[derive(Clone)]
pub struct Cache<K> { inner: std::marker::PhantomData<fn() -> K> }

impl<K: Object> Cache<K> {
    pub fn start(_client: &Client, _scope: Scope) -> Self { todo!() }
    /// Resolves once the first list is in.
    pub async fn synced(&self) { todo!() }
    pub fn is_synced(&self) -> bool { todo!() }
    pub fn get(&self, _namespace: &str, _name: &str) -> Option<Arc<K>> { todo!() }
    pub fn list(&self) -> Vec<Arc<K>> { todo!() }
    pub fn list_namespace(&self, _namespace: &str) -> Vec<Arc<K>> { todo!() }
    /// Every change from now on, preceded by one `Applied` for each object that is there already; in order; bounded by coalescing per key.
    pub fn changes(&self) -> Changes<K> { todo!() }
}

pub struct Changes<K> { inner: std::marker::PhantomData<fn() -> K> }
impl<K: Object> Changes<K> {
    /// None once the cache is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Change<K>> { todo!() }
}
