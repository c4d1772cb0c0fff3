//! Typed access to one kind of object.
//!
//! Used by every cluster part to write, and by the informer to read. Invariant: a request names exactly one
//! collection or object; a namespaced object's namespace comes from the object itself or from `.namespace()`.
//! It does not retry: a conflict is the caller's to re-decide.

use crate::watch::{self, WatchEvent};
use crate::{Client, ClientError};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{List, ListableResource, Metadata, NamespaceResourceScope};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::any::type_name;
use std::fmt::Write;
use std::marker::PhantomData;

/// Every kind that this client can handle, typed.
pub trait Object:
    ListableResource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Serialize + Clone + Send + Sync + 'static
{
}
impl<K> Object for K where
    K: ListableResource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Serialize + Clone + Send + Sync + 'static
{
}

#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub labels: Option<String>,
    pub fields: Option<String>,
    pub limit: Option<u32>,
    pub continue_token: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    pub labels: Option<String>,
    pub fields: Option<String>,
    pub resource_version: Option<String>,
    pub bookmarks: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply { field_manager: &'static str, force: bool },
}

impl PatchKind {
    fn content_type(self) -> &'static str {
        match self {
            PatchKind::Json => "application/json-patch+json",
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Strategic => "application/strategic-merge-patch+json",
            PatchKind::Apply { .. } => "application/apply-patch+yaml",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// Preconditions and manner of a deletion.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub grace_seconds: Option<u32>,
    pub propagation: Option<Propagation>,
}

impl DeleteOptions {
    /// Only the very object that was seen, never a later one of the same name.
    pub fn of(meta: &ObjectMeta) -> Self {
        DeleteOptions { uid: meta.uid.clone(), ..Self::default() }
    }

    fn body(&self) -> serde_json::Value {
        let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if self.uid.is_some() || self.resource_version.is_some() {
            let mut preconditions = serde_json::Map::new();
            preconditions.extend(self.uid.as_ref().map(|uid| ("uid".into(), json!(uid))));
            preconditions.extend(self.resource_version.as_ref().map(|rv| ("resourceVersion".into(), json!(rv))));
            body["preconditions"] = preconditions.into();
        }
        if let Some(grace) = self.grace_seconds {
            body["gracePeriodSeconds"] = grace.into();
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = match propagation {
                Propagation::Background => "Background",
                Propagation::Foreground => "Foreground",
                Propagation::Orphan => "Orphan",
            }
            .into();
        }
        body
    }
}

/// One kind's collection: everywhere, or in one namespace.
pub struct Api<K> {
    client: Client,
    namespace: Option<String>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Api { client: self.client.clone(), namespace: self.namespace.clone(), kind: PhantomData }
    }
}

impl<K: Object> Api<K> {
    pub(crate) fn new(client: Client) -> Self {
        Api { client, namespace: None, kind: PhantomData }
    }

    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    pub async fn get(&self, name: &str) -> Result<K, ClientError> {
        self.call(Method::GET, self.object(None, name, "")?, None, &()).await
    }

    /// None when there is no such object.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>, ClientError> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn list(&self, options: &ListOptions) -> Result<List<K>, ClientError> {
        let mut query = Query::new(self.collection(None));
        query.add("labelSelector", options.labels.as_deref());
        query.add("fieldSelector", options.fields.as_deref());
        query.add("limit", options.limit.map(|l| l.to_string()).as_deref());
        query.add("continue", options.continue_token.as_deref());
        self.call(Method::GET, query.0, None, &()).await
    }

    pub async fn create(&self, object: &K) -> Result<K, ClientError> {
        let path = self.collection(object.metadata().namespace.as_deref());
        self.require_namespace(object.metadata().namespace.as_deref())?;
        self.call(Method::POST, path, Some("application/json"), object).await
    }

    /// Name (and namespace) come from the object, and its resourceVersion guards the write.
    pub async fn update(&self, object: &K) -> Result<K, ClientError> {
        self.replace(object, "").await
    }

    pub async fn update_status(&self, object: &K) -> Result<K, ClientError> {
        self.replace(object, "status").await
    }

    async fn replace(&self, object: &K, subresource: &str) -> Result<K, ClientError> {
        let meta = object.metadata();
        let name = meta.name.as_deref().unwrap_or_default();
        let path = self.object(meta.namespace.as_deref(), name, subresource)?;
        self.call(Method::PUT, path, Some("application/json"), object).await
    }

    pub async fn patch(&self, name: &str, kind: PatchKind, body: &serde_json::Value) -> Result<K, ClientError> {
        self.patch_at(name, "", kind, body).await
    }

    pub async fn patch_status(&self, name: &str, kind: PatchKind, body: &serde_json::Value) -> Result<K, ClientError> {
        self.patch_at(name, "status", kind, body).await
    }

    async fn patch_at(
        &self,
        name: &str,
        subresource: &str,
        kind: PatchKind,
        body: &serde_json::Value,
    ) -> Result<K, ClientError> {
        let mut query = Query::new(self.object(None, name, subresource)?);
        if let PatchKind::Apply { field_manager, force } = kind {
            query.add("fieldManager", Some(field_manager));
            query.add("force", force.then_some("true"));
        }
        self.call(Method::PATCH, query.0, Some(kind.content_type()), body).await
    }

    /// The object as it is while it goes (graceful deletion, finalizers), or None when it is gone already.
    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> Result<Option<K>, ClientError> {
        let path = self.object(None, name, "")?;
        let answer: serde_json::Value =
            self.call(Method::DELETE, path, Some("application/json"), &options.body()).await?;
        if answer["kind"] == "Status" {
            return Ok(None);
        }
        let object: K = serde_json::from_value(answer)
            .map_err(|source| ClientError::Decode { what: format!("the deletion of {name}"), source })?;
        Ok(object.metadata().deletion_timestamp.is_some().then_some(object))
    }

    /// POST to a subresource (binding, eviction, token).
    pub async fn post<B, R>(&self, name: &str, subresource: &str, body: &B) -> Result<R, ClientError>
    where
        B: Serialize + Sync,
        R: DeserializeOwned,
    {
        let path = self.object(None, name, subresource)?;
        self.call(Method::POST, path, Some("application/json"), body).await
    }

    /// Changes after `resource_version` (everything there is, then changes, when it is None).
    pub async fn watch(
        &self,
        options: &WatchOptions,
    ) -> Result<BoxStream<'static, Result<WatchEvent<K>, ClientError>>, ClientError> {
        let mut query = Query::new(self.collection(None));
        query.add("watch", Some("true"));
        query.add("labelSelector", options.labels.as_deref());
        query.add("fieldSelector", options.fields.as_deref());
        query.add("resourceVersion", options.resource_version.as_deref());
        query.add("allowWatchBookmarks", options.bookmarks.then_some("true"));
        let answer = self.client.send(request(Method::GET, &query.0, None, Bytes::new())?).await?;
        Ok(watch::decode(answer.into_body()))
    }

    async fn call<B, R>(
        &self,
        method: Method,
        path: String,
        content_type: Option<&str>,
        body: &B,
    ) -> Result<R, ClientError>
    where
        B: Serialize + Sync + ?Sized,
        R: DeserializeOwned,
    {
        let what = || format!("{} {}", K::KIND, path);
        let body = match content_type {
            Some(_) => serde_json::to_vec(body).map_err(|source| ClientError::Encode { what: what(), source })?,
            None => Vec::new(),
        };
        let answer = self.client.fetch(request(method, &path, content_type, body.into())?).await?;
        serde_json::from_slice(&answer).map_err(|source| ClientError::Decode { what: what(), source })
    }

    fn collection(&self, own_namespace: Option<&str>) -> String {
        let mut path = if K::GROUP.is_empty() { "/api/".to_owned() } else { format!("/apis/{}/", K::GROUP) };
        path.push_str(K::VERSION);
        let namespace = own_namespace.or(self.namespace.as_deref()).filter(|ns| !ns.is_empty());
        if let Some(namespace) = namespace.filter(|_| is_namespaced::<K>()) {
            let _ = write!(path, "/namespaces/{}", escape(namespace));
        }
        let _ = write!(path, "/{}", K::URL_PATH_SEGMENT);
        path
    }

    fn object(&self, namespace: Option<&str>, name: &str, subresource: &str) -> Result<String, ClientError> {
        if name.is_empty() {
            return Err(ClientError::InvalidRequest(format!("a {} without a name", K::KIND)));
        }
        self.require_namespace(namespace)?;
        let mut path = self.collection(namespace);
        let _ = write!(path, "/{}", escape(name));
        if !subresource.is_empty() {
            let _ = write!(path, "/{subresource}");
        }
        Ok(path)
    }

    fn require_namespace(&self, namespace: Option<&str>) -> Result<(), ClientError> {
        if is_namespaced::<K>() && namespace.or(self.namespace.as_deref()).is_none_or(str::is_empty) {
            return Err(ClientError::InvalidRequest(format!("a {} without a namespace", K::KIND)));
        }
        Ok(())
    }
}

fn is_namespaced<K: Object>() -> bool {
    // By name and not by `TypeId`: the trait does not promise that a scope is 'static.
    type_name::<K::Scope>() == type_name::<NamespaceResourceScope>()
}

fn request(
    method: Method,
    path: &str,
    content_type: Option<&str>,
    body: Bytes,
) -> Result<http::Request<Bytes>, ClientError> {
    let mut request = http::Request::builder().method(method).uri(path).header("accept", "application/json");
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    request.body(body).map_err(|error| ClientError::InvalidRequest(format!("{path}: {error}")))
}

struct Query(String);

impl Query {
    fn new(path: String) -> Self {
        Query(path)
    }

    fn add(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            let mark = if self.0.contains('?') { '&' } else { '?' };
            let _ = write!(self.0, "{mark}{name}={}", escape(value));
        }
    }
}

/// Percent-encodes everything but what RFC 3986 calls unreserved.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Node, Pod};

    struct Nowhere;
    impl crate::Transport for Nowhere {
        fn call(
            &self,
            _: http::Request<Bytes>,
        ) -> futures_util::future::BoxFuture<'_, Result<http::Response<crate::Body>, ClientError>> {
            Box::pin(async { Err(ClientError::InvalidRequest("nowhere".into())) })
        }
    }

    #[test]
    fn paths_follow_group_scope_and_namespace() {
        let client = Client::new(std::sync::Arc::new(Nowhere));
        assert_eq!(client.api::<Pod>().collection(None), "/api/v1/pods");
        assert_eq!(client.api::<Pod>().collection(Some("a b")), "/api/v1/namespaces/a%20b/pods");
        let deployments = client.api::<Deployment>().namespace("x");
        assert_eq!(deployments.collection(None), "/apis/apps/v1/namespaces/x/deployments");
        assert_eq!(deployments.object(None, "d", "status").unwrap(), "/apis/apps/v1/namespaces/x/deployments/d/status");
        assert_eq!(client.api::<Node>().namespace("x").object(None, "n", "").unwrap(), "/api/v1/nodes/n");
        assert!(client.api::<Pod>().object(None, "p", "").is_err(), "a pod without a namespace");
        assert!(client.api::<Node>().object(None, "", "").is_err(), "a node without a name");
    }
}
