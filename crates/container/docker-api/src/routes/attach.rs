//! `POST /containers/{id}/attach` and its WebSocket form.

use axum::{
    body::Body,
    extract::{Path, State},
    response::Response,
};
use engine::{AttachOptions, Frame, LogOptions, Phase, Streams};
use futures_util::StreamExt;
use http::Request;

use super::Query;
use crate::{
    Backend,
    error::{ApiError, Result},
    hijack::{self, Look, OnDetach},
    websocket,
};

pub(super) async fn attach(
    State(backend): State<Backend>,
    Path(id): Path<String>,
    query: Query,
    request: Request<Body>,
) -> Result<Response> {
    let (streams, look, on_detach) = open(&backend, &id, &query).await?;
    Ok(hijack::answer(request, streams, look, on_detach))
}

pub(super) async fn attach_websocket(
    State(backend): State<Backend>,
    Path(id): Path<String>,
    query: Query,
    request: Request<Body>,
) -> Result<Response> {
    let handshake = websocket::accept(request.headers())?;
    let (streams, look, on_detach) = open(&backend, &id, &query).await?;
    Ok(websocket::answer(request, handshake, streams, look, on_detach))
}

async fn open(backend: &Backend, id: &str, query: &Query) -> Result<(Streams, Look, OnDetach)> {
    let container = backend.engine.container(id)?;
    let streaming = query.flag("stream");
    let look = Look {
        tty: container.record.config.tty,
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        detach_keys: hijack::parse_detach_keys(query.text("detachKeys"))?,
    };
    if matches!(&container.phase, Phase::Running(running) if running.paused) {
        return Err(ApiError::new(
            http::StatusCode::CONFLICT,
            format!("container {id} is paused, unpause the container before attach"),
        ));
    }
    let mut streams = if streaming {
        let options = AttachOptions { stdin: query.flag("stdin"), stdout: look.stdout, stderr: look.stderr };
        backend.engine.attach_container(id, options).await?
    } else {
        Streams { stdin: None, output: futures_util::stream::empty().boxed() }
    };
    if query.flag("logs") {
        let options = LogOptions { stdout: look.stdout, stderr: look.stderr, ..LogOptions::default() };
        let past = backend.engine.container_logs(id, options).await?;
        let past = past.map(|entry| Frame { channel: entry.channel, data: entry.data.into() });
        streams.output = past.chain(streams.output).boxed();
    }
    let (engine, id) = (backend.engine.clone(), container.record.id);
    Ok((streams, look, Box::new(move || engine.container_note(&id, "detach", &[]))))
}
