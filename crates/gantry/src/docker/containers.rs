//! Verbs over containers that exist: list, logs, inspect, and those that only change their status.

use anyhow::Result;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::cli::{Inspect, Logs, Ps};
use super::client::{Client, escaped, request};
use super::{multiplex, print};

/// Sends one request a name, printing each name that worked; goes on after an error and reports all.
pub(crate) async fn each(
    client: &Client,
    names: &[String],
    what: impl Fn(&str) -> (&'static str, String),
) -> Result<u8> {
    let mut code = 0;
    for name in names {
        let (method, path) = what(&escaped(name));
        match client.json(Method::from_bytes(method.as_bytes())?, &path, None).await {
            Ok(_) => println!("{name}"),
            Err(error) => {
                eprintln!("{error:#}");
                code = 1;
            }
        }
    }
    Ok(code)
}

pub(crate) async fn list(client: &Client, options: &Ps) -> Result<()> {
    let mut filters = serde_json::Map::new();
    for filter in &options.filter {
        let (name, value) = filter.split_once('=').unwrap_or((filter, ""));
        if let Some(values) = filters.entry(name).or_insert_with(|| json!([])).as_array_mut() {
            values.push(json!(value));
        }
    }
    let query = format!(
        "/containers/json?all={}&filters={}",
        u8::from(options.all),
        escaped(&Value::Object(filters).to_string())
    );
    let answer = client.get(&query).await?;
    let containers = answer.as_array().cloned().unwrap_or_default();
    let id = |container: &Value| {
        let id = container["Id"].as_str().unwrap_or_default();
        if options.no_trunc { id.to_owned() } else { id.chars().take(12).collect() }
    };
    if options.output == "json" {
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else if options.quiet {
        containers.iter().for_each(|container| println!("{}", id(container)));
    } else {
        let rows: Vec<Vec<String>> = containers.iter().map(|container| row(container, id(container))).collect();
        print::table(&["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"], &rows);
    }
    Ok(())
}

fn row(container: &Value, id: String) -> Vec<String> {
    let text = |key: &str| container[key].as_str().unwrap_or_default().to_owned();
    let command = text("Command");
    let command =
        if command.chars().count() > 20 { command.chars().take(19).collect::<String>() + "…" } else { command };
    let names = container["Names"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|name| name.trim_start_matches('/'))
        .collect::<Vec<_>>()
        .join(",");
    let created = print::ago(container["Created"].as_i64().unwrap_or_default(), jiff::Timestamp::now());
    vec![id, text("Image"), format!("\"{command}\""), created, text("Status"), ports(container), names]
}

fn ports(container: &Value) -> String {
    let one = |port: &Value| {
        let target = format!("{}/{}", port["PrivatePort"], port["Type"].as_str().unwrap_or("tcp"));
        match port["PublicPort"].as_u64() {
            Some(public) => format!("{}:{public}->{target}", port["IP"].as_str().unwrap_or("0.0.0.0")),
            None => target,
        }
    };
    container["Ports"].as_array().into_iter().flatten().map(one).collect::<Vec<_>>().join(", ")
}

pub(crate) async fn logs(client: &Client, options: &Logs) -> Result<()> {
    let name = escaped(&options.container);
    let tty = client.get(&format!("/containers/{name}/json")).await?["Config"]["Tty"].as_bool().unwrap_or(false);
    let path = format!(
        "/containers/{name}/logs?stdout=1&stderr=1&follow={}&timestamps={}&tail={}",
        u8::from(options.follow),
        u8::from(options.timestamps),
        escaped(&options.tail)
    );
    let request: Request<_> = request(Method::GET, &path, None)?;
    let body = client.checked(request).await?.into_body();
    if !tty {
        let stream = futures_util::StreamExt::filter_map(http_body_util::BodyStream::new(body), |frame| async move {
            match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => Some(Err(std::io::Error::other(error))),
            }
        });
        return multiplex::demultiplex(reader_of(Box::pin(stream))).await;
    }
    let mut body = body;
    let mut stdout = tokio::io::stdout();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            stdout.write_all(&data).await?;
            stdout.flush().await?;
        }
    }
    Ok(())
}

/// The last lines of a container's log, both streams together.
pub(crate) async fn last_lines(client: &Client, name: &str, lines: u32) -> Result<Vec<String>> {
    let name = escaped(name);
    let tty = client.get(&format!("/containers/{name}/json")).await?["Config"]["Tty"].as_bool().unwrap_or(false);
    let path = format!("/containers/{name}/logs?stdout=1&stderr=1&tail={lines}");
    let bytes = client.checked(request(Method::GET, &path, None)?).await?.into_body().collect().await?.to_bytes();
    let text = if tty { bytes.to_vec() } else { multiplex::payloads(&bytes) };
    Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
}

/// A byte stream as a reader.
fn reader_of(
    mut stream: impl futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Unpin + Send + 'static,
) -> tokio::io::DuplexStream {
    let (near, mut far) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        while let Some(Ok(data)) = futures_util::StreamExt::next(&mut stream).await {
            if far.write_all(&data).await.is_err() {
                return;
            }
        }
    });
    near
}

pub(crate) async fn inspect(client: &Client, options: &Inspect) -> Result<u8> {
    let mut found = Vec::new();
    let mut code = 0;
    for name in &options.names {
        let escaped = escaped(name);
        let container = client.get(&format!("/containers/{escaped}/json")).await;
        let either = match container {
            Ok(value) => Ok(value),
            Err(_) => client.get(&format!("/images/{escaped}/json")).await,
        };
        match either {
            Ok(value) => found.push(value),
            Err(_) => {
                eprintln!("Error: No such object: {name}");
                code = 1;
            }
        }
    }
    println!("{}", serde_json::to_string_pretty(&found)?);
    Ok(code)
}

pub(crate) async fn version(client: &Client) -> Result<()> {
    let answer = client.get("/version").await?;
    println!("Client: Gantry {}", env!("CARGO_PKG_VERSION"));
    for key in ["Version", "ApiVersion", "MinAPIVersion", "KernelVersion", "Os", "Arch"] {
        println!("{:<16}{}", format!("Server {key}:"), answer[key].as_str().unwrap_or_default());
    }
    Ok(())
}
