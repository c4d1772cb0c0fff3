//! A registry: the OCI distribution protocol 1.1, served from the same content store that images lie in.
//!
//! A blob that a local image needs already is never copied: pushing it is a mount. Repositories, tags and links are
//! records in the store (`index`), and hold what they link. There is no authentication here: it listens on loopback, and
//! mounting content that no repository has is granted to loopback peers alone.

mod blobs;
mod index;
mod manifests;
mod reply;
mod route;
mod uploads;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use reply::{Body, Failure};
use route::Route;

/// Connections served at once; others wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// The registry over one content store. A handle: clones share everything.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    content: content::Store,
    index: index::RepositoryIndex,
    uploads: uploads::Uploads,
}

/// A request, as far as the handlers look at it.
struct Call<'a> {
    request: Request<Incoming>,
    repository: &'a str,
    peer: SocketAddr,
}

impl Registry {
    pub fn open(content: content::Store) -> crate::Result<Self> {
        let index = index::RepositoryIndex::open(&content)?;
        Ok(Self { shared: Arc::new(Shared { content, index, uploads: uploads::Uploads::default() }) })
    }

    /// Serves until the listener fails. Dropping the future ends all connections.
    pub async fn serve(self, listener: TcpListener) -> crate::Result<()> {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let permit = Arc::clone(&permits).acquire_owned().await.map_err(std::io::Error::other)?;
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                // The peer hung up first; out of descriptors: both pass.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => continue,
                Err(error) if matches!(error.raw_os_error(), Some(23 | 24)) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let registry = self.clone();
            connections.spawn(async move {
                let _permit = permit;
                registry.connection(stream, peer).await;
            });
        }
    }

    async fn connection(&self, stream: tokio::net::TcpStream, peer: SocketAddr) {
        let _ = stream.set_nodelay(true);
        let service =
            hyper::service::service_fn(|request| async move { Ok::<_, Infallible>(self.handle(request, peer).await) });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = served.await {
            tracing::debug!(%peer, %error, "registry connection ended");
        }
    }

    /// Answers one request.
    async fn handle(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let head = request.method() == Method::HEAD;
        let mut response = self.dispatch(request, peer).await.unwrap_or_else(Failure::into_response);
        if head {
            // The headers are those of GET, the body is not sent.
            *response.body_mut() = reply::empty();
        }
        response
            .headers_mut()
            .insert("docker-distribution-api-version", http::HeaderValue::from_static("registry/2.0"));
        response
    }

    async fn dispatch(&self, request: Request<Incoming>, peer: SocketAddr) -> Result<Response<Body>, Failure> {
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let route = Route::parse(&path)?;
        let repository = route.repository().unwrap_or_default().to_owned();
        let call = Call { request, repository: &repository, peer };
        match (route, method) {
            (Route::Base, Method::GET | Method::HEAD) => Ok(reply::json(200, &serde_json::json!({}))),
            (Route::Catalog, Method::GET) => self.catalog(&call),
            (Route::Tags { .. }, Method::GET) => self.tags(&call),
            (Route::Referrers { digest, .. }, Method::GET) => self.referrers(&call, &digest),
            (Route::Manifest { reference, .. }, Method::GET | Method::HEAD) => self.get_manifest(&call, &reference),
            (Route::Manifest { reference, .. }, Method::PUT) => self.put_manifest(call, &reference).await,
            (Route::Manifest { reference, .. }, Method::DELETE) => self.delete_manifest(&call, &reference),
            (Route::Blob { digest, .. }, Method::GET | Method::HEAD) => self.get_blob(&call, &digest),
            (Route::Blob { digest, .. }, Method::DELETE) => self.delete_blob(&call, &digest),
            (Route::Uploads { .. }, Method::POST) => self.start_upload(call).await,
            (Route::Upload { id, .. }, Method::PATCH) => self.continue_upload(call, &id).await,
            (Route::Upload { id, .. }, Method::PUT) => self.finish_upload(call, &id).await,
            (Route::Upload { id, .. }, Method::GET) => self.upload_status(&call, &id).await,
            (Route::Upload { id, .. }, Method::DELETE) => self.cancel_upload(&id),
            (_, method) => Err(Failure::new(405, "UNSUPPORTED", format!("method {method} is not allowed here"))),
        }
    }
}

impl Call<'_> {
    /// A parameter of the query, percent-decoded.
    fn query(&self, name: &str) -> Option<String> {
        let query = self.request.uri().query()?;
        let value = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1;
        Some(route::percent_decode(value))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name)?.to_str().ok()
    }
}
