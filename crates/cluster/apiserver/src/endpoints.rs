//! Paths that are no resources: version, health, discovery, OpenAPI, the issuer's keys.

use std::sync::PoisonError;

use bytes::Bytes;
use http::StatusCode;
use kube_types::{Resource, openapi, status};
use serde_json::{Value, json};

use crate::call::Call;
use crate::error::ApiResult;
use crate::respond::{self, Reply};
use crate::token::ISSUER;
use crate::{discovery, health, metrics, negotiate};

pub(crate) async fn serve(call: &Call) -> ApiResult<Reply> {
    if !matches!(call.info.verb, "get" | "head") {
        return Err(status::method_not_allowed().into());
    }
    let path = call.info.path.trim_end_matches('/');
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        [""] => Ok(root(call)),
        ["gantry", "store", "snapshot"] => snapshot(call).await,
        ["version"] => Ok(respond::json(StatusCode::OK, &version())),
        ["healthz" | "livez" | "readyz", check @ ..] => health::serve(call, parts[0], check),
        ["metrics"] => {
            let text = metrics::render(&call.server);
            Ok(respond::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
        }
        ["api"] | ["apis"] | ["api" | "apis", ..] => discovery::serve(call, &parts),
        ["openapi", "v2"] => openapi_v2(call),
        ["openapi", "v3"] => cached_document(call, "v3", || Some(openapi_index(call))),
        ["openapi", "v3", "api", version] => openapi_v3(call, "", version),
        ["openapi", "v3", "apis", group, version] => openapi_v3(call, group, version),
        ["openid", "v1", "jwks"] => Ok(respond::json(StatusCode::OK, &call.server.tokens.key_set())),
        [".well-known", "openid-configuration"] => Ok(respond::json(StatusCode::OK, &issuer())),
        _ => Err(status::path_not_found().into()),
    }
}

fn root(call: &Call) -> Reply {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in call.server.served.groups() {
        if group.is_empty() {
            continue;
        }
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"]
            .map(str::to_owned),
    );
    respond::json(StatusCode::OK, &json!({"paths": paths}))
}

fn version() -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "clean", "buildDate": "2026-04-22T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": format!("linux/{architecture}"),
    })
}

/// The whole state as one file: for `gantry store snapshot`, by whoever may get this path.
async fn snapshot(call: &Call) -> ApiResult<Reply> {
    let name = format!("gantry-snapshot-{}", uuid::Uuid::new_v4());
    let file = std::env::temp_dir().join(name);
    let revision = call.server.store.snapshot(&file).await?;
    let opened = tokio::fs::File::open(&file).await;
    // Its name goes at once, its content with the last reader.
    std::fs::remove_file(&file).map_err(status::internal)?;
    let opened = opened.map_err(status::internal)?;
    let chunks = futures_util::stream::unfold(opened, |mut file| async move {
        let mut chunk = vec![0; 256 * 1024];
        let length = tokio::io::AsyncReadExt::read(&mut file, &mut chunk).await.ok().filter(|&length| length > 0)?;
        chunk.truncate(length);
        Some((Bytes::from(chunk), file))
    });
    let mut reply = respond::stream("application/octet-stream", chunks);
    reply.headers_mut().insert("x-gantry-revision", http::HeaderValue::from(revision));
    Ok(reply)
}

fn issuer() -> Value {
    json!({
        "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/openid/v1/jwks"), "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn openapi_v2(call: &Call) -> ApiResult<Reply> {
    if negotiate::demands_protobuf(&call.headers) {
        return Err(status::not_acceptable(&["application/json"]).into());
    }
    cached_document(call, "v2", || {
        let mut document = openapi::v2();
        let custom = call.server.served.custom();
        let resources: Vec<&Resource> = custom.resources().iter().map(AsRef::as_ref).collect();
        openapi::join_v2(&mut document, &resources);
        Some(document)
    })
}

fn openapi_index(call: &Call) -> Value {
    let mut index = openapi::v3_index();
    for backend in call.server.aggregated.backends().iter().filter(|own| own.available) {
        let (path, entry) = openapi::v3_entry(&backend.group, &backend.version, 0);
        index["paths"][path] = entry;
    }
    for ((group, version), stamp) in &call.server.served.custom().stamps {
        let (path, entry) = openapi::v3_entry(group, version, *stamp);
        if index["paths"].get(&path).is_none() {
            index["paths"][path] = entry;
        }
    }
    index
}

fn openapi_v3(call: &Call, group: &str, version: &str) -> ApiResult<Reply> {
    if negotiate::demands_protobuf(&call.headers) {
        return Err(status::not_acceptable(&["application/json"]).into());
    }
    cached_document(call, &format!("{group}/{version}"), || {
        openapi::v3_document(group, version).or_else(|| {
            let resources = call.server.served.in_version(group, version);
            let resources: Vec<&Resource> = resources.iter().map(AsRef::as_ref).collect();
            (!resources.is_empty()).then(|| openapi::v3_custom(&resources))
        })
    })
}

/// The documents are large and change with the custom resources only (which empties this cache), so each is made once, when
/// it is first asked for.
fn cached_document(call: &Call, name: &str, make: impl FnOnce() -> Option<Value>) -> ApiResult<Reply> {
    let mut documents = call.server.documents.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = match documents.get(name) {
        Some(bytes) => bytes.clone(),
        None => {
            let document = make().ok_or_else(status::path_not_found)?;
            let bytes = Bytes::from(serde_json::to_vec(&document).map_err(status::internal)?);
            documents.insert(name.to_owned(), bytes.clone());
            bytes
        }
    };
    drop(documents);
    Ok(respond::json_large(&call.headers, bytes))
}
