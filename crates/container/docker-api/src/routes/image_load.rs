//! Images as archives: load, save, import; and the `--change` instructions of import and commit.

use axum::{body::Body as HttpBody, extract::State, response::Response};
use engine::config::{Config, Empty};
use oci::ImageConfig;
use serde_json::json;

use super::{
    Query,
    image_pull::error_line,
    images::{on_platform, wanted_platform},
};
use crate::{
    Backend,
    error::{ApiError, Result},
    stream,
};

pub(super) async fn load(State(backend): State<Backend>, query: Query, body: HttpBody) -> Result<Response> {
    let quiet = query.flag("quiet");
    let mut reader = stream::blocking_reader(body);
    let (lines, receiver) = stream::line_channel();
    tokio::task::spawn_blocking(move || {
        let say = |line: String| drop(lines.blocking_send(line));
        let mut progress = |reading: distribution::archive::Reading| {
            if !quiet {
                // A slow client misses progress, never the end.
                let _ = lines.try_send(engine::progress::loading(&reading.id, reading.current, reading.total));
            }
        };
        let (content, snapshots) = (backend.engine.content(), backend.engine.snapshots());
        match distribution::archive::load_with(content, snapshots, &mut reader, &mut progress) {
            Ok(loaded) => {
                for one in loaded {
                    for (name, id) in &one.replaced {
                        let name = name.familiar();
                        let text = format!(
                            "The image {name} already exists, renaming the old one with ID {id} to empty string\n"
                        );
                        say(json!({"stream": text}).to_string());
                    }
                    if one.names.is_empty() {
                        say(json!({"stream": format!("Loaded image ID: {}\n", one.id)}).to_string());
                    }
                    for name in &one.names {
                        say(json!({"stream": format!("Loaded image: {}\n", name.familiar())}).to_string());
                    }
                    backend.engine.publish(engine::Subject::Image, "load", &one.id.to_string(), Default::default());
                }
            }
            Err(error) => say(error_line(&error.to_string())),
        }
    });
    Ok(stream::json_lines(receiver))
}

pub(super) async fn save_many(State(backend): State<Backend>, query: Query) -> Result<Response> {
    let names = query.all("names");
    for name in &names {
        on_platform(&backend, name, &query)?;
    }
    save(&backend, names)
}

/// Unknown names are told before the first byte.
pub(super) fn save(backend: &Backend, names: Vec<String>) -> Result<Response> {
    for name in &names {
        backend.engine.find_image(name)?;
    }
    let content = backend.engine.content().clone();
    Ok(stream::blocking_body("application/x-tar", move |mut out| {
        distribution::archive::save(&content, &names, &mut out).map_err(ApiError::internal)
    }))
}

/// `docker import`.
pub(super) async fn import(backend: &Backend, source: &str, query: &Query, body: HttpBody) -> Result<Response> {
    let mut changes = Config::default();
    for change in query.all("changes") {
        apply_change(&mut changes, &change)?;
    }
    let name = match query.get("repo") {
        Some(repository) => {
            let text = query.get("tag").map_or_else(|| repository.to_owned(), |tag| format!("{repository}:{tag}"));
            Some(oci::Reference::parse(&text).map_err(|e| ApiError::bad_request(e.to_string()))?.or_latest())
        }
        None => None,
    };
    let from = format!("Imported from {source}");
    let message = query.get("message").unwrap_or(&from).to_owned();
    let platform = wanted_platform(query)?;
    let mut reader: Box<dyn std::io::Read + Send> = match source {
        "-" => Box::new(stream::blocking_reader(body)),
        url => Box::new(stream::blocking_reader(download(backend, url).await?)),
    };
    let engine = backend.engine.clone();
    let imported = tokio::task::spawn_blocking(move || -> Result<oci::ImageId> {
        let mut edit = |config: &mut ImageConfig| {
            edit(config, &changes);
            if let Some(platform) = &platform {
                config.os.clone_from(&platform.os);
                config.architecture.clone_from(&platform.architecture);
                config.variant.clone_from(&platform.variant);
            }
        };
        let id = distribution::archive::import(engine.content(), engine.snapshots(), &mut reader, &message, &mut edit)
            .map_err(ApiError::internal)?;
        if let Some(name) = name {
            engine.content().images().tag(&id, &name)?;
        }
        engine.publish(engine::Subject::Image, "import", &id.to_string(), Default::default());
        Ok(id)
    });
    let (lines, receiver) = stream::line_channel();
    let line = match imported.await.map_err(ApiError::internal)? {
        Ok(id) => json!({"status": id.to_string()}).to_string(),
        Err(error) => error_line(&error.message),
    };
    let _ = lines.send(line).await;
    Ok(stream::json_lines(receiver))
}

/// What lies at an address, as a body; an address without a scheme is HTTP's, as in Docker.
async fn download(backend: &Backend, url: &str) -> Result<HttpBody> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let opened = backend.engine.registry_client().open_url(&url).await;
    let download = opened.map_err(|e| ApiError::bad_request(e.to_string()))?;
    let pieces = futures_util::stream::try_unfold(download, |mut download| async move {
        Ok::<_, distribution::Error>(download.next().await?.map(|bytes| (bytes, download)))
    });
    Ok(HttpBody::from_stream(pieces))
}

fn edit(image: &mut ImageConfig, changes: &Config) {
    let run = &mut image.config;
    let set = |to: &mut String, from: &String| {
        if !from.is_empty() {
            to.clone_from(from);
        }
    };
    set(&mut run.user, &changes.user);
    set(&mut run.working_dir, &changes.working_dir);
    run.cmd = changes.cmd.clone().or(run.cmd.take());
    run.entrypoint = changes.entrypoint.clone().or(run.entrypoint.take());
    run.env.extend(changes.env.iter().cloned());
    run.labels.extend(changes.labels.clone());
    run.exposed_ports.extend(changes.exposed_ports.keys().map(|key| (key.clone(), oci::Empty {})));
    run.volumes.extend(changes.volumes.iter().flatten().map(|(key, _)| (key.clone(), oci::Empty {})));
    if !changes.stop_signal.is_empty() {
        run.stop_signal = Some(changes.stop_signal.clone());
    }
}

/// One Dockerfile instruction that changes a configuration, applied to it.
pub(super) fn apply_change(config: &mut Config, line: &str) -> Result<()> {
    let (word, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
    let rest = rest.trim();
    let invalid = || ApiError::bad_request(format!("invalid change: {line}"));
    if rest.is_empty() {
        return Err(invalid());
    }
    let words = || rest.split_ascii_whitespace().map(str::to_owned);
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "ENV" => {
            config.env.extend(pairs(rest).ok_or_else(invalid)?.into_iter().map(|(key, value)| format!("{key}={value}")))
        }
        "LABEL" => config.labels.extend(pairs(rest).ok_or_else(invalid)?),
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => rest.clone_into(&mut config.working_dir),
        "STOPSIGNAL" => rest.clone_into(&mut config.stop_signal),
        "EXPOSE" => {
            let key = |port: String| if port.contains('/') { port } else { format!("{port}/tcp") };
            config.exposed_ports.extend(words().map(|port| (key(port), Empty {})));
        }
        "VOLUME" => {
            let paths = serde_json::from_str::<Vec<String>>(rest).unwrap_or_else(|_| words().collect());
            config.volumes.get_or_insert_default().extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        _ => return Err(ApiError::bad_request(format!("{} is not a valid change command", word.to_ascii_uppercase()))),
    }
    Ok(())
}

/// JSON form, or a line for the shell.
fn command(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

/// `a=1 b="x y"`, or the old `name value`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let first = text.split_ascii_whitespace().next()?;
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let mut all = Vec::new();
    let (mut word, mut quote) = (String::new(), None);
    for c in text.chars().chain([' ']) {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    let (name, value) = word.split_once('=')?;
                    all.push((name.to_owned(), value.to_owned()));
                    word.clear();
                }
            }
            (_, c) => word.push(c),
        }
    }
    quote.is_none().then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_applied_or_refused() {
        let mut config = Config::default();
        for line in [
            r#"CMD ["a","b"]"#,
            "entrypoint run it",
            "ENV A=1 B=\"x y\"",
            "ENV C d e",
            "EXPOSE 80 53/udp",
            "VOLUME /data",
            "LABEL k=v",
            "USER me",
        ] {
            apply_change(&mut config, line).unwrap();
        }
        assert_eq!(config.cmd.unwrap(), ["a", "b"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "run it"]);
        assert_eq!(config.env, ["A=1", "B=x y", "C=d e"]);
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.user, "me");
        for bad in ["", "CMD", "RUN x", "ENV A", "LABEL a=\"open"] {
            assert!(apply_change(&mut Config::default(), bad).is_err(), "{bad}");
        }
    }
}
