//! Which resources the server has and where they are found: read from the server itself, so that custom ones count.
//!
//! Used by namespace teardown and garbage collection, whose work is for every kind there is.

use bytes::Bytes;
use kube_client::{Client, ClientError};
use serde_json::Value;

/// One kind's place in the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) namespaced: bool,
    pub(crate) can_delete: bool,
}

impl Place {
    /// The path of the collection, or of one object in it.
    pub(crate) fn path(&self, namespace: &str, name: &str) -> String {
        let root = if self.api_version.contains('/') { "apis" } else { "api" };
        let mut path = format!("/{root}/{}", self.api_version);
        if self.namespaced && !namespace.is_empty() {
            path = format!("{path}/namespaces/{namespace}");
        }
        path = format!("{path}/{}", self.plural);
        if name.is_empty() { path } else { format!("{path}/{name}") }
    }
}

pub(crate) fn get(path: &str) -> Result<http::Request<Bytes>, ClientError> {
    request(http::Method::GET, path, "application/json", None)
}

pub(crate) fn request(
    method: http::Method,
    path: &str,
    content_type: &str,
    body: Option<&Value>,
) -> Result<http::Request<Bytes>, ClientError> {
    let builder = http::Request::builder().method(method).uri(path).header("accept", "application/json");
    let builder = if body.is_some() { builder.header("content-type", content_type) } else { builder };
    let body = body.map(Value::to_string).unwrap_or_default();
    builder.body(body.into()).map_err(|error| ClientError::InvalidRequest(format!("{path}: {error}")))
}

/// Every resource of every group's preferred version.
pub(crate) async fn all(client: &Client) -> Result<Vec<Place>, ClientError> {
    let mut places = of_group(client, "v1").await?;
    let groups = client.raw(get("/apis")?).await?;
    for group in groups["groups"].as_array().into_iter().flatten() {
        let Some(version) = group["preferredVersion"]["groupVersion"].as_str() else {
            continue;
        };
        match of_group(client, version).await {
            Ok(more) => places.extend(more),
            // One group that is out of order must not hold up the others.
            Err(error) => tracing::warn!(version, %error, "cannot read what a group serves"),
        }
    }
    Ok(places)
}

/// The resources of one group and version.
pub(crate) async fn of_group(client: &Client, api_version: &str) -> Result<Vec<Place>, ClientError> {
    let root = if api_version.contains('/') { "apis" } else { "api" };
    let list = client.raw(get(&format!("/{root}/{api_version}"))?).await?;
    let mut places = Vec::new();
    for resource in list["resources"].as_array().into_iter().flatten() {
        let text = |key: &str| resource[key].as_str().unwrap_or_default().to_owned();
        let verbs: Vec<&str> = resource["verbs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if text("name").contains('/') || !verbs.contains(&"list") {
            continue;
        }
        places.push(Place {
            api_version: api_version.to_owned(),
            kind: text("kind"),
            plural: text("name"),
            namespaced: resource["namespaced"] == true,
            can_delete: verbs.contains(&"delete"),
        });
    }
    Ok(places)
}
