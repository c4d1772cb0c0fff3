//! The HTTP server on the unix socket, and the table of routes.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    response::{IntoResponse, Response},
};
use http::{Request, Uri};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
};
use tower::Service;

use crate::{Backend, error::ApiError, routes, version};

/// JSON bodies are small; what is large (build contexts, images) is streamed.
const JSON_LIMIT: usize = 4 << 20;
/// A client that does not finish its headers is dropped.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until the listener fails or the future is dropped.
pub async fn serve(listener: UnixListener, backend: Backend) -> std::io::Result<()> {
    let router = router(backend);
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Out of descriptors: others will be given back; anything else ends the server.
            Err(e) if is_out_of_descriptors(&e) => {
                tracing::warn!(error = %e, "no descriptor for a new connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            Err(e) => return Err(e),
        };
        tokio::spawn(connection(stream, router.clone()));
    }
}

/// One client, over whatever it came by.
pub(crate) async fn connection(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(dispatch(router, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .half_close(true)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended");
    }
}

const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

pub(crate) fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| code == EMFILE || code == ENFILE)
}

/// Takes the version off the path, then routes.
async fn dispatch(mut router: Router, mut request: Request<Incoming>) -> Response {
    let path = request.uri().path().to_owned();
    let (version, rest) = match version::split(&path) {
        Ok(split) => split,
        Err(error) => return error.into_response(),
    };
    if rest.len() != path.len() {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        match format!("{rest}{query}").parse::<Uri>() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(_) => return ApiError::bad_request("malformed request path").into_response(),
        }
    }
    request.extensions_mut().insert(version);
    let request = request.map(axum::body::Body::new);
    match router.call(request).await {
        Ok(response) => with_headers(response),
        Err(never) => match never {},
    }
}

/// Headers that clients look at to know whom they talk to.
fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        ("api-version", version::NEWEST.to_string()),
        ("docker-experimental", "false".to_owned()),
        ("ostype", "linux".to_owned()),
        ("server", format!("Docker/{} (linux) Gantry", version::DOCKER)),
    ] {
        if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), value.parse()) {
            headers.insert(name, value);
        }
    }
    response
}

/// All routes, without version prefix.
pub fn router(backend: Backend) -> Router {
    Router::new()
        .merge(routes::system())
        .merge(routes::containers())
        .merge(routes::execs())
        .merge(routes::images())
        .merge(routes::build())
        .merge(routes::networks())
        .merge(routes::volumes())
        .merge(routes::absent())
        .fallback(|| async { ApiError::not_found("page not found") })
        .method_not_allowed_fallback(|| async { ApiError::not_found("page not found") })
        .layer(DefaultBodyLimit::max(JSON_LIMIT))
        .with_state(backend)
}
