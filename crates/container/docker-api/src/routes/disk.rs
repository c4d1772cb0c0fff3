//! `GET /system/df`: what images, containers and volumes take on the disk.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::Query;
use crate::{Backend, error::Result, wire};

pub(super) async fn usage(State(backend): State<Backend>, query: Query) -> Result<Json<Value>> {
    let kinds = query.all("type");
    let wanted = |kind: &str| kinds.is_empty() || kinds.iter().any(|k| k == kind);
    let mut answer = json!({"LayersSize": 0, "Images": null, "Containers": null, "Volumes": null, "BuildCache": null});
    if wanted("image") {
        // What the disk says: stored blobs and unpacked layers, each once.
        answer["LayersSize"] = backend.engine.image_bytes().await?.into();
        answer["Images"] = images(&backend).into();
    }
    if wanted("container") {
        let mut rows = Vec::new();
        for container in backend.engine.containers().into_iter().filter(|c| c.record.pod.is_none()) {
            let size = super::containers::sizes(&backend, &container).await;
            rows.push(wire::containers::summary(&container, Some(size), jiff::Timestamp::now()));
        }
        answer["Containers"] = rows.into();
    }
    if wanted("volume") {
        let engine = backend.engine.clone();
        let rows = tokio::task::spawn_blocking(move || volumes(&engine)).await.map_err(crate::ApiError::internal)?;
        answer["Volumes"] = rows.into();
    }
    if wanted("build-cache") {
        answer["BuildCache"] = json!([]);
    }
    Ok(Json(answer))
}

fn images(backend: &Backend) -> Vec<Value> {
    let engine = &backend.engine;
    let images = engine.content().images().list();
    let shared = super::images::shared_sizes(backend, &images);
    let row = |image: &content::Image| {
        let users = i64::try_from(engine.image_users(&image.id).len()).unwrap_or(i64::MAX);
        let mut row = wire::images::summary(image, users);
        row["SharedSize"] = shared.get(&image.id).copied().unwrap_or(0).into();
        row
    };
    images.iter().map(row).collect()
}

fn volumes(engine: &engine::Engine) -> Vec<Value> {
    let row = |volume: &volumes::Volume| {
        let mut row = wire::volumes::volume(engine.volumes(), volume);
        let users = engine.volume_users(volume.name.as_str(), None).len();
        row["UsageData"] = json!({"RefCount": users, "Size": engine.volumes().usage(volume)});
        row
    };
    engine.volumes().list().iter().map(row).collect()
}
