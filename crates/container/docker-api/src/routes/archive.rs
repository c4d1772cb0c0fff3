//! `/containers/{id}/archive`: files in and out.

use axum::{
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use base64::Engine as _;
use engine::PathStat;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;
use tokio::sync::oneshot;

use super::Query;
use crate::{
    Backend,
    error::{ApiError, Result},
    stream,
};

const STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

fn path(query: &Query) -> Result<String> {
    query.get("path").map(str::to_owned).ok_or_else(|| ApiError::bad_request("bad parameter: missing path"))
}

fn encode(stat: &PathStat) -> Result<HeaderValue> {
    let shown = json!({
        "name": stat.name, "size": stat.size, "mode": stat.mode, "mtime": stat.mtime.to_string(), "linkTarget": stat.link_target,
    });
    let text = base64::engine::general_purpose::STANDARD.encode(shown.to_string());
    text.parse().map_err(ApiError::internal)
}

pub(super) async fn head(State(backend): State<Backend>, Path(id): Path<String>, query: Query) -> Result<Response> {
    let path = path(&query)?;
    let stat = tokio::task::spawn_blocking(move || backend.engine.stat_path(&id, &path))
        .await
        .map_err(ApiError::internal)??;
    Ok((StatusCode::OK, [(STAT, encode(&stat)?)]).into_response())
}

pub(super) async fn get(State(backend): State<Backend>, Path(id): Path<String>, query: Query) -> Result<Response> {
    let path = path(&query)?;
    let (found, stat) = oneshot::channel();
    let (failed, failure) = oneshot::channel();
    let engine = backend.engine.clone();
    let mut response = stream::blocking_body("application/x-tar", move |out| {
        match engine.read_archive(&id, &path, |stat| drop(found.send(stat)), out) {
            Ok(()) => Ok(()),
            Err(error) => {
                let error = ApiError::from(error);
                let _ = failed.send(error.clone());
                Err(error)
            }
        }
    });
    match stat.await {
        Ok(stat) => {
            response.headers_mut().insert(STAT, encode(&stat)?);
            Ok(response)
        }
        Err(_) => Err(failure.await.unwrap_or_else(|_| ApiError::internal("the copy ended before it began"))),
    }
}

pub(super) async fn put(
    State(backend): State<Backend>,
    Path(id): Path<String>,
    query: Query,
    body: Body,
) -> Result<StatusCode> {
    let path = path(&query)?;
    let keep = query.flag("noOverwriteDirNonDir");
    let as_user = query.flag("copyUIDGID");
    let mut reader = stream::blocking_reader(body);
    let write = move || backend.engine.write_archive(&id, &path, keep, as_user, &mut reader);
    tokio::task::spawn_blocking(write).await.map_err(ApiError::internal)??;
    Ok(StatusCode::OK)
}
