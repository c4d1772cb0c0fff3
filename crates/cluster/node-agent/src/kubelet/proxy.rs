//! Exec, attach and port-forward: the client's connection is led to the runtime's streaming URL, byte by byte.
//!
//! As in Kubernetes' kubelet, so client and runtime agree on the protocol between themselves. Invariant: the pod and
//! container in the path must be this node's own; what the runtime refuses comes back as it said it.

use std::convert::Infallible;

use bytes::Bytes;
use cri::v1;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Door, Reply, paths, plain};

/// What of a refusal is handed on.
const REFUSAL_LIMIT: usize = 64 * 1024;

impl Door {
    pub(super) async fn session(&self, exec: bool, place: (&str, &str, &str), request: Request<Incoming>) -> Reply {
        let (namespace, name, container) = place;
        let Some(pod) = self.pod(namespace, name) else {
            return plain(StatusCode::NOT_FOUND, format!("pod {name:?} does not exist"));
        };
        let id = match self.agent.running(&pod, container).await {
            Ok(id) => id,
            Err(error) => return plain(StatusCode::NOT_FOUND, error.message),
        };
        let query = paths::pairs(request.uri().query().unwrap_or_default());
        // Kubernetes' own names here are input, output, error; the API server's are accepted too.
        let flag = |names: &[&str]| paths::flag(&query, names);
        let (stdin, stdout) = (flag(&["input", "stdin"]), flag(&["output", "stdout"]));
        let tty = flag(&["tty"]);
        let stderr = flag(&["error", "stderr"]) && !tty;
        let url = if exec {
            let cmd = query.iter().filter(|(key, _)| key == "command").map(|(_, value)| value.clone()).collect();
            self.cri.exec_url(v1::ExecRequest { container_id: id, cmd, tty, stdin, stdout, stderr }).await
        } else {
            self.cri.attach_url(v1::AttachRequest { container_id: id, tty, stdin, stdout, stderr }).await
        };
        lead(url, request).await
    }

    pub(super) async fn forward(&self, namespace: &str, name: &str, request: Request<Incoming>) -> Reply {
        let Some(pod) = self.pod(namespace, name) else {
            return plain(StatusCode::NOT_FOUND, format!("pod {name:?} does not exist"));
        };
        let sandbox = match self.agent.ready_sandbox(&pod).await {
            Ok(sandbox) => sandbox,
            Err(error) => return plain(StatusCode::NOT_FOUND, error.message),
        };
        let query = request.uri().query().unwrap_or_default().to_owned();
        let wanted = v1::PortForwardRequest { pod_sandbox_id: sandbox, port: Vec::new() };
        // The ports travel in the query, which the runtime reads.
        let url = self.cri.forward_url(wanted).await.map(|url| format!("{url}?{query}"));
        lead(url, request).await
    }
}

async fn lead(url: cri::Result<String>, request: Request<Incoming>) -> Reply {
    match url {
        Ok(url) => join(&url, request)
            .await
            .unwrap_or_else(|why| plain(StatusCode::BAD_GATEWAY, format!("streaming of the runtime: {why}"))),
        Err(error @ cri::CriError::InvalidArgument(_)) => plain(StatusCode::BAD_REQUEST, error.to_string()),
        Err(error @ cri::CriError::NotFound(_)) => plain(StatusCode::NOT_FOUND, error.to_string()),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn join(url: &str, mut request: Request<Incoming>) -> Result<Reply, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let address = url.strip_prefix("http://").ok_or_else(|| format!("{url} is not http"))?;
    let (host, path) = address.split_once('/').ok_or_else(|| format!("{url} has no path"))?;
    let dialled = host.replace("[::]", "127.0.0.1").replace("0.0.0.0", "127.0.0.1");
    let stream = TcpStream::connect(&dialled).await.map_err(|error| words(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| words(&error))?;
    tokio::spawn(connection.with_upgrades());
    let mut onward = Request::builder().method(request.method()).uri(format!("/{path}"));
    for (name, value) in request.headers() {
        // The client's credentials are for the node, not for the runtime.
        if name != header::AUTHORIZATION && name != header::HOST {
            onward = onward.header(name, value);
        }
    }
    let onward = onward.header(header::HOST, host).body(Empty::<Bytes>::new()).map_err(|error| words(&error))?;
    let ours = hyper::upgrade::on(&mut request);
    let mut answer = sender.send_request(onward).await.map_err(|error| words(&error))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let body = Limited::new(answer.into_body(), REFUSAL_LIMIT).collect().await.map_err(|error| words(&error))?;
        return Ok(plain(status, String::from_utf8_lossy(&body.to_bytes()).into_owned()));
    }
    let theirs = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        if let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) {
            // How a session ends is between its two sides.
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await;
        }
    });
    let mut reply = Response::new(Empty::<Bytes>::new().map_err(|never: Infallible| match never {}).boxed_unsync());
    *reply.status_mut() = answer.status();
    *reply.headers_mut() = answer.headers().clone();
    Ok(reply)
}
