//! What the registry's tests speak HTTP with: plain requests, and a registry of their own to send them to.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use content::Store;
use distribution::registry::{Config, Login, Registry};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use oci::Digest;

pub struct Server {
    pub root: tempfile::TempDir,
    pub registry: Registry,
    pub content: Store,
    pub address: SocketAddr,
    http: Client<HttpConnector, Full<Bytes>>,
    authorization: Option<String>,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    /// The first error's code.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Server {
    pub async fn new() -> Self {
        Self::with(Config::default(), None).await
    }

    pub async fn with(config: Config, login: Option<Login<'_>>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let content = Store::open(root.path()).unwrap();
        Self::on(root, content, config, login).await
    }

    pub async fn on(root: tempfile::TempDir, content: Store, config: Config, login: Option<Login<'_>>) -> Self {
        let registry = Registry::with_config(content.clone(), config, login).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(registry.clone().serve(listener));
        let http = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        Self { root, registry, content, address, http, authorization: None }
    }

    /// The same server, spoken to by somebody else.
    pub fn login(&mut self, authorization: Option<&str>) {
        self.authorization = authorization.map(str::to_owned);
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let uri = if path.starts_with('/') { format!("http://{}{path}", self.address) } else { path.to_owned() };
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let response = self.http.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// A monolithic upload by POST and PUT.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let started = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], "").await;
        assert_eq!(started.status, 202, "{:?}", started.body);
        let path = format!("{}?digest={digest}", started.header("location"));
        let done = self.send("PUT", &path, &[], bytes.to_vec()).await;
        assert_eq!(done.status, 201, "{:?}", done.body);
        digest
    }

    pub async fn push_manifest(&self, repository: &str, reference: &str, manifest: &str) -> Answer {
        let kind = if manifest.contains("\"manifests\"") { "index" } else { "manifest" };
        let media_type = format!("application/vnd.oci.image.{kind}.v1+json");
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.send("PUT", &path, &[("content-type", &media_type)], manifest.to_owned()).await
    }

    /// A whole little image; its manifest.
    pub async fn push_image(&self, repository: &str, tag: &str, layer: &[u8]) -> String {
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let (c, l) = (self.push_blob(repository, config).await, self.push_blob(repository, layer).await);
        let manifest = manifest(&[("config", &c, config.len()), ("layer", &l, layer.len())], "");
        let pushed = self.push_manifest(repository, tag, &manifest).await;
        assert_eq!(pushed.status, 201, "{:?}", pushed.body);
        manifest
    }

    pub fn has_file(&self, digest: &Digest) -> bool {
        Path::new(self.root.path()).join("content/blobs/sha256").join(digest.hex()).exists()
    }
}

/// A manifest of a configuration and layers; `more` goes in as it is.
pub fn manifest(parts: &[(&str, &Digest, usize)], more: &str) -> String {
    let one = |(kind, digest, size): &(&str, &Digest, usize)| {
        let media_type = if *kind == "config" { "config.v1+json" } else { "layer.v1.tar" };
        format!(r#"{{"mediaType":"application/vnd.oci.image.{media_type}","digest":"{digest}","size":{size}}}"#)
    };
    let layers: Vec<String> = parts[1..].iter().map(one).collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]{more}}}"#,
        one(&parts[0]),
        layers.join(",")
    )
}
