//! `POST /containers/{id}/attach`.

use axum::{
    body::Body,
    extract::{Path, State},
    response::Response,
};
use engine::{AttachOptions, Frame, LogOptions, Streams};
use futures_util::StreamExt;
use http::Request;

use super::Query;
use crate::{
    Backend,
    error::Result,
    hijack::{self, Look},
};

pub(super) async fn attach(
    State(backend): State<Backend>,
    Path(id): Path<String>,
    query: Query,
    request: Request<Body>,
) -> Result<Response> {
    let container = backend.engine.container(&id)?;
    let streaming = query.flag("stream");
    let look = Look {
        tty: container.record.config.tty,
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        detach_keys: hijack::parse_detach_keys(query.text("detachKeys"))?,
    };
    let mut streams = if streaming {
        let options = AttachOptions { stdin: query.flag("stdin"), stdout: look.stdout, stderr: look.stderr };
        backend.engine.attach_container(&id, options).await?
    } else {
        Streams { stdin: None, output: futures_util::stream::empty().boxed() }
    };
    if query.flag("logs") {
        let options = LogOptions { stdout: look.stdout, stderr: look.stderr, ..LogOptions::default() };
        let past = backend.engine.container_logs(&id, options).await?;
        let past = past.map(|entry| Frame { channel: entry.channel, data: entry.data.into() });
        streams.output = past.chain(streams.output).boxed();
    }
    Ok(hijack::answer(request, streams, look))
}
