//! A server over a temporary directory, and requests to it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, Body, Config, Identity, Pki, ServingNames};
use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::{Value, json};

pub(crate) struct Cluster {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) store: store::Store,
    pub(crate) pki: Arc<Pki>,
    _directory: tempfile::TempDir,
}

/// An answer whose body was read to its end.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
    pub(crate) warnings: Vec<String>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!((200..300).contains(&self.code), "{}: {}", self.code, self.body);
        self.body
    }

    #[track_caller]
    pub(crate) fn fails(self, code: u16, reason: &str, message: &str) -> Value {
        let got = (self.code, self.body["reason"].as_str().unwrap_or(""), self.body["message"].as_str().unwrap_or(""));
        assert_eq!(got, (code, reason, message));
        self.body
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let names = ServingNames { host_name: "test".to_owned(), addresses: vec![address] };
        let pki = Arc::new(Pki::open(&directory.path().join("pki"), &names).expect("pki"));
        let store = store::Store::open(directory.path().join("store")).expect("store");
        let config = Config { advertise_address: address, advertise_port: 6443 };
        let server = ApiServer::start(store.clone(), Arc::clone(&pki), config).await.expect("server");
        let cluster = Self { server, store, pki, _directory: directory };
        cluster.create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
        cluster
    }

    /// The same cluster after a restart of its server.
    pub(crate) async fn restart(&mut self, address: IpAddr) {
        let config = Config { advertise_address: address, advertise_port: 6443 };
        self.server = ApiServer::start(self.store.clone(), Arc::clone(&self.pki), config).await.expect("server");
    }

    pub(crate) async fn send(&self, user: Identity, request: Request<Bytes>) -> Response<Body> {
        let answer = self.server.handle(user, request);
        tokio::time::timeout(Duration::from_secs(5), answer).await.expect("an answer in time")
    }

    pub(crate) async fn call_as(
        &self,
        user: Identity,
        method: Method,
        uri: &str,
        content_type: &str,
        body: Value,
    ) -> Answer {
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder().method(method).uri(uri).header("content-type", content_type);
        let response = self.send(user, request.body(bytes).expect("request")).await;
        let code = response.status().as_u16();
        let warnings = response
            .headers()
            .get_all("warning")
            .iter()
            .map(|value| value.to_str().expect("text").to_owned())
            .collect();
        let bytes = response.into_body().collect().await;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answer { code, body, warnings }
    }

    pub(crate) async fn call(&self, method: Method, uri: &str, body: Value) -> Answer {
        self.call_as(admin(), method, uri, "application/json", body).await
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.call(Method::GET, uri, Value::Null).await
    }

    #[track_caller]
    pub(crate) fn create(&self, uri: &str, body: Value) -> impl Future<Output = Value> {
        let call = self.call(Method::POST, uri, body);
        async move { call.await.ok() }
    }

    pub(crate) async fn patch(&self, uri: &str, form: &str, body: Value) -> Answer {
        let form = match form {
            "apply" => "application/apply-patch+yaml".to_owned(),
            form => format!("application/{form}-patch+json"),
        };
        self.call_as(admin(), Method::PATCH, uri, &form, body).await
    }

    pub(crate) async fn delete(&self, uri: &str) -> Answer {
        self.call(Method::DELETE, uri, Value::Null).await
    }

    /// The next events of a watch, as many as asked for.
    pub(crate) async fn watch(&self, uri: &str) -> Events {
        let request = Request::builder().uri(uri).body(Bytes::new()).expect("request");
        let response = self.send(admin(), request).await;
        assert_eq!(response.status(), 200);
        Events { body: response.into_body() }
    }
}

pub(crate) fn admin() -> Identity {
    Identity::in_process("test-admin")
}

pub(crate) struct Events {
    body: Body,
}

impl Events {
    /// `(type, object)`; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        use http_body_util::BodyExt as _;
        let frame = tokio::time::timeout(Duration::from_secs(5), self.body.frame()).await.expect("an event in time")?;
        let line = frame.expect("infallible").into_data().expect("data");
        let event: Value = serde_json::from_slice(&line).expect("one event a chunk");
        Some((event["type"].as_str().expect("type").to_owned(), event["object"].clone()))
    }

    pub(crate) async fn name(&mut self) -> (String, String) {
        let (kind, object) = self.next().await.expect("an event");
        (kind, object["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    }
}

pub(crate) fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a resourceVersion")
}

pub(crate) fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

pub(crate) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "web"}]}})
}

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
