//! The kubelet's HTTPS API: pods, stats, metrics, logs, exec, attach, port-forward.
//!
//! The binary hands in a listener and the TLS set-up; [`serve`] runs beside the agent. Invariants: every request is
//! authenticated (a client certificate of the cluster's CA, or a token that the API server accepts) and authorised by a
//! SubjectAccessReview, in the attributes that Kubernetes' kubelet asks about; connections and requests are bounded.

mod access;
mod metrics;
mod paths;
mod proxy;
mod summary;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Frame, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

use crate::agent::NodeAgent;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;
pub(super) type Reply = Response<Body>;

const MAX_CONNECTIONS: usize = 1000;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);

/// What the API is served with.
#[derive(Debug)]
pub struct KubeletServer {
    /// Usually port 10250.
    pub listener: TcpListener,
    /// The node's certificate; client certificates of the cluster's CA are asked for and not demanded.
    pub tls: Arc<rustls::ServerConfig>,
    /// The runtime's CRI socket, whose streaming URLs exec, attach and port-forward are led to.
    pub cri_socket: std::path::PathBuf,
}

struct Door {
    agent: NodeAgent,
    cri: cri::RemoteCri,
    access: access::Access,
}

pub(super) fn text(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()).boxed_unsync());
    *reply.status_mut() = code;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    reply
}

fn plain(code: StatusCode, body: impl Into<String>) -> Reply {
    text(code, "text/plain; charset=utf-8", body.into())
}

fn json(value: &serde_json::Value) -> Reply {
    text(StatusCode::OK, "application/json", value.to_string())
}

/// Serves until the task is dropped.
pub async fn serve(agent: NodeAgent, server: KubeletServer) {
    let access = access::Access::new(agent.shared.config.client.clone(), &agent.shared.node.facts.name);
    let door = Arc::new(Door { agent, cri: cri::RemoteCri::new(&server.cri_socket), access });
    let acceptor = TlsAcceptor::from(server.tls);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = match server.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors: wait for some to be closed instead of spinning.
                tracing::warn!(%error, "the node's API cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
        let (door, acceptor) = (door.clone(), acceptor.clone());
        connections.spawn(async move {
            connection(door, acceptor, stream).await;
            drop(permit);
        });
    }
}

async fn connection(door: Arc<Door>, acceptor: TlsAcceptor, stream: TcpStream) {
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else { return };
    // rustls verified the chain; only what it says is read here.
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| access::of_certificate(chain.first()?));
    let service = service_fn(move |request| {
        let (door, certificate) = (door.clone(), certificate.clone());
        async move { Ok::<_, Infallible>(door.answer(certificate, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(100);
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the node's API ended");
    }
}

impl Door {
    async fn answer(&self, certificate: Option<access::User>, request: Request<Incoming>) -> Reply {
        let user = match certificate {
            Some(user) => user,
            None => match self.access.of_token(request.headers()).await {
                Some(user) => user,
                None => return plain(StatusCode::UNAUTHORIZED, "Unauthorized"),
            },
        };
        let wanted = access::attributes(request.method(), request.uri().path());
        if let Err(refusal) = self.access.allows(&user, &wanted).await {
            return plain(StatusCode::FORBIDDEN, refusal);
        }
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let reading = matches!(*request.method(), http::Method::GET | http::Method::HEAD);
        match parts.as_slice() {
            ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] if reading => plain(StatusCode::OK, "ok"),
            ["pods" | "runningpods"] if reading => json(&self.pods(parts[0] == "runningpods")),
            ["configz"] if reading => json(&self.config()),
            ["stats", "summary"] if reading => match summary::summary(&self.agent.shared).await {
                Ok(summary) => json(&summary),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            ["metrics", more @ ..] if reading => self.metrics(more).await,
            ["containerLogs", namespace, pod, container] if reading => {
                self.logs(namespace, pod, container, request.uri().query().unwrap_or_default()).await
            }
            ["exec" | "attach", namespace, pod, container]
            | ["exec" | "attach", namespace, pod, _, container] => {
                self.session(parts[0] == "exec", (namespace, pod, container), request).await
            }
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
                self.forward(namespace, pod, request).await
            }
            _ if !reading => plain(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"),
            _ => plain(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }

    fn pods(&self, running: bool) -> serde_json::Value {
        let pods = self.agent.shared.pods.list();
        let is_running = |pod: &k8s_openapi::api::core::v1::Pod| {
            pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        };
        let items: Vec<&k8s_openapi::api::core::v1::Pod> =
            pods.iter().map(AsRef::as_ref).filter(|pod| !running || is_running(pod)).collect();
        serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
    }

    /// What of a kubelet's configuration this agent has, in its field names.
    fn config(&self) -> serde_json::Value {
        let config = &self.agent.shared.config;
        let dns: Vec<&String> = config.cluster_dns.iter().collect();
        serde_json::json!({"kubeletconfig": {
            "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "address": "0.0.0.0", "port": 10250, "clusterDomain": config.cluster_domain, "clusterDNS": dns,
            "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}},
            "authorization": {"mode": "Webhook"},
            "maxPods": crate::node::MAX_PODS, "cgroupDriver": "cgroupfs", "cgroupRoot": config.cgroup_parent,
            "containerLogMaxSize": "10Mi", "containerLogMaxFiles": 5,
            "nodeStatusReportFrequency": "5m0s", "nodeLeaseDurationSeconds": 40,
            "evictionHard": crate::pressure::thresholds(),
        }})
    }

    async fn metrics(&self, which: &[&str]) -> Reply {
        let shared = &self.agent.shared;
        let written = match which {
            [] => Ok(metrics::own(shared).await),
            ["resource"] => metrics::resource(shared).await,
            ["cadvisor"] => metrics::cadvisor(shared).await,
            ["probes"] => Ok(String::new()),
            _ => return plain(StatusCode::NOT_FOUND, "404 page not found"),
        };
        match written {
            Ok(body) => text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    async fn logs(&self, namespace: &str, pod: &str, container: &str, query: &str) -> Reply {
        use kube_client::node::NodeGateway;
        let Some(pod) = self.pod(namespace, pod) else {
            return plain(StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist\n"));
        };
        let options = match paths::log_options(container, query) {
            Ok(options) => options,
            Err(why) => return plain(StatusCode::UNPROCESSABLE_ENTITY, why),
        };
        match self.agent.logs(pod, options).await {
            Ok(output) => {
                let frames = output.map(|chunk| {
                    let bytes = chunk.unwrap_or_else(|error| Bytes::from(format!("{error}\n")));
                    Ok::<_, Infallible>(Frame::data(bytes))
                });
                let mut reply = Response::new(StreamBody::new(frames).boxed_unsync());
                let kind = header::HeaderValue::from_static("text/plain");
                reply.headers_mut().insert(header::CONTENT_TYPE, kind);
                reply
            }
            Err(error) => {
                let code = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                plain(code, error.message)
            }
        }
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<kube_client::node::PodRef> {
        let pod = self.agent.shared.pods.get(namespace, name)?;
        Some(kube_client::node::PodRef {
            node: self.agent.shared.node.facts.name.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: pod.metadata.uid.clone()?,
        })
    }
}
