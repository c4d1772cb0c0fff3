//! `/images/…` and `/commit`: what is done with images that are here. What moves them is in `image_pull` and `image_load`.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use engine::{CommitOptions, config::Config};
use http::{HeaderMap, StatusCode};
use oci::Reference;
use serde_json::{Value, json};

pub(super) use super::image_pull::error_line;
use super::{Body, Query, image_load, image_pull};
use crate::{
    Backend,
    error::{ApiError, Result},
    filters::Filters,
    names,
    wire::{images as wire, time},
};

pub(crate) fn routes() -> Router<Backend> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(image_pull::create))
        .route("/images/load", post(image_load::load))
        .route("/images/get", get(image_load::save_many))
        .route("/images/search", get(image_pull::search))
        .route("/images/prune", post(prune))
        .route("/images/{*tail}", get(get_one).post(post_one).delete(remove))
        .route("/commit", post(commit))
        .route("/distribution/{*tail}", get(image_pull::remote))
}

pub(super) fn reference(text: &str) -> Result<Reference> {
    Reference::parse(text).map_err(|e| ApiError::bad_request(e.to_string()))
}

async fn list(State(backend): State<Backend>, query: Query) -> Result<Json<Value>> {
    let known = ["before", "dangling", "label", "label!", "reference", "since", "until"];
    let filters = Filters::parse(query.get("filters"), &known)?;
    let dangling = filters.flag("dangling")?;
    let until = filters.values("until").next().map(|text| time::parse(text, jiff::Timestamp::now())).transpose()?;
    let created = |image: &content::Image| image.created.unwrap_or(image.stored);
    let bound = |key: &str| -> Result<Option<jiff::Timestamp>> {
        Ok(filters.values(key).next().map(|name| backend.engine.find_image(name)).transpose()?.as_ref().map(created))
    };
    let (before, since) = (bound("before")?, bound("since")?);
    let mut images = backend.engine.content().images().list();
    images.retain(|image| {
        let at = created(image);
        dangling.is_none_or(|dangling| dangling == image.names.is_empty())
            && filters.labels(&image.config.config.labels)
            && filters.any("reference", |pattern| image.names.iter().any(|name| pattern_fits(pattern, name)))
            && until.is_none_or(|until| at < until)
            && before.is_none_or(|before| at < before)
            && since.is_none_or(|since| at > since)
    });
    images.sort_by_key(|image| std::cmp::Reverse(created(image)));
    let shared = query.flag("shared-size").then(|| shared_sizes(&backend, &backend.engine.content().images().list()));
    let row = |image: &content::Image| {
        let mut row = wire::summary(image, -1);
        if filters.has("reference") {
            // Only the names that were asked for, as Docker has it.
            let fitting = image.names.iter().filter(|name| filters.any("reference", |p| pattern_fits(p, name)));
            row["RepoTags"] = fitting.map(Reference::familiar).collect();
            let fitting = image.repo_digests.iter().filter(|name| filters.any("reference", |p| pattern_fits(p, name)));
            row["RepoDigests"] = fitting.map(Reference::familiar).collect();
        }
        if let Some(shared) = &shared {
            row["SharedSize"] = shared.get(&image.id).copied().unwrap_or(0).into();
        }
        let manifests = query.flag("manifests");
        if let Ok(view) = wire::ManifestView::of(&backend, image) {
            row["Descriptor"] = view.descriptor();
            if manifests {
                row["Manifests"] = view.manifests();
            }
        }
        row
    };
    Ok(Json(images.iter().map(row).collect()))
}

/// Bytes of each image's layers that another image has as well.
pub(super) fn shared_sizes(backend: &Backend, images: &[content::Image]) -> BTreeMap<oci::ImageId, u64> {
    let chains = |image: &content::Image| oci::chain_ids(&image.config.rootfs.diff_ids);
    let mut owners: BTreeMap<oci::ChainId, u32> = BTreeMap::new();
    for chain in images.iter().flat_map(|image| chains(image).into_iter().collect::<BTreeSet<_>>()) {
        *owners.entry(chain).or_default() += 1;
    }
    let size = |chain: &oci::ChainId| backend.engine.snapshots().layer_size(chain).unwrap_or(0);
    let shared = |image| chains(image).iter().filter(|c| owners.get(c).is_some_and(|n| *n > 1)).map(size).sum();
    images.iter().map(|image| (image.id, shared(image))).collect()
}

/// `busybox`, `busybox:*`, `reg/*:1`: `*` for anything but a slash.
fn pattern_fits(pattern: &str, name: &Reference) -> bool {
    let (full, short) = (name.familiar(), name.familiar_name());
    glob(pattern.as_bytes(), full.as_bytes()) || glob(pattern.as_bytes(), short.as_bytes())
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            let reach = text.iter().position(|b| *b == b'/').unwrap_or(text.len());
            (0..=reach).any(|n| glob(rest, &text[n..]))
        }
        (Some((b'?', rest)), Some((c, left))) => *c != b'/' && glob(rest, left),
        (Some((p, rest)), Some((c, left))) => p == c && glob(rest, left),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

const VERBS: &[&str] = &["json", "history", "get", "push", "tag"];

async fn get_one(State(backend): State<Backend>, Path(tail): Path<String>, query: Query) -> Result<Response> {
    let (name, verb) = names::split_verb(&tail, VERBS);
    match verb {
        "json" => {
            let image = on_platform(&backend, name, &query)?;
            let mut shown = wire::inspect(&image);
            if let Ok(view) = wire::ManifestView::of(&backend, &image) {
                shown["Descriptor"] = view.descriptor();
                if query.flag("manifests") {
                    shown["Manifests"] = view.manifests();
                }
            }
            Ok(Json(shown).into_response())
        }
        "history" => {
            let image = on_platform(&backend, name, &query)?;
            let chains = oci::chain_ids(&image.config.rootfs.diff_ids);
            let sizes = chains
                .iter()
                .zip(&image.layers)
                .map(|(chain, layer)| backend.engine.snapshots().layer_size(chain).unwrap_or(layer.size));
            Ok(Json(wire::history(&image, sizes)).into_response())
        }
        "get" => {
            on_platform(&backend, name, &query)?;
            image_load::save(&backend, vec![name.to_owned()])
        }
        _ => Err(ApiError::not_found("page not found")),
    }
}

/// The platform that a query asks for: JSON (`{"os":…}`, or a list with one) or `os/arch`.
pub(super) fn wanted_platform(query: &Query) -> Result<Option<oci::Platform>> {
    let Some(text) = query.get("platform") else { return Ok(None) };
    let invalid = |e: &dyn std::fmt::Display| ApiError::bad_request(format!("invalid platform \"{text}\": {e}"));
    if !text.starts_with(['{', '[']) {
        return text.parse().map(Some).map_err(ApiError::bad_request);
    }
    let value: Value = serde_json::from_str(text).map_err(|e| invalid(&e))?;
    let one = match value {
        Value::Array(mut list) if list.len() == 1 => list.remove(0),
        Value::Array(_) => return Err(invalid(&"one platform at a time")),
        one => one,
    };
    let platform: oci::Platform = serde_json::from_value(one).map_err(|e| invalid(&e))?;
    Ok(Some(oci::Platform::new(&platform.os, &platform.architecture, platform.variant.as_deref())))
}

/// An image, if it is for the platform that the query asks for.
pub(super) fn on_platform(backend: &Backend, name: &str, query: &Query) -> Result<content::Image> {
    let image = backend.engine.find_image(name)?;
    let has = image.config.platform();
    match wanted_platform(query)? {
        Some(wanted) if !has.satisfies(&wanted) => Err(ApiError::not_found(format!(
            "image with reference {name} was found but its platform ({has}) does not match the specified platform ({wanted})"
        ))),
        _ => Ok(image),
    }
}

async fn post_one(
    State(backend): State<Backend>,
    Path(tail): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response> {
    let (name, verb) = names::split_verb(&tail, VERBS);
    match verb {
        "push" => image_pull::push(&backend, name, &query, &headers),
        "tag" => tag(&backend, name, &query),
        _ => Err(ApiError::not_found("page not found")),
    }
}

fn tag(backend: &Backend, name: &str, query: &Query) -> Result<Response> {
    let image = backend.engine.find_image(name)?;
    let wanted = named(query.text("repo"), query.text("tag"))?.or_latest();
    backend.engine.content().images().tag(&image.id, &wanted)?;
    let attributes = [("name".to_owned(), wanted.familiar())].into();
    backend.engine.publish(engine::Subject::Image, "tag", &image.id.to_string(), attributes);
    Ok(StatusCode::CREATED.into_response())
}

/// `repo` and `tag` of a query: the tag may be a digest.
pub(super) fn named(repository: &str, tag: &str) -> Result<Reference> {
    let text = match tag {
        "" => repository.to_owned(),
        digest if digest.contains(':') => format!("{repository}@{digest}"),
        tag => format!("{repository}:{tag}"),
    };
    reference(&text)
}

async fn remove(State(backend): State<Backend>, Path(name): Path<String>, query: Query) -> Result<Json<Value>> {
    let deleted = backend.engine.remove_image(&name, query.flag("force")).await?;
    Ok(Json(wire::deleted(&deleted)))
}

async fn prune(State(backend): State<Backend>, query: Query) -> Result<Json<Value>> {
    let filters = Filters::parse(query.get("filters"), &["dangling", "until", "label", "label!"])?;
    let all = filters.flag("dangling")? == Some(false);
    let until = filters.values("until").next().map(|text| time::parse(text, jiff::Timestamp::now())).transpose()?;
    let fits = |image: &content::Image| {
        filters.labels(&image.config.config.labels)
            && until.is_none_or(|until| image.created.unwrap_or(image.stored) < until)
    };
    let (deleted, bytes) = backend.engine.prune_images(all, fits).await?;
    let shown = if deleted.is_empty() { Value::Null } else { wire::deleted(&deleted) };
    Ok(Json(json!({"ImagesDeleted": shown, "SpaceReclaimed": bytes})))
}

async fn commit(State(backend): State<Backend>, query: Query, Body(config): Body<Option<Config>>) -> Result<Response> {
    let mut config = config.unwrap_or_default();
    for change in query.all("changes") {
        image_load::apply_change(&mut config, &change)?;
    }
    let reference = match query.get("repo") {
        Some(repository) => Some(named(repository, query.text("tag"))?),
        None => None,
    };
    let options = CommitOptions {
        reference,
        comment: query.text("comment").to_owned(),
        author: query.text("author").to_owned(),
        pause: query.flag_or("pause", true),
        config: Some(config),
    };
    let id = backend.engine.commit_container(query.text("container"), options).await?;
    Ok((StatusCode::CREATED, Json(json!({"Id": id.to_string()}))).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_patterns_stop_at_slashes() {
        let name = Reference::parse("localhost:5000/team/web:1.0").unwrap();
        for (pattern, fits) in [
            ("localhost:5000/team/web", true),
            ("localhost:5000/*/web:1.?", true),
            ("localhost:5000/*", false),
            ("web", false),
        ] {
            assert_eq!(pattern_fits(pattern, &name), fits, "{pattern}");
        }
    }
}
