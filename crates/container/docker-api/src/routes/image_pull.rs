//! Images and registries: pull, push, search, and what a registry has under a name.

use std::sync::Arc;

use axum::{
    Json,
    body::Body as HttpBody,
    extract::{Path, State},
    response::Response,
};
use base64::Engine as _;
use distribution::client::{Auth, Progress, Sink};
use http::{HeaderMap, StatusCode};
use oci::Reference;
use serde::Deserialize;
use serde_json::{Value, json};

use super::images::{named, reference, wanted_platform};
use super::{Query, image_load};
use crate::{
    Backend,
    error::{ApiError, Result},
    filters::Filters,
    names, stream,
};

type Lines = tokio::sync::mpsc::Sender<String>;

pub(super) async fn search(State(backend): State<Backend>, query: Query, headers: HeaderMap) -> Result<Json<Value>> {
    let filters = Filters::parse(query.get("filters"), &["is-automated", "is-official", "stars"])?;
    let official = filters.flag("is-official")?;
    let automated = filters.flag("is-automated")?;
    let stars = filters.values("stars").filter_map(|n| n.parse::<u64>().ok()).max().unwrap_or(0);
    let limit = query.number::<usize>("limit")?.filter(|n| *n > 0).unwrap_or(25);
    if limit > 100 {
        return Err(ApiError::bad_request(format!("limit {limit} is outside the range of [1, 100]")));
    }
    let auth = registry_auth(&headers);
    let found = backend.engine.registry_client().search(query.text("term"), limit, auth.as_ref()).await;
    let mut hits = found.map_err(|e| remote_error(&e))?;
    hits.retain(|hit| {
        official.is_none_or(|wanted| hit.is_official == wanted)
            && automated.is_none_or(|wanted| hit.is_automated == wanted)
            && hit.star_count >= stars
    });
    Ok(Json(json!(hits)))
}

/// `GET /distribution/{name}/json`.
pub(super) async fn remote(
    State(backend): State<Backend>,
    Path(tail): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>> {
    let (name, verb) = names::split_verb(&tail, &["json"]);
    if verb != "json" {
        return Err(ApiError::not_found("page not found"));
    }
    let auth = registry_auth(&headers);
    let asked = backend.engine.registry_client().inspect(&reference(name)?, auth.as_ref()).await;
    let remote = asked.map_err(|e| remote_error(&e))?;
    let described = &remote.descriptor;
    Ok(Json(json!({
        "Descriptor": {"mediaType": described.media_type, "digest": described.digest, "size": described.size},
        "Platforms": remote.platforms,
    })))
}

/// The status that Docker gives to a registry's failure.
fn remote_error(error: &distribution::Error) -> ApiError {
    let status = match error {
        error if error.is_not_found() => StatusCode::NOT_FOUND,
        distribution::Error::Unauthorized(_) => StatusCode::UNAUTHORIZED,
        distribution::Error::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    ApiError::new(status, error.to_string())
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
fn sink(lines: Lines) -> Sink {
    Arc::new(move |progress: Progress| {
        let _ = lines.try_send(engine::progress::line(&progress));
    })
}

pub(super) fn error_line(message: &str) -> String {
    json!({"errorDetail": {"message": message}, "error": message}).to_string()
}

pub(super) async fn create(
    State(backend): State<Backend>,
    query: Query,
    headers: HeaderMap,
    body: HttpBody,
) -> Result<Response> {
    if let Some(source) = query.get("fromSrc") {
        return image_load::import(&backend, source, &query, body).await;
    }
    let wanted = named(query.text("fromImage"), query.text("tag"))?;
    let platform = wanted_platform(&query)?;
    let auth = registry_auth(&headers);
    // Without a tag all of them are meant (`docker pull --all-tags`).
    let all = match wanted.is_name_only() {
        true => {
            let tags = backend.engine.registry_client().tags(&wanted, auth.as_ref()).await;
            let tags = tags.map_err(|e| remote_error(&e))?;
            tags.iter().filter_map(|tag| wanted.with_tag(tag).ok()).collect()
        }
        false => vec![wanted],
    };
    // As Docker: what fails before anything was fetched is an HTTP error, not a line of a stream.
    let (lines, mut receiver) = stream::line_channel();
    let engine = backend.engine.clone();
    let pull = tokio::spawn(async move {
        for wanted in all {
            let result = pull_one(&engine, &wanted, platform.as_ref(), auth.as_ref(), &lines).await;
            if let Err(error) = &result {
                let _ = lines.send(error_line(&error.to_string())).await;
                return result;
            }
        }
        Ok(())
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

async fn pull_one(
    engine: &engine::Engine,
    wanted: &Reference,
    platform: Option<&oci::Platform>,
    auth: Option<&Auth>,
    lines: &Lines,
) -> Result<(), engine::Error> {
    let fits = |image: &content::Image| platform.is_none_or(|wanted| image.config.platform().satisfies(wanted));
    let local = engine.content().images().named(wanted).filter(|i| i.origin == content::Origin::Local && fits(i));
    if local.is_some() {
        let name = wanted.familiar();
        let text = format!("Status: Image is up to date for {name} (it was made here and has no other origin)");
        let _ = lines.send(json!({"status": text}).to_string()).await;
        return Ok(());
    }
    engine.pull_image_for(wanted, platform, auth, sink(lines.clone())).await.map(drop)
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

pub(super) fn push(backend: &Backend, name: &str, query: &Query, headers: &HeaderMap) -> Result<Response> {
    let wanted = named(name, query.text("tag"))?;
    let images = backend.engine.content().images();
    let all: Vec<Reference> = match wanted.is_name_only() {
        // Without a tag all of the repository's are meant (`docker push --all-tags`).
        true => {
            let names = images.list().into_iter().flat_map(|image| image.names);
            names.filter(|n| n.name() == wanted.name()).collect()
        }
        false => images.named(&wanted).map(|_| wanted.clone()).into_iter().collect(),
    };
    if all.is_empty() {
        let name = wanted.familiar_name();
        return Err(ApiError::not_found(format!("An image does not exist locally with the tag: {name}")));
    }
    if let Some(platform) = wanted_platform(query)?
        && let Some(other) =
            all.iter().filter_map(|n| images.named(n)).find(|i| !i.config.platform().satisfies(&platform))
    {
        return Err(ApiError::not_found(format!(
            "image with reference {name} was found but its platform ({}) does not match the specified platform ({platform})",
            other.config.platform()
        )));
    }
    let auth = registry_auth(headers);
    let (lines, receiver) = stream::line_channel();
    let engine = backend.engine.clone();
    tokio::spawn(async move {
        for wanted in all {
            if !push_one(&engine, &wanted, auth.as_ref(), &lines).await {
                return;
            }
        }
    });
    Ok(stream::json_lines(receiver))
}

async fn push_one(engine: &engine::Engine, wanted: &Reference, auth: Option<&Auth>, lines: &Lines) -> bool {
    match engine.registry_client().push(wanted, auth, sink(lines.clone())).await {
        Ok(pushed) => {
            let told = json!({"Tag": wanted.tag_or_digest(), "Digest": pushed.digest.to_string(), "Size": pushed.size});
            let _ = lines.send(json!({"progressDetail": {}, "aux": told}).to_string()).await;
            let attributes = [("name".to_owned(), wanted.familiar_name())].into();
            engine.publish(engine::Subject::Image, "push", &wanted.familiar(), attributes);
            true
        }
        Err(error) => {
            let _ = lines.send(error_line(&error.to_string())).await;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
