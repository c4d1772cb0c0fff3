//! `/containers/{id}/exec` and `/exec/…`.

use axum::{
    Json, Router,
    body::Body as HttpBody,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use engine::ExecConfig;
use http::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Body, Query, containers::size_of};
use crate::{
    Backend,
    error::{ApiError, Result},
    hijack::{self, Look},
};

pub(crate) fn routes() -> Router<Backend> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(show))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct CreateRequest {
    user: Option<String>,
    privileged: Option<bool>,
    tty: Option<bool>,
    attach_stdin: Option<bool>,
    attach_stdout: Option<bool>,
    attach_stderr: Option<bool>,
    detach_keys: Option<String>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    cmd: Option<Vec<String>>,
    console_size: Option<[u16; 2]>,
}

async fn create(
    State(backend): State<Backend>,
    Path(id): Path<String>,
    Body(asked): Body<CreateRequest>,
) -> Result<Response> {
    let keys = asked.detach_keys.unwrap_or_default();
    hijack::parse_detach_keys(&keys)?;
    let config = ExecConfig {
        cmd: asked.cmd.unwrap_or_default(),
        env: asked.env.unwrap_or_default(),
        user: asked.user.unwrap_or_default(),
        working_dir: asked.working_dir.unwrap_or_default(),
        tty: asked.tty.unwrap_or(false),
        privileged: asked.privileged.unwrap_or(false),
        attach_stdin: asked.attach_stdin.unwrap_or(false),
        attach_stdout: asked.attach_stdout.unwrap_or(false),
        attach_stderr: asked.attach_stderr.unwrap_or(false),
        console_size: asked.console_size.map(|[rows, cols]| (cols, rows)),
        detach_keys: keys,
    };
    let exec = backend.engine.exec_create(&id, config).await?;
    Ok((StatusCode::CREATED, Json(json!({"Id": exec}))).into_response())
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct StartRequest {
    detach: bool,
}

async fn start(State(backend): State<Backend>, Path(id): Path<String>, request: Request<HttpBody>) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let bytes =
        axum::body::to_bytes(body, 64 << 10).await.map_err(|_| ApiError::bad_request("request body too large"))?;
    let asked: StartRequest = if bytes.is_empty() {
        StartRequest::default()
    } else {
        serde_json::from_slice(&bytes).map_err(|e| ApiError::bad_request(format!("invalid JSON: {e}")))?
    };
    let config = backend.engine.exec_inspect(&id)?.config;
    let streams = match backend.engine.exec_start(&id).await {
        Ok(streams) => streams,
        // As Docker: an attached client reads the reason in the stream and the code in the exec's state.
        Err(error @ engine::Error::ExecFailed { .. }) if !asked.detach => told(&error),
        Err(error) => return Err(error.into()),
    };
    if asked.detach {
        // Its output goes nowhere, but must be taken, so that it does not stop the process.
        tokio::spawn(async move {
            let engine::Streams { stdin, mut output } = streams;
            drop(stdin);
            while futures_util::StreamExt::next(&mut output).await.is_some() {}
        });
        return Ok(StatusCode::OK.into_response());
    }
    let look = Look {
        tty: config.tty,
        stdout: config.attach_stdout,
        stderr: config.attach_stderr,
        detach_keys: hijack::parse_detach_keys(&config.detach_keys)?,
    };
    parts.headers.remove(http::header::CONTENT_LENGTH);
    let (engine, container) = (backend.engine.clone(), backend.engine.exec_inspect(&id)?.container);
    let on_detach = Box::new(move || engine.container_note(&container, "exec_detach", &[("execID", id)]));
    Ok(hijack::answer(Request::from_parts(parts, HttpBody::empty()), streams, look, on_detach))
}

/// Output that is nothing but an error.
fn told(error: &engine::Error) -> engine::Streams {
    let frame = engine::Frame { channel: engine::Channel::Stdout, data: format!("{error}\r\n").into() };
    engine::Streams { stdin: None, output: Box::pin(futures_util::stream::once(std::future::ready(frame))) }
}

async fn resize(State(backend): State<Backend>, Path(id): Path<String>, query: Query) -> Result<StatusCode> {
    let (cols, rows) = size_of(&query)?;
    backend.engine.exec_resize(&id, cols, rows).await?;
    Ok(StatusCode::OK)
}

async fn show(State(backend): State<Backend>, Path(id): Path<String>) -> Result<Json<Value>> {
    let exec = backend.engine.exec_inspect(&id)?;
    let config = &exec.config;
    let (entrypoint, arguments) =
        config.cmd.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    Ok(Json(json!({
        "ID": exec.id,
        "Running": exec.running,
        "ExitCode": exec.exit_code,
        "ProcessConfig": {
            "tty": config.tty, "entrypoint": entrypoint, "arguments": arguments,
            "privileged": config.privileged, "user": config.user,
        },
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": exec.exit_code.is_some(),
        "ContainerID": exec.container,
        "DetachKeys": config.detach_keys,
        "Pid": exec.pid,
    })))
}
