//! Requests to the API server, and manifests from files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request};
use kube_client::Client;
use kube_types::registry::{self, Resource};
use serde::Deserialize;
use serde_json::Value;

use super::resource;

/// A file over this is refused: no manifest is that large, a YAML bomb may be.
const MAX_MANIFEST_BYTES: u64 = 16 << 20;

pub(crate) struct Access {
    pub(crate) client: Client,
}

/// One object of a file.
pub(crate) struct Manifest {
    pub(crate) resource: &'static Resource,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) object: Value,
}

impl Access {
    pub(crate) fn new(kubeconfig: &Path) -> Result<Self> {
        if !kubeconfig.exists() {
            bail!(
                "there is no kubeconfig at {}: is Gantry running? Start it with `gantry up`, or set KUBECONFIG",
                kubeconfig.display()
            );
        }
        Ok(Self { client: Client::from_kubeconfig(kubeconfig)? })
    }

    pub(crate) async fn json(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept", "application/json")
            .header("content-type", content_type)
            .body(Bytes::from(bytes))?;
        self.client.raw(request).await.map_err(server_error)
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.json(Method::GET, path, "application/json", None).await
    }

    /// An answer that is no JSON, such as a log; the server's word where it refuses.
    pub(crate) async fn text(&self, path: &str) -> Result<String> {
        let response = self.client.send(Request::get(path).body(Bytes::new())?).await.map_err(server_error)?;
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(chunk) = futures_util::StreamExt::next(&mut body).await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// `None` where there is no such object.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Value>> {
        let request = Request::get(path).header("accept", "application/json").body(Bytes::new())?;
        match self.client.raw(request).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(server_error(error)),
        }
    }

    /// The newest pod that a target names or owns.
    pub(crate) async fn pod_of(&self, target: &str, namespace: &str) -> Result<Value> {
        let target = resource::target(target, Some("pods"))?;
        let name = target.name.as_deref().unwrap_or_default();
        let object = self.get(&resource::path(target.resource, Some(namespace), Some(name))).await?;
        if target.resource.kind == "Pod" {
            return Ok(object);
        }
        let labels =
            object["spec"]["selector"]["matchLabels"].as_object().or_else(|| object["spec"]["selector"].as_object());
        let Some(labels) = labels else { bail!("{} selects no pods", resource::shown(target.resource, name)) };
        let selector = labels
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(",");
        let pods = self
            .get(&format!(
                "{}?labelSelector={}",
                resource::path(resource::find("pods")?, Some(namespace), None),
                escaped(&selector)
            ))
            .await?;
        let running =
            |pod: &&Value| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null();
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        pods.iter()
            .find(running)
            .or(pods.first())
            .cloned()
            .with_context(|| format!("{} has no pods", resource::shown(target.resource, name)))
    }
}

fn server_error(error: kube_client::ClientError) -> anyhow::Error {
    match error.status() {
        Some(status) => {
            let reason = status.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            anyhow::anyhow!("Error from server{reason}: {}", status.message.as_deref().unwrap_or("no message"))
        }
        None => anyhow::Error::new(error),
    }
}

/// Reads manifests from files, folders (*.yaml, *.yml, *.json) and standard input; lists are taken apart.
pub(crate) fn manifests(names: &[String], namespace: &str) -> Result<Vec<Manifest>> {
    let mut found = Vec::new();
    for name in names {
        for path in files(name)? {
            let text = read(&path)?;
            for document in serde_yaml_ng::Deserializer::from_str(&text) {
                let value =
                    Value::deserialize(document).with_context(|| format!("error parsing {}", path.display()))?;
                collect(value, namespace, &path, &mut found)?;
            }
        }
    }
    if found.is_empty() {
        bail!("no objects passed to apply");
    }
    Ok(found)
}

fn files(name: &str) -> Result<Vec<PathBuf>> {
    let path = PathBuf::from(name);
    if name == "-" || !path.is_dir() {
        return Ok(vec![path]);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(&path)
        .with_context(|| format!("cannot read {name}"))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    files.retain(|file| {
        file.extension().is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known))
    });
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    use std::io::Read;
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(MAX_MANIFEST_BYTES).read_to_string(&mut text).context("cannot read standard input")?;
    } else {
        let file =
            std::fs::File::open(path).with_context(|| format!("the path {:?} cannot be read", path.display()))?;
        file.take(MAX_MANIFEST_BYTES)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(text)
}

fn collect(object: Value, namespace: &str, path: &Path, found: &mut Vec<Manifest>) -> Result<()> {
    if object.is_null() {
        return Ok(());
    }
    let place = path.display();
    if object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"))
        && let Some(items) = object["items"].as_array()
    {
        return items.iter().try_for_each(|item| collect(item.clone(), namespace, path, found));
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = text(&object["kind"]).with_context(|| format!("error validating {place}: kind not set"))?;
    let version =
        text(&object["apiVersion"]).with_context(|| format!("error validating {place}: apiVersion not set"))?;
    let resource = registry::find_by_api_version(&version, &kind).with_context(|| {
        format!("resource mapping not found for {place}: no matches for kind {kind:?} in version {version:?}")
    })?;
    let name = text(&object["metadata"]["name"]).with_context(|| {
        format!("error validating {place}: metadata.name: Required value: name or generateName is required")
    })?;
    let namespace =
        resource.namespaced.then(|| text(&object["metadata"]["namespace"]).unwrap_or_else(|| namespace.to_owned()));
    found.push(Manifest { resource, namespace, name, object });
    Ok(())
}

pub(crate) fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// `90s`, `2m`, `1h`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => bail!("invalid duration {text:?}: write it as 90s, 2m or 1h"),
    };
    let number: u64 = digits.parse().with_context(|| format!("invalid duration {text:?}"))?;
    Ok(std::time::Duration::from_secs(number.saturating_mul(scale)))
}
