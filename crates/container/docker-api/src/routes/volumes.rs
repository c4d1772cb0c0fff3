//! `/volumes/…`.

use std::collections::BTreeMap;

use axum::{
    Extension, Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use engine::config::nullable;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use volumes::{Volume, VolumeSpec};

use super::{Body, Query};
use crate::{Backend, error::Result, filters::Filters, version::Version, wire::volumes as wire};

pub(crate) fn routes() -> Router<Backend> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(show).delete(remove))
}

async fn list(State(backend): State<Backend>, query: Query) -> Result<Json<Value>> {
    let filters = Filters::parse(query.get("filters"), &["dangling", "driver", "label", "label!", "name"])?;
    let dangling = filters.flag("dangling")?;
    let engine = &backend.engine;
    let fits = |volume: &&Volume| {
        filters.any("name", |name| volume.name.as_str().contains(name))
            && filters.any("driver", |driver| driver == "local")
            && filters.labels(&volume.labels)
            && dangling.is_none_or(|dangling| dangling == engine.volume_users(volume.name.as_str(), None).is_empty())
    };
    let all = engine.volumes().list();
    let shown: Vec<Value> = all.iter().filter(fits).map(|volume| wire::volume(engine.volumes(), volume)).collect();
    Ok(Json(json!({"Volumes": shown, "Warnings": null})))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct CreateRequest {
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    driver: String,
    #[serde(deserialize_with = "nullable")]
    driver_opts: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
}

async fn create(State(backend): State<Backend>, Body(asked): Body<CreateRequest>) -> Result<Response> {
    let spec =
        VolumeSpec { name: asked.name, driver: asked.driver, driver_opts: asked.driver_opts, labels: asked.labels };
    let engine = backend.engine.clone();
    let volume =
        tokio::task::spawn_blocking(move || engine.create_volume(&spec)).await.map_err(crate::ApiError::internal)??;
    Ok((StatusCode::CREATED, Json(wire::volume(backend.engine.volumes(), &volume))).into_response())
}

async fn show(State(backend): State<Backend>, Path(name): Path<String>) -> Result<Json<Value>> {
    let volume = backend.engine.volume(&name)?;
    Ok(Json(wire::volume(backend.engine.volumes(), &volume)))
}

async fn remove(State(backend): State<Backend>, Path(name): Path<String>, query: Query) -> Result<StatusCode> {
    backend.engine.remove_volume(&name, query.flag("force")).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune(
    State(backend): State<Backend>,
    Extension(version): Extension<Version>,
    query: Query,
) -> Result<Json<Value>> {
    let filters = Filters::parse(query.get("filters"), &["all", "label", "label!"])?;
    // Clients from before 1.42 mean named volumes as well.
    let old = version < Version { major: 1, minor: 42 };
    let all = filters.flag("all")?.unwrap_or(old);
    let pruned = backend.engine.prune_volumes(all, |volume| filters.labels(&volume.labels)).await?;
    let deleted = if pruned.removed.is_empty() { Value::Null } else { json!(pruned.removed) };
    Ok(Json(json!({"VolumesDeleted": deleted, "SpaceReclaimed": pruned.reclaimed_bytes})))
}
