//! The HTTPS listener: TLS, HTTP/1.1 and h2 on one port, limits on everything that a stranger can make us hold.
//!
//! Invariant: a connection holds bounded memory: the body is at most 3 MiB, slow headers and silent handshakes are cut
//! off, and no client takes the places of all others (`share`; watches and other streams do not count once they run).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use kube_types::status;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::authn;
use crate::body::Body;
use crate::call::Remote;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::pki::PkiError;
use crate::respond;
use crate::server::ApiServer;
use crate::share::Shares;

const MAX_BODY_BYTES: usize = 3 << 20;
const MAX_CONNECTIONS: usize = 10_000;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(30);

/// Serves HTTPS on `listener` until `shutdown` completes, then ends the streams and lets running requests finish.
pub async fn serve(
    server: Arc<ApiServer>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), PkiError> {
    let acceptor = TlsAcceptor::from(Arc::new(server.pki.server_tls()?));
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let shares = Arc::new(Shares::new());
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, peer),
            Err(error) => {
                // Out of descriptors: wait for some to be closed instead of spinning.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            continue;
        };
        let door = Door { server: Arc::clone(&server), shares: Arc::clone(&shares), remote: Remote(peer.ip()) };
        let (acceptor, watcher) = (acceptor.clone(), graceful.watcher());
        tokio::spawn(async move {
            Box::pin(connection(door, acceptor, stream, watcher)).await;
            drop(permit);
        });
    }
    server.close_streams();
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::info!("some connections were still busy at shutdown");
    }
    Ok(())
}

async fn connection(
    door: Door,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    watcher: hyper_util::server::graceful::Watcher,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake timed out"),
    };
    // rustls verified the chain; only what it says is read here.
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| authn::of_certificate(chain.first()?));
    let door = Arc::new(door);
    let service = service_fn(move |request| {
        let (door, certificate) = (Arc::clone(&door), certificate.clone());
        async move { Ok::<_, Infallible>(door.answer(certificate, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).max_concurrent_streams(250);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection ended");
    }
}

/// Where requests from outside come in.
struct Door {
    server: Arc<ApiServer>,
    shares: Arc<Shares>,
    remote: Remote,
}

impl Door {
    async fn answer(&self, certificate: Option<Identity>, request: Request<Incoming>) -> Response<Body> {
        let user = match authn::identify(&self.server, certificate.as_ref(), request.headers()) {
            Ok(user) => user,
            Err(error) => return respond::failure(&error),
        };
        // The body first: a client that sends it slowly holds nobody's place.
        match read_body(request).await {
            Ok(mut request) => {
                let Some(_place) = self.shares.enter(&user.name).await else {
                    self.server.metrics.rejected.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let text = "Too many requests, please try again later.";
                    return respond::status(&status::too_many_requests(text, 1));
                };
                request.extensions_mut().insert(self.remote);
                self.server.handle(user, request).await
            }
            Err(error) => respond::failure(&error),
        }
    }
}

async fn read_body(request: Request<Incoming>) -> Result<Request<Bytes>, ApiError> {
    let (parts, body) = request.into_parts();
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(Request::from_parts(parts, collected.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(status::too_large(format!("limit is {MAX_BODY_BYTES}")).into())
        }
        Ok(Err(error)) => Err(status::bad_request(format!("reading the request's body: {error}")).into()),
        Err(_) => Err(status::timeout("the request's body did not arrive in time", 0).into()),
    }
}
