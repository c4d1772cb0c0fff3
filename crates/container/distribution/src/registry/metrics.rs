//! Counters of a registry, in the text form that Prometheus reads, on a listener of their own.
//!
//! Counting costs one atomic addition. What can be asked of the stores (uploads, repositories) is asked when read.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::Registry;
use super::reply::{self, Body};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "other"];
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

#[derive(Default)]
pub(super) struct Metrics {
    requests: [[AtomicU64; CLASSES.len()]; METHODS.len()],
    pub(super) received_bytes: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) collections: AtomicU64,
    pub(super) collected_blobs: AtomicU64,
    pub(super) collected_bytes: AtomicU64,
}

impl Metrics {
    pub(super) fn answered(&self, method: &Method, status: StatusCode) {
        let method = METHODS.iter().position(|m| *m == method.as_str()).unwrap_or(METHODS.len() - 1);
        let class = usize::from(status.as_u16() / 100).saturating_sub(2).min(CLASSES.len() - 1);
        self.requests[method][class].fetch_add(1, Ordering::Relaxed);
    }

    fn text(&self, registry: &Registry) -> String {
        let mut out = String::new();
        head(&mut out, "gantry_registry_requests_total", "counter", "Requests answered.");
        for (m, method) in METHODS.iter().enumerate() {
            for (c, class) in CLASSES.iter().enumerate() {
                let count = self.requests[m][c].load(Ordering::Relaxed);
                if count > 0 {
                    let _ =
                        writeln!(out, "gantry_registry_requests_total{{method=\"{method}\",code=\"{class}\"}} {count}");
                }
            }
        }
        let counters = [
            ("received_bytes_total", "Bytes of blobs received.", &self.received_bytes),
            ("sent_bytes_total", "Bytes of blobs sent.", &self.sent_bytes),
            ("collections_total", "Garbage collections.", &self.collections),
            ("collected_blobs_total", "Blobs that collections removed.", &self.collected_blobs),
            ("collected_bytes_total", "Bytes that collections gave back.", &self.collected_bytes),
        ];
        for (name, help, counter) in counters {
            one(&mut out, name, "counter", help, counter.load(Ordering::Relaxed));
        }
        let shared = &registry.shared;
        one(&mut out, "uploads", "gauge", "Uploads in progress.", shared.uploads.count());
        let repositories = shared.index.repositories().len() as u64;
        one(&mut out, "repositories", "gauge", "Repositories with a manifest.", repositories);
        out
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn one(out: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    let name = format!("gantry_registry_{name}");
    head(out, &name, kind, help);
    let _ = writeln!(out, "{name} {value}");
}

impl Registry {
    /// Serves `/metrics` until the listener fails.
    pub async fn serve_metrics(self, listener: TcpListener) -> crate::Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            let registry = self.clone();
            // One scraper at a time: they are few and the answer is small.
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let registry = registry.clone();
                async move { Ok::<_, Infallible>(registry.metrics_answer(request.uri().path())) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(std::time::Duration::from_secs(10), served).await;
        }
    }

    fn metrics_answer(&self, path: &str) -> Response<Body> {
        if path != "/metrics" {
            return reply::status(404, &[]);
        }
        let text = self.shared.metrics.text(self);
        reply::with_body(200, &[("content-type", "text/plain; version=0.0.4")], reply::bytes(text))
    }
}
