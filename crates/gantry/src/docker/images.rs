//! Verbs over images.

use anyhow::{Context, Result, bail};
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::cli::{Images, Import};
use super::client::{Body, Client, escaped, raw_request, request};
use super::print;

pub(crate) async fn list(client: &Client, options: &Images) -> Result<()> {
    let answer = client.get(&format!("/images/json?all={}", u8::from(options.all))).await?;
    if options.output == "json" {
        println!("{}", serde_json::to_string_pretty(&answer)?);
        return Ok(());
    }
    let now = jiff::Timestamp::now();
    let mut rows = Vec::new();
    for image in answer.as_array().into_iter().flatten() {
        let id: String =
            image["Id"].as_str().unwrap_or_default().trim_start_matches("sha256:").chars().take(12).collect();
        if options.quiet {
            println!("{id}");
            continue;
        }
        let created = print::ago(image["Created"].as_i64().unwrap_or_default(), now);
        let size = print::size(image["Size"].as_u64().unwrap_or_default());
        let tags: Vec<&str> = image["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for name in if tags.is_empty() { vec!["<none>:<none>"] } else { tags } {
            let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
            rows.push(vec![repository.to_owned(), tag.to_owned(), id.clone(), created.clone(), size.clone()]);
        }
    }
    if !options.quiet {
        print::table(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], &rows);
    }
    Ok(())
}

/// Splits a name into repository and tag; a colon in the registry's part is a port.
fn split(image: &str) -> (&str, Option<&str>) {
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (image, None),
    }
}

pub(crate) async fn pull(client: &Client, image: &str) -> Result<()> {
    let (repository, tag) = split(image);
    let path = format!("/images/create?fromImage={}&tag={}", escaped(repository), escaped(tag.unwrap_or("latest")));
    client.json_stream(request(Method::POST, &path, None)?, progress).await
}

pub(crate) async fn push(client: &Client, image: &str) -> Result<()> {
    let (repository, tag) = split(image);
    let mut request = request(
        Method::POST,
        &format!("/images/{}/push?tag={}", escaped(repository), escaped(tag.unwrap_or("latest"))),
        None,
    )?;
    // The header is required; nobody's credentials are in it.
    request.headers_mut().insert("x-registry-auth", http::HeaderValue::from_static("e30="));
    client.json_stream(request, progress).await
}

pub(crate) async fn tag(client: &Client, source: &str, target: &str) -> Result<()> {
    let (repository, tag) = split(target);
    let path = format!(
        "/images/{}/tag?repo={}&tag={}",
        escaped(source),
        escaped(repository),
        escaped(tag.unwrap_or("latest"))
    );
    client.json(Method::POST, &path, None).await.map(drop)
}

pub(crate) async fn remove(client: &Client, names: &[String], force: bool) -> Result<u8> {
    let mut code = 0;
    for name in names {
        match client.json(Method::DELETE, &format!("/images/{}?force={}", escaped(name), u8::from(force)), None).await {
            Ok(answer) => {
                for line in answer.as_array().into_iter().flatten() {
                    for (key, word) in [("Untagged", "Untagged"), ("Deleted", "Deleted")] {
                        if let Some(what) = line[key].as_str() {
                            println!("{word}: {what}");
                        }
                    }
                }
            }
            Err(error) => {
                eprintln!("{error:#}");
                code = 1;
            }
        }
    }
    Ok(code)
}

pub(crate) async fn import(client: &Client, options: &Import) -> Result<()> {
    let (repository, tag) = options.image.as_deref().map_or(("", None), split);
    let mut path =
        format!("/images/create?fromSrc=-&repo={}&tag={}", escaped(repository), escaped(tag.unwrap_or_default()));
    for change in &options.change {
        path.push_str(&format!("&changes={}", escaped(change)));
    }
    let source: Box<dyn tokio::io::AsyncRead + Send + Sync + Unpin> = if options.source.as_os_str() == "-" {
        Box::new(tokio::io::stdin())
    } else {
        Box::new(
            tokio::fs::File::open(&options.source)
                .await
                .with_context(|| format!("cannot open {}", options.source.display()))?,
        )
    };
    let request = raw_request(Method::POST, &path, "application/x-tar", stream(source))?;
    client.json_stream(request, progress).await
}

/// A reader as a request's body.
fn stream(reader: Box<dyn tokio::io::AsyncRead + Send + Sync + Unpin>) -> Body {
    let frames = futures_util::stream::try_unfold(reader, |mut reader| async move {
        let mut buffer = vec![0u8; 64 << 10];
        let read = reader.read(&mut buffer).await?;
        buffer.truncate(read);
        Ok((read > 0).then(|| (Frame::data(bytes::Bytes::from(buffer)), reader)))
    });
    BodyExt::boxed(StreamBody::new(frames))
}

/// Prints one line of progress; an error in the stream is the command's error.
pub(crate) fn progress(line: &Value) -> Result<()> {
    if let Some(error) = line["error"].as_str().or_else(|| line["errorDetail"]["message"].as_str()) {
        bail!("{error}");
    }
    if let Some(text) = line["stream"].as_str() {
        print!("{text}");
    } else if let Some(status) = line["status"].as_str() {
        // Bars are for terminals that redraw; a line a change is enough here.
        if line["progressDetail"]["total"].is_null() {
            match line["id"].as_str() {
                Some(id) => println!("{id}: {status}"),
                None => println!("{status}"),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_registrys_port_is_no_tag() {
        assert_eq!(super::split("localhost:5000/app"), ("localhost:5000/app", None));
        assert_eq!(super::split("localhost:5000/app:1"), ("localhost:5000/app", Some("1")));
        assert_eq!(super::split("nginx"), ("nginx", None));
    }
}
