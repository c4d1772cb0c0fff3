//! `POST /build` (the classic builder's protocol) and `POST /build/prune`.

use std::{
    collections::BTreeMap,
    io::{Read, Seek},
    path::{Path, PathBuf},
};

use axum::{Json, Router, body::Body, extract::State, response::Response, routing::post};
use base64::Engine as _;
use build::{BuildEvent, BuildRequest, Credentials, Events, Space, StepId, StepLimits, TempSpace};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    Query,
    build_text::{InOrder, draw},
    images::error_line,
};
use crate::{
    Backend,
    error::{ApiError, Result},
    stream,
};

/// Events between the builder and a slow client.
const BUFFERED: usize = 256;

pub(crate) fn routes() -> Router<Backend> {
    Router::new()
        .route("/build", post(run))
        .route("/build/prune", post(prune))
        .route("/build/cancel", post(super::build_session::cancel))
        .route("/session", post(super::build_session::session))
        .route("/grpc", post(super::build_session::grpc))
}

async fn prune(State(backend): State<Backend>) -> Result<Json<Value>> {
    let builder = backend.builder;
    let pruned = tokio::task::spawn_blocking(move || builder.prune()).await.map_err(ApiError::internal)?;
    let pruned = pruned.map_err(ApiError::internal)?;
    Ok(Json(json!({"CachesDeleted": pruned.keys, "SpaceReclaimed": pruned.bytes})))
}

async fn run(State(backend): State<Backend>, query: Query, headers: HeaderMap, body: Body) -> Result<Response> {
    if query.get("version") == Some("2") {
        return super::build_session::run(backend, &query);
    }
    let mut request = request(&query)?;
    let (space, dir) = match query.get("remote") {
        None => {
            let space = backend.builder.space().clone();
            let name = request.dockerfile_name.clone();
            let received = tokio::task::spawn_blocking(move || {
                let (space, dir) = receive(&space, stream::blocking_reader(body))?;
                let text = leave_out(&dir, &name)?;
                Ok::<_, ApiError>((space, dir, text))
            });
            let (space, dir, text) = received.await.map_err(ApiError::internal)??;
            request.dockerfile = text;
            (space, dir)
        }
        Some(address) => fetch(&backend, address, &mut request).await?,
    };
    let client = build::DirectoryClient { dir, credentials: credentials(&headers) };
    let (lines, receiver) = stream::line_channel();
    let quiet = query.flag("q");
    tokio::spawn(async move {
        let (events, happened) = Events::channel(BUFFERED);
        let building = async move {
            let result = backend.builder.build(&request, &client, &events).await;
            drop(events);
            result
        };
        // A client that goes away closes the lines: the build is dropped with this task's future.
        let outcome = tokio::select! {
            (result, ()) = async { tokio::join!(building, drawing(happened, &lines, quiet)) } => result,
            () = lines.closed() => return,
        };
        match outcome {
            Ok(id) if quiet => {
                let _ = lines.send(json!({"stream": format!("{id}\n")}).to_string()).await;
            }
            Ok(_) => {}
            Err(error) => {
                let _ = lines.send(failure(&error)).await;
            }
        }
        drop(space);
    });
    Ok(stream::json_lines(receiver))
}

async fn drawing(mut happened: mpsc::Receiver<(StepId, BuildEvent)>, lines: &mpsc::Sender<String>, quiet: bool) {
    let mut order = InOrder::default();
    loop {
        let (events, last) = match happened.recv().await {
            Some((id, event)) => (order.push(id, event), false),
            None => (order.rest(), true),
        };
        for line in events.iter().flat_map(|event| draw(event, quiet)) {
            if lines.send(line).await.is_err() {
                return;
            }
        }
        if last {
            return;
        }
    }
}

/// `remote=`: the daemon fetches the context by itself, and leaves out what the context's own `.dockerignore` says.
async fn fetch(backend: &Backend, address: &str, request: &mut BuildRequest) -> Result<(TempSpace, PathBuf)> {
    let fetched = build::remote::context(address, false, backend.builder.space()).await;
    let fetched = fetched.map_err(|error| ApiError::bad_request(error.to_string()))?;
    if fetched.only_dockerfile {
        "Dockerfile".clone_into(&mut request.dockerfile_name);
    }
    let (dir, keep) = (fetched.dir.clone(), request.dockerfile_name.clone());
    tokio::task::spawn_blocking(move || build::filter_context(&dir, &keep))
        .await
        .map_err(ApiError::internal)?
        .map_err(ApiError::internal)?;
    Ok((fetched.space, fetched.dir))
}

/// What the client shows and exits with.
fn failure(error: &build::BuildError) -> String {
    match error {
        build::BuildError::Exit { code, .. } => {
            let message = error.to_string();
            json!({"errorDetail": {"code": code, "message": message}, "error": message}).to_string()
        }
        other => error_line(&other.to_string()),
    }
}

/// What a client may still send of a context that was given up: until then it listens to no answer.
const DRAINED_BYTES: u64 = 1 << 30;

/// Unpacks the context into a directory of its own, which goes when the build ends. A client that is in the middle of sending
/// reads the reason of a failure only when it could send all: the rest is taken in and forgotten.
fn receive(space: &Space, mut body: impl Read) -> Result<(TempSpace, PathBuf)> {
    let received = unpack(space, &mut body);
    if received.is_err() {
        let _ = std::io::copy(&mut body.take(DRAINED_BYTES), &mut std::io::sink());
    }
    received
}

fn unpack(space: &Space, mut body: impl Read) -> Result<(TempSpace, PathBuf)> {
    let space = space.temporary().map_err(ApiError::internal)?;
    let dir = space.path().join("context");
    std::fs::create_dir(&dir).map_err(ApiError::internal)?;
    let mut archive = tempfile::tempfile_in(space.path()).map_err(ApiError::internal)?;
    std::io::copy(&mut body, &mut archive)
        .map_err(|e| ApiError::bad_request(format!("cannot receive the build context: {e}")))?;
    complete(&mut archive).map_err(ApiError::internal)?;
    snapshots::unpack_archive(&archive, Path::new("build context"), &dir)
        .map_err(|e| ApiError::bad_request(format!("cannot unpack the build context: {e}")))?;
    Ok((space, dir))
}

/// The stock client always sends the Dockerfile and `.dockerignore`; where the rules leave them out, they are read and go.
fn leave_out(dir: &Path, dockerfile: &str) -> Result<Option<String>> {
    const LIMIT: u64 = 4 << 20;
    let read = |name: &str| build::read_context_file(dir, name, LIMIT).map_err(ApiError::internal);
    let Some(rules) = read(".dockerignore")? else { return Ok(None) };
    let ignore = build::Ignore::parse(&rules);
    let text = read(dockerfile)?;
    for name in [dockerfile, ".dockerignore"] {
        if ignore.ignores(name.trim_start_matches("./")) {
            build::remove_context_file(dir, name).map_err(ApiError::internal)?;
        }
    }
    Ok(text)
}

/// The stock client leaves the padding of the last file and the end marker off when it puts a Dockerfile from
/// elsewhere (`-f`) into the context; a compressed archive is whole by itself.
fn complete(archive: &mut std::fs::File) -> std::io::Result<()> {
    const BLOCK: u64 = 512;
    let mut head = Vec::new();
    archive.rewind()?;
    archive.by_ref().take(BLOCK).read_to_end(&mut head)?;
    let plain = head.get(257..262) == Some(b"ustar");
    let size = archive.seek(std::io::SeekFrom::End(0))?;
    if plain {
        archive.set_len(size.next_multiple_of(BLOCK) + 2 * BLOCK)?;
    }
    archive.rewind()
}

/// `X-Registry-Config`: what each registry is to be shown, as base64 of JSON.
fn credentials(headers: &HeaderMap) -> BTreeMap<String, Credentials> {
    #[derive(serde::Deserialize)]
    struct Known {
        #[serde(default)]
        username: String,
        #[serde(default)]
        password: String,
    }
    let text = headers.get("x-registry-config").and_then(|text| text.to_str().ok()).unwrap_or_default();
    let bytes = base64::engine::general_purpose::URL_SAFE.decode(text).unwrap_or_default();
    let known: BTreeMap<String, Known> = serde_json::from_slice(&bytes).unwrap_or_default();
    let registry = |name: String| if name.contains("index.docker.io") { "docker.io".to_owned() } else { name };
    let entry = |(name, known): (String, Known)| {
        (registry(name), Credentials { username: known.username, secret: known.password })
    };
    known.into_iter().filter(|(_, known)| !known.password.is_empty()).map(entry).collect()
}

pub(super) fn json_map<T: serde::de::DeserializeOwned>(query: &Query, key: &str) -> Result<BTreeMap<String, T>> {
    let Some(text) = query.get(key) else { return Ok(BTreeMap::new()) };
    serde_json::from_str(text).map_err(|e| ApiError::bad_request(format!("error reading {key}: {e}")))
}

pub(super) fn json_list(query: &Query, key: &str) -> Result<Vec<String>> {
    let Some(text) = query.get(key) else { return Ok(Vec::new()) };
    let list: Option<Vec<String>> =
        serde_json::from_str(text).map_err(|e| ApiError::bad_request(format!("error reading {key}: {e}")))?;
    Ok(list.unwrap_or_default())
}

fn request(query: &Query) -> Result<BuildRequest> {
    let limits = StepLimits {
        memory_bytes: query.number("memory")?.unwrap_or(0),
        memory_swap_bytes: query.number("memswap")?.unwrap_or(0),
        cpu_shares: query.number("cpushares")?.unwrap_or(0),
        cpu_quota_us: query.number("cpuquota")?.unwrap_or(0),
        cpu_period_us: query.number("cpuperiod")?.unwrap_or(0),
        cpuset_cpus: query.text("cpusetcpus").to_owned(),
        shm_size_bytes: query.number("shmsize")?.unwrap_or(0),
    };
    let build_args: BTreeMap<String, Option<String>> = json_map(query, "buildargs")?;
    Ok(BuildRequest {
        dockerfile_name: query.get("dockerfile").unwrap_or("Dockerfile").to_owned(),
        tags: query.all("t"),
        target: query.text("target").to_owned(),
        labels: json_map(query, "labels")?,
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        network: query.get("networkmode").unwrap_or("default").to_owned(),
        extra_hosts: query.all("extrahosts").iter().flat_map(|list| list.split(',')).map(str::to_owned).collect(),
        limits,
        platform: query.text("platform").to_owned(),
        cache_from: json_list(query, "cachefrom")?,
        inline_cache: build_args.get("BUILDKIT_INLINE_CACHE").is_some_and(|value| value.as_deref() == Some("1")),
        build_args,
        ..BuildRequest::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_without_its_end_is_completed() {
        let mut archive = tempfile::tempfile().unwrap();
        let mut bytes = vec![0; 600];
        bytes[257..262].copy_from_slice(b"ustar");
        std::io::Write::write_all(&mut archive, &bytes).unwrap();
        complete(&mut archive).unwrap();
        assert_eq!(archive.metadata().unwrap().len(), 2048);
        let mut compressed = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut compressed, b"\x1f\x8b rest").unwrap();
        complete(&mut compressed).unwrap();
        assert_eq!(compressed.metadata().unwrap().len(), 7);
    }
}
