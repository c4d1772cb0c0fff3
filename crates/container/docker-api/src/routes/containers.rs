//! `/containers/…`.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use engine::{
    CreateContainer, RemoveOptions, WaitCondition,
    config::{Config, EndpointRequest, HostConfig, Resources, RestartPolicy},
};
use futures_util::StreamExt;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Body, Query, archive, attach, container_list, logs};
use crate::{
    Backend,
    error::{ApiError, Result},
    filters::Filters,
    stream,
    wire::{inspect, stats, time},
};

pub(crate) fn routes() -> Router<Backend> {
    Router::new()
        .route("/containers/json", get(container_list::list))
        .route("/containers/create", post(create))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}", delete(remove))
        .route("/containers/{id}/json", get(show))
        .route("/containers/{id}/start", post(start))
        .route("/containers/{id}/stop", post(stop))
        .route("/containers/{id}/restart", post(restart))
        .route("/containers/{id}/kill", post(kill))
        .route("/containers/{id}/pause", post(pause))
        .route("/containers/{id}/unpause", post(unpause))
        .route("/containers/{id}/rename", post(rename))
        .route("/containers/{id}/update", post(update))
        .route("/containers/{id}/wait", post(wait))
        .route("/containers/{id}/resize", post(resize))
        .route("/containers/{id}/attach", post(attach::attach))
        .route("/containers/{id}/attach/ws", get(attach::attach_websocket))
        .route("/containers/{id}/logs", get(logs::logs))
        .route("/containers/{id}/top", get(top))
        .route("/containers/{id}/stats", get(statistics))
        .route("/containers/{id}/changes", get(changes))
        .route("/containers/{id}/export", get(export))
        .route("/containers/{id}/archive", get(archive::get).put(archive::put).head(archive::head))
}

#[derive(Deserialize)]
struct CreateRequest {
    #[serde(flatten)]
    config: Config,
    #[serde(rename = "HostConfig", default)]
    host: Option<HostConfig>,
    #[serde(rename = "NetworkingConfig", default)]
    networking: Option<NetworkingRequest>,
}

#[derive(Deserialize, Default)]
struct NetworkingRequest {
    #[serde(rename = "EndpointsConfig", default)]
    endpoints: Option<BTreeMap<String, Option<EndpointRequest>>>,
}

async fn create(State(backend): State<Backend>, query: Query, Body(asked): Body<CreateRequest>) -> Result<Response> {
    let endpoints = asked.networking.unwrap_or_default().endpoints.unwrap_or_default();
    let request = CreateContainer {
        name: query.get("name").map(str::to_owned),
        config: asked.config,
        host: asked.host.unwrap_or_default(),
        networks: endpoints.into_iter().map(|(name, request)| (name, request.unwrap_or_default())).collect(),
        pod: None,
    };
    let created = backend.engine.create_container(request).await?;
    Ok((StatusCode::CREATED, Json(json!({"Id": created.id, "Warnings": created.warnings}))).into_response())
}

async fn show(State(backend): State<Backend>, Path(id): Path<String>, query: Query) -> Result<Json<Value>> {
    let container = backend.engine.container(&id)?;
    let size = if query.flag("size") { Some(sizes(&backend, &container).await) } else { None };
    Ok(Json(inspect::container(&container, size)))
}

/// What the container wrote, and that with its image.
pub(super) async fn sizes(backend: &Backend, container: &engine::Container) -> (u64, u64) {
    let own = backend.engine.container_size(&container.record.id).await.unwrap_or(0);
    let image = backend.engine.find_image(&container.record.image_id).map_or(0, |image| image.size);
    (own, own + image)
}

async fn start(State(backend): State<Backend>, Path(id): Path<String>) -> Result<StatusCode> {
    backend.engine.start_container(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Seconds; negative means for ever.
fn grace(query: &Query) -> Result<Option<Duration>> {
    let seconds = query.number::<i64>("t")?;
    Ok(seconds.map(|s| u64::try_from(s).map_or(Duration::MAX, Duration::from_secs)))
}

async fn stop(State(backend): State<Backend>, Path(id): Path<String>, query: Query) -> Result<StatusCode> {
    backend.engine.stop_with(&id, query.get("signal"), grace(&query)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn restart(State(backend): State<Backend>, Path(id): Path<String>, query: Query) -> Result<StatusCode> {
    backend.engine.restart_container(&id, grace(&query)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn kill(State(backend): State<Backend>, Path(id): Path<String>, query: Query) -> Result<StatusCode> {
    backend.engine.kill_container(&id, query.text("signal")).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn pause(State(backend): State<Backend>, Path(id): Path<String>) -> Result<StatusCode> {
    backend.engine.pause_container(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unpause(State(backend): State<Backend>, Path(id): Path<String>) -> Result<StatusCode> {
    backend.engine.unpause_container(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn rename(State(backend): State<Backend>, Path(id): Path<String>, query: Query) -> Result<StatusCode> {
    backend.engine.rename_container(&id, query.text("name")).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct UpdateRequest {
    #[serde(flatten)]
    resources: Resources,
    #[serde(rename = "RestartPolicy", default)]
    policy: Option<RestartPolicy>,
}

async fn update(
    State(backend): State<Backend>,
    Path(id): Path<String>,
    Body(asked): Body<UpdateRequest>,
) -> Result<Json<Value>> {
    let policy = asked.policy.filter(|policy| !policy.name.is_empty());
    backend.engine.update_container(&id, asked.resources, policy).await?;
    Ok(Json(json!({"Warnings": []})))
}

/// The answer's headers go out at once: `docker run` starts the container only when it has them.
async fn wait(State(backend): State<Backend>, Path(id): Path<String>, query: Query) -> Result<Response> {
    let condition = match query.text("condition") {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(ApiError::bad_request(format!("invalid condition: \"{other}\""))),
    };
    let waiting = backend.engine.begin_wait(&id, condition)?;
    let line = async move {
        let answer = match waiting.await {
            Ok(code) => json!({"StatusCode": code}),
            Err(error) => json!({"StatusCode": -1, "Error": {"Message": error.to_string()}}),
        };
        Ok(bytes::Bytes::from(answer.to_string() + "\n"))
    };
    Ok(stream::body("application/json", futures_util::stream::once(line)))
}

pub(super) fn size_of(query: &Query) -> Result<(u16, u16)> {
    let rows = query.number::<u16>("h")?.unwrap_or(0);
    let cols = query.number::<u16>("w")?.unwrap_or(0);
    Ok((cols, rows))
}

async fn resize(State(backend): State<Backend>, Path(id): Path<String>, query: Query) -> Result<StatusCode> {
    let (cols, rows) = size_of(&query)?;
    backend.engine.resize_container(&id, cols, rows).await?;
    backend.engine.container_note(&id, "resize", &[("height", rows.to_string()), ("width", cols.to_string())]);
    Ok(StatusCode::OK)
}

async fn remove(State(backend): State<Backend>, Path(id): Path<String>, query: Query) -> Result<StatusCode> {
    let options = RemoveOptions { force: query.flag("force"), volumes: query.flag("v") };
    backend.engine.remove_container(&id, options).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune(State(backend): State<Backend>, query: Query) -> Result<Json<Value>> {
    let filters = Filters::parse(query.get("filters"), &["until", "label", "label!"])?;
    let until = filters.values("until").next().map(|text| time::parse(text, jiff::Timestamp::now())).transpose()?;
    let fits = |container: &engine::Container| {
        filters.labels(&container.record.config.labels) && until.is_none_or(|until| container.record.created < until)
    };
    let pruned = backend.engine.prune_containers(fits).await?;
    let deleted = if pruned.removed.is_empty() { Value::Null } else { json!(pruned.removed) };
    Ok(Json(json!({"ContainersDeleted": deleted, "SpaceReclaimed": pruned.reclaimed_bytes})))
}

async fn top(State(backend): State<Backend>, Path(id): Path<String>, query: Query) -> Result<Json<Value>> {
    let top = backend.engine.top(&id, query.text("ps_args")).await?;
    backend.engine.container_note(&id, "top", &[]);
    Ok(Json(json!({"Titles": top.titles, "Processes": top.processes})))
}

async fn changes(State(backend): State<Backend>, Path(id): Path<String>) -> Result<Json<Value>> {
    let changes = backend.engine.container_changes(&id).await?;
    let row = |change: &snapshots::Change| {
        let kind = match change.kind {
            snapshots::ChangeKind::Modified => 0,
            snapshots::ChangeKind::Added => 1,
            snapshots::ChangeKind::Deleted => 2,
        };
        json!({"Path": format!("/{}", change.path.display().to_string().trim_start_matches('/')), "Kind": kind})
    };
    Ok(Json(if changes.is_empty() { Value::Null } else { changes.iter().map(row).collect() }))
}

async fn export(State(backend): State<Backend>, Path(id): Path<String>) -> Result<Response> {
    backend.engine.container(&id)?;
    let engine = backend.engine.clone();
    engine.container_note(&id, "export", &[]);
    Ok(stream::blocking_body("application/octet-stream", move |out| Ok(engine.export_container(&id, out)?)))
}

/// One reading a second while the client listens; `one-shot` skips the second that percentages need.
async fn statistics(State(backend): State<Backend>, Path(id): Path<String>, query: Query) -> Result<Response> {
    let container = backend.engine.container(&id)?;
    let (streaming, one_shot) = (query.flag_or("stream", true), query.flag("one-shot"));
    if !streaming {
        let Ok(first) = backend.engine.container_stats(&id).await else {
            return Ok(
                Json(json!({"name": format!("/{}", container.record.name), "id": container.record.id})).into_response()
            );
        };
        if one_shot {
            return Ok(Json(stats::stats(&container, &first, None)).into_response());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let second = backend.engine.container_stats(&id).await?;
        return Ok(Json(stats::stats(&container, &second, Some(&first))).into_response());
    }
    let engine = backend.engine.clone();
    let readings = futures_util::stream::unfold(None, move |before: Option<engine::ContainerStats>| {
        let (engine, id) = (engine.clone(), id.clone());
        async move {
            if before.is_some() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let container = engine.container(&id).ok()?;
            let now = engine.container_stats(&id).await.ok()?;
            let line = stats::stats(&container, &now, before.as_ref()).to_string() + "\n";
            Some((Ok(bytes::Bytes::from(line)), Some(now)))
        }
    });
    Ok(stream::body("application/json", readings.boxed()))
}
