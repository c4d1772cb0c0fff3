//! `exec` over WebSocket: subprotocol `v5.channel.k8s.io`, one byte of channel before each message.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::access::{Access, escaped};
use super::cli::Exec;
use super::resource;

const PROTOCOL: &str = "v5.channel.k8s.io";
// The channels of the protocol.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
/// In v5: the channel named after it is closed.
const CLOSE: u8 = 255;

pub(crate) async fn run(access: &Access, options: &Exec) -> Result<u8> {
    let namespace = options.namespace.name();
    let pod = access.pod_of(&options.target, namespace).await?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let container = match &options.container {
        Some(container) => container.clone(),
        None => pod["spec"]["containers"][0]["name"].as_str().unwrap_or_default().to_owned(),
    };
    let mut path = format!(
        "{}/exec?container={}&stdin={}&stdout=true&stderr={}&tty={}",
        resource::path(resource::find("pods")?, Some(namespace), Some(name)),
        escaped(&container),
        options.stdin,
        !options.tty,
        options.tty
    );
    for word in &options.command {
        path.push_str(&format!("&command={}", escaped(word)));
    }
    let request = Request::get(path)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", tokio_tungstenite::tungstenite::handshake::client::generate_key())
        .header("sec-websocket-protocol", PROTOCOL)
        .body(Bytes::new())?;
    let stream = access.client.upgrade(request).await?;
    let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    let _raw = if options.tty && options.stdin { Some(crate::docker_terminal()?) } else { None };
    converse(socket, options.stdin).await
}

async fn converse(
    socket: WebSocketStream<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static>,
    stdin: bool,
) -> Result<u8> {
    let (mut sink, mut source) = socket.split();
    let input = tokio::spawn(async move {
        let mut buffer = vec![0u8; 32 << 10];
        let mut from = tokio::io::stdin();
        loop {
            if !stdin {
                break;
            }
            let read = from.read(&mut buffer).await.unwrap_or(0);
            let message = if read == 0 { vec![CLOSE, STDIN] } else { [&[STDIN], &buffer[..read]].concat() };
            if sink.send(Message::binary(message)).await.is_err() || read == 0 {
                break;
            }
        }
        // The sink lives until the session ends: dropping it would close the connection.
        std::future::pending::<()>().await;
    });
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let mut outcome = None;
    while let Some(message) = source.next().await {
        let data = match message.context("the connection to the container broke")? {
            Message::Binary(data) => data,
            Message::Close(_) => break,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        let Some((channel, payload)) = data.split_first() else { continue };
        match *channel {
            STDOUT => {
                stdout.write_all(payload).await?;
                stdout.flush().await?;
            }
            STDERR => {
                stderr.write_all(payload).await?;
                stderr.flush().await?;
            }
            ERROR => outcome = Some(serde_json::from_slice::<Value>(payload).context("the exit status is not JSON")?),
            _ => {}
        }
    }
    input.abort();
    match outcome {
        Some(status) => exit_code(&status),
        None => bail!("the connection ended before the command did"),
    }
}

/// The Status that ends a session: success, or a failure whose cause names the exit code.
fn exit_code(status: &Value) -> Result<u8> {
    if status["status"] == "Success" {
        return Ok(0);
    }
    let causes = status["details"]["causes"].as_array();
    let code = causes
        .into_iter()
        .flatten()
        .find(|cause| cause["reason"] == "ExitCode")
        .and_then(|cause| cause["message"].as_str()?.parse().ok());
    match code {
        Some(code) => {
            eprintln!("command terminated with exit code {code}");
            Ok(code)
        }
        None => bail!("error: {}", status["message"].as_str().unwrap_or("the command could not be run")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_exit_code_comes_from_the_status_causes() {
        let failed = json!({"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}});
        assert_eq!(exit_code(&failed).unwrap(), 7);
        assert_eq!(exit_code(&json!({"status": "Success"})).unwrap(), 0);
        assert!(exit_code(&json!({"status": "Failure", "message": "no such container"})).is_err());
    }
}
