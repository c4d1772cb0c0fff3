//! A real HTTPS server that plays webhooks: it answers what the test's function says, or never.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

type Answer = dyn Fn(&str, &Value) -> Value + Send + Sync;

pub(crate) struct HookServer {
    pub(crate) address: SocketAddr,
    /// Base64 of PEM, as `caBundle` wants it.
    pub(crate) bundle: String,
    /// Every request: path with query, headers, body.
    pub(crate) seen: Arc<Mutex<Vec<(String, http::HeaderMap, Value)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for HookServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HookServer {
    /// A body below `/hang` is never answered.
    pub(crate) async fn start(answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Self {
        let names = vec!["127.0.0.1".to_owned(), "hook.default.svc".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a usable certificate");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let bundle = base64::engine::general_purpose::STANDARD.encode(made.cert.pem());
        let seen = Arc::new(Mutex::default());
        let (acceptor, answer): (_, Arc<Answer>) = (TlsAcceptor::from(Arc::new(config)), Arc::new(answer));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (acceptor, answer, log) = (acceptor.clone(), Arc::clone(&answer), Arc::clone(&log));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| respond(request, Arc::clone(&answer), Arc::clone(&log)));
                    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    let _ended = connection.await;
                });
            }
        });
        Self { address, bundle, seen, task }
    }

    pub(crate) fn config(&self, path: &str) -> Value {
        json!({"url": format!("https://{}{path}", self.address), "caBundle": self.bundle})
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().expect("unpoisoned").len()
    }

    pub(crate) fn last(&self) -> (String, http::HeaderMap, Value) {
        self.seen.lock().expect("unpoisoned").last().cloned().expect("a request")
    }
}

type Log = Arc<Mutex<Vec<(String, http::HeaderMap, Value)>>>;

async fn respond(request: Request<Incoming>, answer: Arc<Answer>, log: Log) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().to_string();
    let headers = request.headers().clone();
    let body = request.into_body().collect().await?.to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    log.lock().expect("unpoisoned").push((path.clone(), headers, body.clone()));
    if path.starts_with("/hang") {
        std::future::pending::<()>().await;
    }
    let mut reply = Response::new(Full::from(answer(&path, &body).to_string()));
    reply.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    Ok(reply)
}

/// The AdmissionReview that answers `review`.
pub(crate) fn reviewed(review: &Value, mut response: Value) -> Value {
    response["uid"] = review["request"]["uid"].clone();
    json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response})
}

pub(crate) fn patch(operations: &Value) -> Value {
    let encoded = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": encoded})
}
