//! BuildKit's doors: `/session` and `/grpc`, which become h2c connections, and `POST /build?version=2`.

use std::collections::HashMap;

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use base64::Engine as _;
use buildkit::{Exporter, SolveSpec};
use http::{HeaderValue, Request, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    Query,
    build::{json_list, json_map},
    images::error_line,
};
use crate::{
    Backend,
    error::{ApiError, Result},
    stream,
};

/// Messages between the builder and a slow client.
const BUFFERED: usize = 256;

pub(super) async fn session(State(backend): State<Backend>, mut request: Request<Body>) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    let headers = request.headers().clone();
    switch(&request, upgrade, move |connection| async move {
        backend.buildkit.serve_session(connection, &headers).await;
    })
}

pub(super) async fn grpc(State(backend): State<Backend>, mut request: Request<Body>) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    switch(&request, upgrade, move |connection| async move { backend.buildkit.serve_grpc(connection).await })
}

/// Answers that the connection is h2c from now on, and hands it over.
fn switch<F: Future<Output = ()> + Send + 'static>(
    request: &Request<Body>,
    upgrade: OnUpgrade,
    serve: impl FnOnce(hyper::upgrade::Upgraded) -> F + Send + 'static,
) -> Response {
    let wanted = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if !wanted.is_some_and(|value| value.eq_ignore_ascii_case("h2c")) {
        return ApiError::bad_request("this connection must be upgraded to h2c").into_response();
    }
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => serve(connection).await,
            Err(error) => tracing::debug!(%error, "upgrade failed"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("h2c"));
    response
}

pub(super) async fn cancel(State(backend): State<Backend>, query: Query) -> Result<StatusCode> {
    let id = query.get("id").ok_or_else(|| ApiError::bad_request("build ID not provided"))?;
    backend.buildkit.cancel(id);
    Ok(StatusCode::OK)
}

/// The integrated client's build: contexts and secrets come over its session, progress goes back as lines of JSON.
pub(super) fn run(backend: Backend, query: &Query) -> Result<Response> {
    let spec = spec(query)?;
    let (lines, receiver) = stream::line_channel();
    tokio::spawn(async move {
        let (status, mut statuses) = mpsc::channel::<Vec<u8>>(BUFFERED);
        let telling = async {
            while let Some(bytes) = statuses.recv().await {
                let aux = base64::engine::general_purpose::STANDARD.encode(bytes);
                let line = json!({"id": "moby.buildkit.trace", "aux": aux}).to_string();
                if lines.send(line).await.is_err() {
                    return;
                }
            }
        };
        let (solved, ()) = tokio::select! {
            both = async { tokio::join!(backend.buildkit.solve(spec, status), telling) } => both,
            () = lines.closed() => return,
        };
        let line = match solved {
            Ok(answers) => answers
                .get("containerimage.digest")
                .map(|id| json!({"id": "moby.image.id", "aux": {"ID": id}}).to_string()),
            Err(message) => Some(error_line(&message)),
        };
        if let Some(line) = line {
            let _ = lines.send(line).await;
        }
    });
    Ok(stream::json_lines(receiver))
}

#[derive(serde::Deserialize)]
struct Output {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Attrs", default)]
    attributes: HashMap<String, String>,
}

fn spec(query: &Query) -> Result<SolveSpec> {
    let mut attributes = HashMap::new();
    let mut set = |key: &str, value: &str| attributes.insert(key.to_owned(), value.to_owned());
    for (key, parameter) in
        [("filename", "dockerfile"), ("target", "target"), ("platform", "platform"), ("shm-size", "shmsize")]
    {
        if let Some(value) = query.get(parameter).filter(|value| *value != "0") {
            set(key, value);
        }
    }
    if let Some(remote) = query.get("remote").filter(|remote| *remote != "client-session") {
        set("context", remote);
    }
    if query.flag("nocache") {
        set("no-cache", "");
    }
    if query.flag("pull") {
        set("image-resolve-mode", "pull");
    }
    match query.get("networkmode") {
        None | Some("default" | "sandbox") => {}
        Some(mode) => drop(set("force-network-mode", mode)),
    }
    let hosts: Vec<String> = query.all("extrahosts").iter().map(|host| host.replacen(':', "=", 1)).collect();
    if !hosts.is_empty() {
        set("add-hosts", &hosts.join(","));
    }
    let given: std::collections::BTreeMap<String, Option<String>> = json_map(query, "buildargs")?;
    for (name, value) in given {
        set(&format!("build-arg:{name}"), &value.unwrap_or_default());
    }
    let labels: std::collections::BTreeMap<String, String> = json_map(query, "labels")?;
    for (name, value) in labels {
        set(&format!("label:{name}"), &value);
    }
    // Without a name for it, two builds of one client would meet in one job.
    let reference = query.get("buildid").map_or_else(hex_name, str::to_owned);
    let entitlements =
        if query.get("networkmode") == Some("host") { vec!["network.host".to_owned()] } else { Vec::new() };
    Ok(SolveSpec {
        reference,
        session: query.text("session").to_owned(),
        attributes,
        entitlements,
        cache_from: json_list(query, "cachefrom")?,
        exporters: exporters(query)?,
    })
}

fn hex_name() -> String {
    jiff::Timestamp::now().as_nanosecond().to_string()
}

/// `outputs=[{"Type":"local",…}]`; without it an image with the names of `t`.
fn exporters(query: &Query) -> Result<Vec<Exporter>> {
    let text = query.get("outputs").unwrap_or("[]");
    let outputs: Option<Vec<Output>> =
        serde_json::from_str(text).map_err(|e| ApiError::bad_request(format!("error reading outputs: {e}")))?;
    let names = query.all("t").join(",");
    let exporter = |output: Output| {
        let mut attributes = output.attributes;
        if output.kind == "moby" || output.kind == "image" {
            attributes.entry("name".to_owned()).or_insert_with(|| names.clone());
        }
        Exporter { kind: output.kind, attributes }
    };
    let mut exporters: Vec<Exporter> = outputs.unwrap_or_default().into_iter().map(exporter).collect();
    if exporters.is_empty() {
        let attributes = HashMap::from([("name".to_owned(), names)]);
        exporters.push(Exporter { kind: "moby".to_owned(), attributes });
    }
    Ok(exporters)
}
