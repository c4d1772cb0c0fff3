//! `logs`.

use anyhow::Result;
use bytes::Bytes;
use futures_util::StreamExt;
use http::Request;
use tokio::io::AsyncWriteExt;

use super::access::{Access, escaped};
use super::cli::Logs;
use super::resource;

pub(crate) async fn run(access: &Access, options: &Logs) -> Result<()> {
    let namespace = options.namespace.name();
    let pod = access.pod_of(&options.target, namespace).await?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let mut path = format!(
        "{}/log?follow={}&previous={}&timestamps={}",
        resource::path(resource::find("pods")?, Some(namespace), Some(name)),
        options.follow,
        options.previous,
        options.timestamps
    );
    if let Some(container) = &options.container {
        path.push_str(&format!("&container={}", escaped(container)));
    }
    if let Some(lines) = options.tail {
        path.push_str(&format!("&tailLines={lines}"));
    }
    let mut body = access.client.send(Request::get(path).body(Bytes::new())?).await?.into_body();
    let mut stdout = tokio::io::stdout();
    while let Some(chunk) = body.next().await {
        stdout.write_all(&chunk?).await?;
        stdout.flush().await?;
    }
    Ok(())
}
