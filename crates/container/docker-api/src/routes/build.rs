//! `POST /build` (the classic builder's protocol) and `POST /build/prune`.

use std::{
    collections::BTreeMap,
    io::{Read, Seek},
    path::Path,
};

use axum::{Json, Router, body::Body, extract::State, response::Response, routing::post};
use build::{BuildEvent, BuildRequest, StepLimits};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Query, images::error_line};
use crate::{
    Backend,
    error::{ApiError, Result},
    stream,
};

/// Events between the builder and a slow client.
const BUFFERED: usize = 256;

pub(crate) fn routes() -> Router<Backend> {
    Router::new().route("/build", post(run)).route("/build/prune", post(prune))
}

async fn prune(State(backend): State<Backend>) -> Result<Json<Value>> {
    let cleared =
        tokio::task::spawn_blocking(move || backend.builder.cache().clear()).await.map_err(ApiError::internal)?;
    cleared?;
    Ok(Json(json!({"CachesDeleted": null, "SpaceReclaimed": 0})))
}

async fn run(State(backend): State<Backend>, query: Query, body: Body) -> Result<Response> {
    if query.get("version") == Some("2") {
        return Err(ApiError::bad_request("BuildKit is not served; build with DOCKER_BUILDKIT=0"));
    }
    if query.get("remote").is_some() {
        return Err(ApiError::bad_request("building from a URL is not served; send the context"));
    }
    let mut request = request(&query)?;
    let scratch = backend.engine.root().join("builds");
    let context = tokio::task::spawn_blocking(move || receive(&scratch, stream::blocking_reader(body)))
        .await
        .map_err(ApiError::internal)??;
    context.path().clone_into(&mut request.context);
    let (lines, receiver) = stream::line_channel();
    let quiet = query.flag("q");
    tokio::spawn(async move {
        let (events, mut happened) = mpsc::channel(BUFFERED);
        let building = async {
            let result = backend.builder.build(&request, &events).await;
            drop(events);
            result
        };
        let drawing = async {
            while let Some(event) = happened.recv().await {
                for line in draw(&event, quiet) {
                    if lines.send(line).await.is_err() {
                        return;
                    }
                }
            }
        };
        // A client that goes away closes the lines: the build is dropped with this task's future.
        let outcome = tokio::select! {
            (result, ()) = async { tokio::join!(building, drawing) } => result,
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
        drop(context);
    });
    Ok(stream::json_lines(receiver))
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

/// Unpacks the context into a directory of its own, which goes when the build ends.
fn receive(scratch: &Path, mut body: impl Read) -> Result<tempfile::TempDir> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(scratch).map_err(ApiError::internal)?;
    let dir = tempfile::tempdir_in(scratch).map_err(ApiError::internal)?;
    let mut archive = tempfile::tempfile_in(scratch).map_err(ApiError::internal)?;
    std::io::copy(&mut body, &mut archive)
        .map_err(|e| ApiError::bad_request(format!("the build context ended early: {e}")))?;
    complete(&mut archive).map_err(ApiError::internal)?;
    snapshots::unpack_archive(&archive, Path::new("build context"), dir.path())
        .map_err(|e| ApiError::bad_request(format!("cannot unpack the build context: {e}")))?;
    Ok(dir)
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

fn json_map<T: serde::de::DeserializeOwned>(query: &Query, key: &str) -> Result<BTreeMap<String, T>> {
    let Some(text) = query.get(key) else { return Ok(BTreeMap::new()) };
    serde_json::from_str(text).map_err(|e| ApiError::bad_request(format!("error reading {key}: {e}")))
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
    Ok(BuildRequest {
        dockerfile_name: query.get("dockerfile").unwrap_or("Dockerfile").to_owned(),
        tags: query.all("t"),
        target: query.text("target").to_owned(),
        build_args: json_map(query, "buildargs")?,
        labels: json_map(query, "labels")?,
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        network: query.get("networkmode").unwrap_or("default").to_owned(),
        extra_hosts: query.all("extrahosts").iter().flat_map(|list| list.split(',')).map(str::to_owned).collect(),
        limits,
        platform: query.text("platform").to_owned(),
        ..BuildRequest::default()
    })
}

fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

/// One event as the lines that the classic builder prints for it.
fn draw(event: &BuildEvent, quiet: bool) -> Vec<String> {
    let text = |text: String| vec![json!({"stream": text}).to_string()];
    match event {
        BuildEvent::Built { id } => {
            let mut lines = vec![json!({"aux": {"ID": id_of(id)}}).to_string()];
            if !quiet {
                lines.extend(text(format!("Successfully built {}\n", short(id))));
            }
            lines
        }
        BuildEvent::Progress { json } if !quiet => vec![json.clone()],
        _ if quiet => Vec::new(),
        BuildEvent::Step { number, total, text: step } => text(format!("Step {number}/{total} : {step}\n")),
        BuildEvent::UsingCache => text(" ---> Using cache\n".to_owned()),
        BuildEvent::RunningIn { container } => text(format!(" ---> Running in {}\n", short(container))),
        BuildEvent::Removed { container } => {
            text(format!(" ---> Removed intermediate container {}\n", short(container)))
        }
        BuildEvent::Output { bytes, .. } => text(String::from_utf8_lossy(bytes).into_owned()),
        BuildEvent::Result { id } => text(format!(" ---> {}\n", short(id))),
        BuildEvent::Warning { text: warning } => text(format!("{warning}\n")),
        BuildEvent::Progress { json } => vec![json.clone()],
        BuildEvent::Tagged { name } => text(format!("Successfully tagged {name}\n")),
    }
}

fn id_of(id: &str) -> String {
    if id.starts_with("sha256:") { id.to_owned() } else { format!("sha256:{id}") }
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

    #[test]
    fn events_are_drawn_as_the_classic_builder_draws_them() {
        let id = "a".repeat(64);
        assert_eq!(
            draw(&BuildEvent::Step { number: 1, total: 2, text: "FROM x".into() }, false),
            [r#"{"stream":"Step 1/2 : FROM x\n"}"#]
        );
        assert_eq!(draw(&BuildEvent::Built { id: id.clone() }, true), [format!(r#"{{"aux":{{"ID":"sha256:{id}"}}}}"#)]);
        assert_eq!(draw(&BuildEvent::Built { id }, false)[1], r#"{"stream":"Successfully built aaaaaaaaaaaa\n"}"#);
        assert!(draw(&BuildEvent::UsingCache, true).is_empty());
    }
}
