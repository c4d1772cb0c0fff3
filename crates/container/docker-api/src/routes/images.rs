//! `/images/…`, `/commit`, `/distribution/…`.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body as HttpBody,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::Engine as _;
use distribution::client::{Auth, Progress, Sink};
use engine::{CommitOptions, config::Config};
use http::{HeaderMap, StatusCode};
use oci::Reference;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Body, Query, image_load};
use crate::{
    Backend,
    error::{ApiError, Result},
    filters::Filters,
    names, stream,
    wire::{images as wire, time},
};

pub(crate) fn routes() -> Router<Backend> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(create))
        .route("/images/load", post(image_load::load))
        .route("/images/get", get(image_load::save_many))
        .route("/images/search", get(search))
        .route("/images/prune", post(prune))
        .route("/images/{*tail}", get(get_one).post(post_one).delete(remove))
        .route("/commit", post(commit))
        .route("/distribution/{*tail}", get(remote))
}

fn reference(text: &str) -> Result<Reference> {
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
    Ok(Json(images.iter().map(|image| wire::summary(image, -1)).collect()))
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

async fn get_one(State(backend): State<Backend>, Path(tail): Path<String>) -> Result<Response> {
    let (name, verb) = names::split_verb(&tail, VERBS);
    match verb {
        "json" => Ok(Json(wire::inspect(&backend.engine.find_image(name)?)).into_response()),
        "history" => Ok(Json(wire::history(&backend.engine.find_image(name)?)).into_response()),
        "get" => image_load::save(&backend, vec![name.to_owned()]),
        _ => Err(ApiError::not_found("page not found")),
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
        "push" => push(&backend, name, &query, &headers),
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
fn named(repository: &str, tag: &str) -> Result<Reference> {
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

async fn search() -> ApiError {
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "searching needs Docker Hub's own service, which Gantry does not ask")
}

/// What `X-Registry-Auth` says: base64 of JSON, in either alphabet.
pub(super) fn registry_auth(headers: &HeaderMap) -> Option<Auth> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Sent {
        username: String,
        password: String,
        identitytoken: String,
        registrytoken: String,
    }
    let text = headers.get("x-registry-auth")?.to_str().ok()?.trim_end_matches('=');
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .or_else(|_| base64::engine::general_purpose::STANDARD_NO_PAD.decode(text))
        .ok()?;
    let sent: Sent = serde_json::from_slice(&bytes).ok()?;
    let auth = Auth {
        username: sent.username,
        password: sent.password,
        identity_token: sent.identitytoken,
        registry_token: sent.registrytoken,
    };
    let empty =
        [&auth.username, &auth.password, &auth.identity_token, &auth.registry_token].iter().all(|s| s.is_empty());
    (!empty).then_some(auth)
}

/// Progress as lines. A slow client misses progress, never the end.
fn sink(lines: tokio::sync::mpsc::Sender<String>) -> Sink {
    Arc::new(move |progress: Progress| {
        let _ = lines.try_send(engine::progress::line(&progress));
    })
}

pub(super) fn error_line(message: &str) -> String {
    json!({"errorDetail": {"message": message}, "error": message}).to_string()
}

async fn create(State(backend): State<Backend>, query: Query, headers: HeaderMap, body: HttpBody) -> Result<Response> {
    if let Some(source) = query.get("fromSrc") {
        return image_load::import(&backend, source, &query, body).await;
    }
    let wanted = named(query.text("fromImage"), query.text("tag"))?.or_latest();
    let auth = registry_auth(&headers);
    // As Docker: what fails before anything was fetched is an HTTP error, not a line of a stream.
    let (lines, mut receiver) = stream::line_channel();
    let engine = backend.engine.clone();
    let pull = tokio::spawn(async move {
        let local =
            engine.content().images().named(&wanted).is_some_and(|image| image.origin == content::Origin::Local);
        if local {
            let text = format!(
                "Status: Image is up to date for {} (it was made here and has no other origin)",
                wanted.familiar()
            );
            let _ = lines.send(json!({"status": text}).to_string()).await;
            return Ok(());
        }
        let result = engine.pull_image(&wanted, auth.as_ref(), sink(lines.clone())).await;
        if let Err(error) = &result {
            let _ = lines.send(error_line(&error.to_string())).await;
        }
        result.map(drop)
    });
    let first = receiver.recv().await;
    match first {
        Some(line) if line.starts_with("{\"error") => match pull.await {
            Ok(Err(error)) => Err(pull_status(&error)),
            Ok(Ok(())) | Err(_) => Err(ApiError::internal(line)),
        },
        Some(line) => Ok(replay(line, receiver)),
        None => Ok(stream::json_lines(receiver)),
    }
}

/// The line that was looked at, then the others.
fn replay(first: String, mut rest: tokio::sync::mpsc::Receiver<String>) -> Response {
    let (lines, receiver) = stream::line_channel();
    tokio::spawn(async move {
        if lines.send(first).await.is_err() {
            return;
        }
        while let Some(line) = rest.recv().await {
            if lines.send(line).await.is_err() {
                return;
            }
        }
    });
    stream::json_lines(receiver)
}

fn pull_status(error: &engine::Error) -> ApiError {
    let text = error.to_string();
    let status = if text.contains("not found") || text.contains("does not exist") {
        StatusCode::NOT_FOUND
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    ApiError::new(status, text)
}

fn push(backend: &Backend, name: &str, query: &Query, headers: &HeaderMap) -> Result<Response> {
    let wanted = named(name, query.text("tag"))?.or_latest();
    if backend.engine.content().images().named(&wanted).is_none() {
        return Err(ApiError::not_found(format!(
            "An image does not exist locally with the tag: {}",
            wanted.familiar_name()
        )));
    }
    let auth = registry_auth(headers);
    let (lines, receiver) = stream::line_channel();
    let engine = backend.engine.clone();
    tokio::spawn(async move {
        let text = format!("The push refers to repository [{}]", wanted.name());
        let _ = lines.send(json!({"status": text}).to_string()).await;
        match engine.registry_client().push(&wanted, auth.as_ref(), sink(lines.clone())).await {
            Ok(pushed) => {
                let tag = wanted.tag_or_digest();
                let status = format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size);
                let _ = lines.send(json!({"status": status}).to_string()).await;
                let aux = json!({"progressDetail": {}, "aux": {"Tag": tag, "Digest": pushed.digest.to_string(), "Size": pushed.size}});
                let _ = lines.send(aux.to_string()).await;
                let attributes = [("name".to_owned(), wanted.familiar_name())].into();
                engine.publish(engine::Subject::Image, "push", &wanted.familiar(), attributes);
            }
            Err(error) => {
                let _ = lines.send(error_line(&error.to_string())).await;
            }
        }
    });
    Ok(stream::json_lines(receiver))
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

async fn remote(Path(_tail): Path<String>) -> ApiError {
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "asking a registry about an image without pulling it is not served yet")
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

    #[test]
    fn credentials_come_in_both_alphabets_and_never_break() {
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-registry-auth", text.parse().unwrap());
            registry_auth(&headers)
        };
        let json = r#"{"username":"u","password":"p??>"}"#;
        let url = base64::engine::general_purpose::URL_SAFE.encode(json);
        let standard = base64::engine::general_purpose::STANDARD.encode(json);
        assert_eq!(with(&url).unwrap().password, "p??>");
        assert_eq!(with(&standard).unwrap().username, "u");
        assert!(with("e30=").is_none());
        assert!(with("%%%").is_none());
    }
}
