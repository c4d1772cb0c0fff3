//! Who asks the node's API, and whether they may.
//!
//! Invariant: the API server decides both (TokenReview, SubjectAccessReview); its answers are kept for a short while only,
//! as by Kubernetes' kubelet, and a refusal never longer than a permission.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use kube_client::Client;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long an answer of the API server is believed.
const BELIEVED: Duration = Duration::from_secs(30);
const MAX_REMEMBERED: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct User {
    name: String,
    uid: String,
    groups: Vec<String>,
}

/// The user of a verified client certificate: CN is the name, each O a group.
pub(super) fn of_certificate(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|one| one.as_str().ok().map(str::to_owned));
    let groups = groups.chain(["system:authenticated".to_owned()]).collect();
    (!name.is_empty()).then_some(User { name, uid: String::new(), groups })
}

/// Verb, and the subresources of the node of which one must be allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    verb: &'static str,
    subresources: &'static [&'static str],
}

/// As Kubernetes' kubelet maps requests; the finer names fall back to `proxy`.
pub(super) fn attributes(method: &Method, path: &str) -> Wanted {
    let verb = match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    };
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let subresources: &[&str] = match first {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    };
    Wanted { verb, subresources }
}

/// Answers that are still believed.
#[derive(Debug)]
struct Believed<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: std::hash::Hash + Eq, V: Clone> Believed<K, V> {
    fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    fn get(&self, key: &K) -> Option<V> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).filter(|(at, _)| at.elapsed() < BELIEVED).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| at.elapsed() < BELIEVED);
        if known.len() < MAX_REMEMBERED {
            known.insert(key, (Instant::now(), value));
        }
    }
}

pub(super) struct Access {
    client: Client,
    node: String,
    tokens: Believed<String, User>,
    granted: Believed<(User, Wanted), ()>,
}

impl Access {
    pub(super) fn new(client: Client, node: &str) -> Self {
        Self { client, node: node.to_owned(), tokens: Believed::new(), granted: Believed::new() }
    }

    async fn review(&self, group: &str, plural: &str, review: &Value) -> Option<Value> {
        let request = http::Request::post(format!("/apis/{group}/v1/{plural}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(review.to_string()))
            .ok()?;
        match self.client.raw(request).await {
            Ok(answer) => Some(answer["status"].clone()),
            Err(error) => {
                tracing::warn!(%error, review = plural, "the API server did not answer a review");
                None
            }
        }
    }

    /// The user of a bearer token; `None` when there is none or it is not accepted.
    pub(super) async fn of_token(&self, headers: &HeaderMap) -> Option<User> {
        let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return None;
        }
        if let Some(user) = self.tokens.get(&token.to_owned()) {
            return Some(user);
        }
        let review =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        let status = self.review("authentication.k8s.io", "tokenreviews", &review).await?;
        if status["authenticated"] != true {
            return None;
        }
        let user = User {
            name: status["user"]["username"].as_str()?.to_owned(),
            uid: status["user"]["uid"].as_str().unwrap_or_default().to_owned(),
            groups: status["user"]["groups"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|group| group.as_str().map(str::to_owned))
                .collect(),
        };
        self.tokens.put(token.to_owned(), user.clone());
        Some(user)
    }

    /// The refusal is in the kubelet's words.
    pub(super) async fn allows(&self, user: &User, wanted: &Wanted) -> Result<(), String> {
        let key = (user.clone(), wanted.clone());
        if self.granted.get(&key).is_some() {
            return Ok(());
        }
        for subresource in wanted.subresources {
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "spec": {
                    "user": user.name, "uid": user.uid, "groups": user.groups,
                    "resourceAttributes": {
                        "verb": wanted.verb, "group": "", "version": "v1", "resource": "nodes",
                        "subresource": subresource, "name": self.node,
                    },
                },
            });
            let status = self.review("authorization.k8s.io", "subjectaccessreviews", &review).await;
            if status.is_some_and(|status| status["allowed"] == true) {
                self.granted.put(key, ());
                return Ok(());
            }
        }
        Err(format!(
            "Forbidden (user={}, verb={}, resource=nodes, subresource(s)=[{}])",
            user.name,
            wanted.verb,
            wanted.subresources.join(" ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_the_subresources_that_kubernetes_asks_about() {
        for (method, path, verb, subresources) in [
            (Method::GET, "/stats/summary", "get", &["stats"][..]),
            (Method::GET, "/metrics", "get", &["metrics"]),
            (Method::GET, "/metrics/cadvisor", "get", &["metrics"]),
            (Method::GET, "/pods", "get", &["pods", "proxy"]),
            (Method::GET, "/podsy", "get", &["proxy"]),
            (Method::GET, "/containerLogs/a/b/c", "get", &["proxy"]),
            (Method::POST, "/exec/a/b/c", "create", &["proxy"]),
            (Method::GET, "/", "get", &["proxy"]),
        ] {
            let wanted = attributes(&method, path);
            assert_eq!((wanted.verb, wanted.subresources), (verb, subresources), "{path}");
        }
    }
}
