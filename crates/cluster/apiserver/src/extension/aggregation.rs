//! API aggregation: groups and versions that another server answers for, behind an APIService.
//!
//! One task follows APIServices, asks each server for its resources and writes the `Available` condition; it also keeps the
//! APIServices of what is served here. [`serve`] passes requests on as the user who made them, in the headers that extension
//! servers trust from our front-proxy certificate. Invariant: what is served here is never passed on.

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use kube_types::{meta, status, time};
use serde_json::{Value, json};
use store::{Compare, EventKind, Op, Store, Txn, TxnOutcome};
use tokio::task::AbortHandle;

use super::outbound::{self, Credential, Destination};
use crate::body::Body;
use crate::call::Call;
use crate::error::ApiResult;
use crate::identity::Identity;
use crate::keys;
use crate::object::{self, Encoded, text};
use crate::respond::Reply;
use crate::server::ApiServer;

const GROUP: &str = "apiregistration.k8s.io";
const PLURAL: &str = "apiservices";
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// The name in our certificate by which extension servers know that the user headers are ours.
const PROXY_NAME: &str = "front-proxy-client";
const CHECK_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// A server that did not answer is asked again after so long, if nothing happened before.
const ASK_AGAIN: Duration = Duration::from_secs(15);
const MAX_DISCOVERY_BYTES: usize = 4 << 20;

/// Another server's group and version.
pub(crate) struct Backend {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) available: bool,
    /// The `resources` of its APIResourceList.
    pub(crate) resources: Vec<Value>,
    destination: Option<Destination>,
    service: (String, String),
}

/// All of them at one moment.
pub(crate) struct Aggregated {
    backends: RwLock<Arc<Vec<Backend>>>,
    credential: Option<Credential>,
}

impl Aggregated {
    pub(crate) fn new(pki: &crate::pki::Pki) -> Self {
        let made = pki.client_certificate(PROXY_NAME, &[]);
        let made = made.inspect_err(|error| tracing::error!(%error, "no certificate for API aggregation")).ok();
        let credential = made.map(|made| Credential { certificate: made.certificate_pem, key: made.key_pem });
        Self { backends: RwLock::default(), credential }
    }

    pub(crate) fn backends(&self) -> Arc<Vec<Backend>> {
        Arc::clone(&self.backends.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Answers what another server answers for.
pub(crate) async fn serve(call: &Call) -> ApiResult<Option<Reply>> {
    let backends = call.server.aggregated.backends();
    if backends.is_empty() {
        return Ok(None);
    }
    let parts: Vec<&str> = call.info.path.trim_start_matches('/').split('/').collect();
    let (["apis", group, version, ..] | ["openapi", "v3", "apis", group, version]) = parts.as_slice() else {
        return Ok(None);
    };
    let Some(backend) = backends.iter().find(|own| own.group == *group && own.version == *version) else {
        return Ok(None);
    };
    if !call.server.served.in_version(group, version).is_empty() {
        return Ok(None);
    }
    let Some(destination) = backend.destination.as_ref().filter(|_| backend.available) else {
        return Err(status::service_unavailable("service unavailable").into());
    };
    let query = call.raw_query.as_deref().map_or_else(String::new, |query| format!("?{query}"));
    let uri = format!("{}{query}", call.info.path);
    let mut request =
        Request::builder().method(call.method.clone()).uri(uri).body(call.body.clone()).map_err(status::internal)?;
    *request.headers_mut() = forwarded(&call.headers, &call.user);
    let credential = call.server.aggregated.credential.as_ref();
    let answer = destination.forward(&call.server.store, request, credential, ANSWER_WITHIN).await;
    let (answer, guard) =
        answer.map_err(|error| status::service_unavailable(format!("error trying to reach service: {error}")))?;
    let (mut parts, body) = answer.into_parts();
    for header in [TRANSFER_ENCODING, CONNECTION, CONTENT_LENGTH] {
        parts.headers.remove(header);
    }
    let chunks = body.into_data_stream().take_while(|chunk| std::future::ready(chunk.is_ok()));
    let chunks = chunks.filter_map(|chunk| std::future::ready(chunk.ok())).map(move |chunk| {
        // The connection lives as long as its answer is read.
        let _alive = &guard;
        chunk
    });
    Ok(Some(http::Response::from_parts(parts, Body::stream(chunks))))
}

/// The client's headers without its credentials, and who it is.
fn forwarded(headers: &HeaderMap, user: &Identity) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, value) in headers {
        let text = name.as_str();
        let own = text.starts_with("x-remote-") || text.starts_with("impersonate-");
        if !own && ![AUTHORIZATION, HOST, CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH, UPGRADE].contains(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            kept.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    user.groups.iter().for_each(|group| add("x-remote-group", group));
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid);
    }
    for (key, values) in &user.extra {
        let key: String = key
            .bytes()
            .map(|b| {
                if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                    char::from(b).to_string()
                } else {
                    format!("%{b:02x}")
                }
            })
            .collect();
        values.iter().for_each(|value| add(&format!("x-remote-extra-{key}"), value));
    }
    kept
}

/// Writes what has to be there from the start: the registrations of what is served, and what extension servers read.
pub(crate) async fn prepare(server: &Arc<ApiServer>) {
    publish_authority(server).await;
    register_own(server).await;
}

/// Follows APIServices until the server is dropped.
pub(crate) fn follow(server: &Arc<ApiServer>) -> AbortHandle {
    let (weak, store) = (Arc::downgrade(server), server.store.clone());
    tokio::spawn(run(weak, store, server.definitions.subscribe())).abort_handle()
}

async fn run(server: Weak<ApiServer>, store: Store, mut definitions: tokio::sync::watch::Receiver<u64>) {
    loop {
        definitions.mark_unchanged();
        let prefix = format!("{}{GROUP}/{PLURAL}/", keys::ROOT);
        let watches = [
            prefix,
            format!("{}core/services/", keys::ROOT),
            format!("{}discovery.k8s.io/endpointslices/", keys::ROOT),
        ];
        let watches = watches.map(|prefix| store.watch(Bytes::from(prefix), Some(store.revision())));
        let [Ok(mut services), Ok(mut plain), Ok(mut slices)] = watches else { continue };
        let all_well = match server.upgrade() {
            Some(server) => pass(&server).await,
            None => return,
        };
        let backends = server.upgrade().map(|server| server.aggregated.backends()).unwrap_or_default();
        let again =
            async { if all_well { std::future::pending::<()>().await } else { tokio::time::sleep(ASK_AGAIN).await } };
        let concerned = async {
            loop {
                let event = tokio::select! {
                    event = plain.next() => event,
                    event = slices.next() => event,
                };
                let Ok(event) = event else { return };
                let (EventKind::Put { value, .. } | EventKind::Delete { prev: value }) = &event.kind;
                let object = object::decode(&value.value);
                let name = meta::label(&object, "kubernetes.io/service-name").unwrap_or_else(|| meta::name(&object));
                if backends.iter().any(|own| own.service == (meta::namespace(&object).to_owned(), name.to_owned())) {
                    return;
                }
            }
        };
        tokio::select! {
            _ = services.next() => {}
            changed = definitions.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = concerned => {}
            () = again => {}
        }
    }
}

/// Brings everything up to date once; true if nothing is unavailable.
async fn pass(server: &Arc<ApiServer>) -> bool {
    register_own(server).await;
    let prefix = format!("{}{GROUP}/{PLURAL}/", keys::ROOT);
    let items = server.store.range(prefix.as_bytes(), None, 0, None).map(|range| range.items).unwrap_or_default();
    let (mut backends, mut changes) = (Vec::new(), Vec::new());
    for item in items {
        let service = object::decode(&item.value);
        let remote = service["spec"]["service"].is_object();
        let (backend, verdict) = if remote {
            let (backend, verdict) = check(server, &service).await;
            (Some(backend), verdict)
        } else {
            (None, (true, "Local", "Local APIServices are always available".to_owned()))
        };
        backends.extend(backend);
        let mut wanted = service.clone();
        super::definitions::set_condition(&mut wanted, "Available", verdict.0, verdict.1, &verdict.2);
        if wanted != service {
            changes.push((service, wanted));
        }
    }
    let all_well = backends.iter().all(|backend: &Backend| backend.available);
    *server.aggregated.backends.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(backends);
    server.documents.lock().unwrap_or_else(PoisonError::into_inner).clear();
    // Told only when it is true: requests are answered accordingly by now.
    for (old, new) in changes {
        write(&server.store, &old, &new).await;
    }
    all_well
}

type Verdict = (bool, &'static str, String);

/// Asks a server what it serves.
async fn check(server: &Arc<ApiServer>, service: &Value) -> (Backend, Verdict) {
    let spec = &service["spec"];
    let mut backend = Backend {
        group: text(spec, "/group").to_owned(),
        version: text(spec, "/version").to_owned(),
        available: false,
        resources: Vec::new(),
        destination: None,
        service: (text(spec, "/service/namespace").to_owned(), text(spec, "/service/name").to_owned()),
    };
    let path = format!("/apis/{}/{}", backend.group, backend.version);
    let (namespace, name) = &backend.service;
    if server.store.get(&keys::known("", "services", namespace, name)).is_none() {
        let verdict = (false, "ServiceNotFound", format!("service/{name} in {namespace:?} is not present"));
        return (backend, verdict);
    }
    let destination = outbound::authority(&spec["caBundle"])
        .and_then(|authority| Destination::of_service(&spec["service"], path.clone(), authority))
        .map(|destination| destination.trusting_anybody(spec["insecureSkipTLSVerify"] == true));
    let verdict = match destination {
        Err(error) => (false, "FailedDiscoveryCheck", error.to_string()),
        Ok(destination) => match discover(server, &destination, &path).await {
            Ok(resources) => {
                backend.resources = resources;
                backend.available = true;
                backend.destination = Some(destination);
                (true, "Passed", "all checks passed".to_owned())
            }
            Err(words) if words.starts_with("no endpoints available") => {
                (false, "MissingEndpoints", format!("endpoints for service/{name} in {namespace:?} have no addresses"))
            }
            Err(words) => {
                let words = format!("failing or missing response from {}: {words}", destination.url());
                (false, "FailedDiscoveryCheck", words)
            }
        },
    };
    (backend, verdict)
}

async fn discover(server: &Arc<ApiServer>, destination: &Destination, path: &str) -> Result<Vec<Value>, String> {
    let mut request = Request::get(path).body(Bytes::new()).map_err(|error| error.to_string())?;
    *request.headers_mut() = forwarded(&HeaderMap::new(), &Identity::in_process("system:kube-aggregator"));
    request.headers_mut().insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
    let credential = server.aggregated.credential.as_ref();
    let answered = destination.forward(&server.store, request, credential, CHECK_WITHIN).await;
    let (answer, _guard) = answered.map_err(|error| error.to_string())?;
    let code = answer.status();
    if !code.is_success() {
        return Err(format!("bad status from {}: {}", destination.url(), code.as_u16()));
    }
    let body = Limited::new(answer.into_body(), MAX_DISCOVERY_BYTES).collect();
    let body = tokio::time::timeout(CHECK_WITHIN, body).await.map_err(|_| "the answer does not end".to_owned())?;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    let list: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(list["resources"].as_array().cloned().unwrap_or_default())
}

async fn write(store: &Store, old: &Value, new: &Value) {
    let key = keys::known(GROUP, PLURAL, "", meta::name(old));
    let Ok(mod_revision) = meta::resource_version(old).parse() else { return };
    let encoded = Encoded::new(new);
    let ops = vec![Op::PutWith { key: key.clone(), encode: Box::new(move |revision| encoded.at(revision)) }];
    // Who changed it meanwhile makes an event that brings us here again.
    match store.txn(Txn { compare: vec![Compare { key, mod_revision }], ops }).await {
        Ok(TxnOutcome::Committed { .. } | TxnOutcome::Conflict { .. }) => {}
        Err(error) => tracing::error!(service = meta::name(old), %error, "cannot write an APIService's status"),
    }
}

/// Keeps an APIService for every group and version that is served here, and none for what no longer is.
async fn register_own(server: &Arc<ApiServer>) {
    let mut wanted = Vec::new();
    for (group, versions) in server.served.groups() {
        for (at, version) in versions.iter().enumerate() {
            wanted.push((format!("{version}.{group}"), group.clone(), version.clone(), 15 - at.min(14)));
        }
    }
    let custom = server.served.custom();
    let (mut compare, mut ops) = (Vec::new(), Vec::new());
    for (name, group, version, priority) in &wanted {
        let key = keys::known(GROUP, PLURAL, "", name);
        if server.store.get(&key).is_some() {
            continue;
        }
        let is_custom = custom.stamps.contains_key(&(group.clone(), version.clone()));
        let encoded = Encoded::new(&own_service(name, group, version, *priority, is_custom));
        compare.push(Compare { key: key.clone(), mod_revision: 0 });
        ops.push(Op::PutWith { key, encode: Box::new(move |revision| encoded.at(revision)) });
    }
    if !ops.is_empty()
        && let Err(error) = server.store.txn(Txn { compare, ops }).await
    {
        tracing::warn!(%error, "cannot register what is served");
    }
    let prefix = format!("{}{GROUP}/{PLURAL}/", keys::ROOT);
    for item in server.store.range(prefix.as_bytes(), None, 0, None).map(|range| range.items).unwrap_or_default() {
        let service = object::decode(&item.value);
        let ours = meta::label(&service, AUTOMANAGED) == Some("true");
        if ours && !wanted.iter().any(|(name, ..)| name == meta::name(&service)) {
            let compare = vec![Compare { key: item.key.clone(), mod_revision: item.mod_revision }];
            if let Err(error) = server.store.txn(Txn { compare, ops: vec![Op::Delete { key: item.key }] }).await {
                tracing::warn!(%error, "cannot remove the registration of an API");
            }
        }
    }
}

fn own_service(name: &str, group: &str, version: &str, priority: usize, is_custom: bool) -> Value {
    let (lasting, minimum) = if is_custom { ("true", 1000) } else { ("onstart", 17_000) };
    let now = time::rfc3339(Timestamp::now());
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "APIService",
        "metadata": {"name": name, "labels": {AUTOMANAGED: lasting}, "uid": uuid::Uuid::new_v4().to_string(), "creationTimestamp": now},
        "spec": {"group": group, "version": version, "groupPriorityMinimum": minimum, "versionPriority": if is_custom { 100 } else { priority }},
        "status": {"conditions": [{"type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available", "lastTransitionTime": now}]},
    })
}

/// What an extension server reads to know whom it may believe.
async fn publish_authority(server: &Arc<ApiServer>) {
    let names = |list: &[&str]| json!(list).to_string();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "extension-apiserver-authentication"}, "data": {
        "client-ca-file": server.pki.ca_pem(),
        "requestheader-client-ca-file": server.pki.ca_pem(),
        "requestheader-allowed-names": names(&[PROXY_NAME]),
        "requestheader-username-headers": names(&["X-Remote-User"]),
        "requestheader-group-headers": names(&["X-Remote-Group"]),
        "requestheader-uid-headers": names(&["X-Remote-Uid"]),
        "requestheader-extra-headers-prefix": names(&["X-Remote-Extra-"]),
    }});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "extension-apiserver-authentication-reader", "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["extension-apiserver-authentication"], "verbs": ["get", "list", "watch"]}]});
    for (path, object) in [
        ("/api/v1/namespaces/kube-system/configmaps", map),
        ("/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles", role),
    ] {
        let request = Request::builder().method(Method::POST).uri(path).header("content-type", "application/json");
        let Ok(request) = request.body(Bytes::from(object.to_string())) else { continue };
        let reply = Box::pin(server.handle(Identity::in_process("system:apiserver"), request)).await;
        if !reply.status().is_success() && reply.status() != http::StatusCode::CONFLICT {
            tracing::warn!(path, status = reply.status().as_u16(), "cannot publish what extension servers need");
        }
    }
}
