use crate::ClientError;
use futures_util::stream::BoxStream;
use k8s_openapi::List;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ListableResource, Metadata};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// Every kind that this client can handle, typed.
pub trait Object: ListableResource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Serialize + Clone + Send + Sync + 'static {}
impl<K> Object for K where K: ListableResource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Serialize + Clone + Send + Sync + 'static {}

#[derive(Clone, Debug, Default)]
pub struct ListOptions { pub labels: Option<String>, pub fields: Option<String>, pub limit: Option<u32>, pub continue_token: Option<String> }
#[derive(Clone, Debug, Default)]
pub struct WatchOptions { pub labels: Option<String>, pub fields: Option<String>, pub resource_version: Option<String>, pub bookmarks: bool }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind { Json, Merge, Strategic, Apply { field_manager: &'static str, force: bool } }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation { Background, Foreground, Orphan }
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions { pub uid: Option<String>, pub resource_version: Option<String>, pub grace_seconds: Option<u32>, pub propagation: Option<Propagation> }
pub enum WatchEvent<K> { Added(K), Modified(K), Deleted(K), Bookmark { resource_version: String } }

#[derive(Clone)]
pub struct Api<K> { kind: PhantomData<fn() -> K> }

impl<K: Object> Api<K> {
    #[must_use]
    pub fn namespace(self, _namespace: impl Into<String>) -> Self { todo!() }
    pub async fn get(&self, _name: &str) -> Result<K, ClientError> { todo!() }
    pub async fn get_opt(&self, _name: &str) -> Result<Option<K>, ClientError> { todo!() }
    pub async fn list(&self, _options: &ListOptions) -> Result<List<K>, ClientError> { todo!() }
    pub async fn create(&self, _object: &K) -> Result<K, ClientError> { todo!() }
    /// Name (and namespace) come from the object.
    pub async fn update(&self, _object: &K) -> Result<K, ClientError> { todo!() }
    pub async fn update_status(&self, _object: &K) -> Result<K, ClientError> { todo!() }
    pub async fn patch(&self, _name: &str, _kind: PatchKind, _body: &serde_json::Value) -> Result<K, ClientError> { todo!() }
    pub async fn patch_status(&self, _name: &str, _kind: PatchKind, _body: &serde_json::Value) -> Result<K, ClientError> { todo!() }
    pub async fn delete(&self, _name: &str, _options: &DeleteOptions) -> Result<(), ClientError> { todo!() }
    /// POST to a subresource (binding, eviction, token).
    pub async fn post<B: Serialize + Sync, R: DeserializeOwned>(&self, _name: &str, _subresource: &str, _body: &B) -> Result<R, ClientError> { todo!() }
    pub async fn watch(&self, _options: &WatchOptions) -> Result<BoxStream<'static, Result<WatchEvent<K>, ClientError>>, ClientError> { todo!() }
}
