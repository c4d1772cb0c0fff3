//! A registry: the OCI distribution protocol 1.1, served from the same content store that images lie in.
//!
//! A blob that a local image needs already is never copied: pushing it is a mount. Repositories, tags and links are
//! records in the store (`index`), and hold what they link. Without accounts it asks nobody who calls (it should then
//! listen on loopback), and content that no repository has may be mounted by loopback peers; with accounts (`guard`)
//! every request and both sides of a mount are authorised.

mod access;
mod accounts;
mod blobs;
mod collect;
mod guard;
mod index;
mod manifests;
mod metrics;
mod reply;
mod route;
pub mod tls;
mod token;
mod uploads;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::error::Error;
use guard::{Caller, Guard};
use reply::{Body, Failure};
use route::Route;

pub use access::{Action, Rights, RightsError};
pub use collect::Swept;
pub use guard::Scheme;

/// Connections served at once; others wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Ample for a slow client's handshake, short for one that only wants to hold a place.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const LINK_GRACE: Duration = Duration::from_secs(3600);

/// How a registry behaves. The default asks nobody and takes everything.
#[derive(Clone)]
pub struct Config {
    /// Takes no pushes and no deletions.
    pub read_only: bool,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// How long an uploaded blob may wait for its manifest before a collection takes it.
    pub link_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { read_only: false, tls: None, link_grace: LINK_GRACE }
    }
}

/// Accounts of a registry that asks who calls.
#[derive(Clone, Debug)]
pub struct Login<'a> {
    /// An htpasswd file with bcrypt hashes.
    pub htpasswd: &'a Path,
    pub rights: Rights,
    pub scheme: Scheme,
}

/// Marks requests that came over TLS.
#[derive(Clone, Copy)]
struct Secure;

/// The registry over one content store. A handle: clones share everything.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    content: content::Store,
    index: index::RepositoryIndex,
    uploads: uploads::Uploads,
    config: Config,
    guard: Option<Guard>,
    recent: collect::Recent,
    metrics: metrics::Metrics,
}

/// A request, as far as the handlers look at it.
struct Call<'a> {
    request: Request<Incoming>,
    repository: &'a str,
    peer: SocketAddr,
    caller: Caller,
}

impl Registry {
    pub fn open(content: content::Store) -> crate::Result<Self> {
        Self::with_config(content, Config::default(), None)
    }

    pub fn with_config(content: content::Store, config: Config, login: Option<Login<'_>>) -> crate::Result<Self> {
        let no_random = || Error::Io(std::io::Error::other("no random numbers to be had"));
        let guard = match login {
            Some(Login { htpasswd, rights, scheme }) => Some(Guard {
                accounts: accounts::Accounts::open(htpasswd)?,
                rights,
                scheme,
                tokens: token::Tokens::new().ok_or_else(no_random)?,
            }),
            None => None,
        };
        let index = index::RepositoryIndex::open(&content)?;
        let shared = Shared {
            content,
            index,
            uploads: uploads::Uploads::default(),
            config,
            guard,
            recent: collect::Recent::default(),
            metrics: metrics::Metrics::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Serves until the listener fails. Dropping the future ends all connections.
    pub async fn serve(self, listener: TcpListener) -> crate::Result<()> {
        tokio::select! {
            () = self.collector() => Ok(()),
            ended = self.accept(listener) => ended,
        }
    }

    async fn accept(&self, listener: TcpListener) -> crate::Result<()> {
        let acceptor = self.shared.config.tls.clone().map(tokio_rustls::TlsAcceptor::from);
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
            let (registry, acceptor) = (self.clone(), acceptor.clone());
            connections.spawn(async move {
                let _permit = permit;
                let _ = stream.set_nodelay(true);
                match acceptor {
                    None => registry.connection(stream, peer, false).await,
                    Some(acceptor) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => registry.connection(stream, peer, true).await,
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                    },
                }
            });
        }
    }

    async fn connection(&self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr, secure: bool) {
        let service = hyper::service::service_fn(|mut request: Request<Incoming>| async move {
            if secure {
                request.extensions_mut().insert(Secure);
            }
            Ok::<_, Infallible>(self.handle(request, peer).await)
        });
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
        let method = request.method().clone();
        let mut response = self.dispatch(request, peer).await.unwrap_or_else(Failure::into_response);
        self.shared.metrics.answered(&method, response.status());
        if method == Method::HEAD {
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
        if path == "/token" {
            return self.token(request).await;
        }
        let route = Route::parse(&path)?;
        let repository = route.repository().unwrap_or_default().to_owned();
        let caller = self.admit(&request, &route).await?;
        let call = Call { request, repository: &repository, peer, caller };
        match (route, method) {
            (Route::Base, Method::GET | Method::HEAD) => Ok(reply::json(200, &serde_json::json!({}))),
            (Route::Catalog, Method::GET) => self.catalog(&call),
            (Route::Search, Method::GET) => self.search(&call),
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
            (Route::Upload { id, .. }, Method::DELETE) => self.cancel_upload(&call, &id),
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
