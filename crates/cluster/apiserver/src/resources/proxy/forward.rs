//! One proxied request: connect, send, answer; for an upgrade, bytes both ways afterwards.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, future};
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kube_types::status;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::Place;
use crate::body::Body;
use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::respond::Reply;
use crate::websocket::{has_token, header};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// `rest` is the path to ask for, `prefix` what stood before it in the client's.
pub(super) async fn forward(call: &Call, place: &Place, rest: &str, prefix: &str) -> ApiResult<Reply> {
    let wire = connect(place).await?;
    let failed = |error: hyper::Error| {
        let text = format!("error trying to reach service: {error}");
        ApiError::from(status::service_unavailable(&text))
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await.map_err(failed)?;
    let mut closing = call.server.closing();
    // Ends with the answer's body, or with the upgraded connection.
    tokio::spawn(async move {
        tokio::select! {
            result = connection.with_upgrades() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "proxied connection ended");
                }
            }
            _ = closing.wait_for(|closing| *closing) => {}
        }
    });
    let upgrades = has_token(header(call, &CONNECTION), "upgrade");
    let request = request(call, place, rest, prefix, upgrades)?;
    let response = sender.send_request(request).await.map_err(failed)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && upgrades {
        return switch(call, response);
    }
    let (mut parts, body) = response.into_parts();
    strip_hops(&mut parts.headers, false);
    rewrite_location(&mut parts.headers, place, prefix);
    // The sender must outlive the body: dropping it would end the connection early.
    let chunks = body.into_data_stream().take_while(|chunk| future::ready(chunk.is_ok())).filter_map(move |chunk| {
        let _held = &sender;
        future::ready(chunk.ok())
    });
    Ok(Response::from_parts(parts, Body::stream(chunks)))
}

async fn connect(place: &Place) -> ApiResult<Box<dyn Wire>> {
    let unreachable = |error: &dyn std::fmt::Display| {
        let text = format!("error trying to reach service: dial tcp {}: {error}", place.address);
        ApiError::from(status::service_unavailable(&text))
    };
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(place.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(&error)),
        Err(_) => return Err(unreachable(&"i/o timeout")),
    };
    if !place.tls {
        return Ok(Box::new(stream));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(status::internal)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let name = ServerName::from(place.address.ip());
    let connecting = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream);
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(unreachable(&error)),
        Err(_) => Err(unreachable(&"TLS handshake timeout")),
    }
}

fn request(call: &Call, place: &Place, rest: &str, prefix: &str, upgrades: bool) -> ApiResult<Request<Full<Bytes>>> {
    let uri = match &call.raw_query {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    let mut headers = call.headers.clone();
    strip_hops(&mut headers, upgrades);
    headers.remove(AUTHORIZATION);
    let impersonation: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        headers.remove(name);
    }
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert("x-forwarded-host", host);
    }
    headers.insert("x-forwarded-uri", header_text(&format!("{prefix}{rest}"))?);
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    headers.insert(HOST, header_text(&place.address.to_string())?);
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri.parse().map_err(|_| status::bad_request(format!("invalid path {uri:?}")))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// A value of ours as a header.
fn header_text(value: &str) -> ApiResult<HeaderValue> {
    HeaderValue::from_str(value).map_err(|error| status::bad_request(error.to_string()).into())
}

/// Removes what is between two neighbours only; an upgrade keeps the two headers that ask for it.
fn strip_hops(headers: &mut HeaderMap, upgrades: bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let kept = upgrades.then(|| headers.get(UPGRADE).cloned()).flatten();
    for name in named.into_iter().chain([CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE]) {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"] {
        headers.remove(name);
    }
    if let Some(kept) = kept {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, kept);
    }
}

/// A redirect within the target leads through the proxy again.
fn rewrite_location(headers: &mut HeaderMap, place: &Place, prefix: &str) {
    let Some(location) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) else { return };
    let scheme = if place.tls { "https" } else { "http" };
    let own = format!("{scheme}://{}", place.address);
    let path = location.strip_prefix(&own).unwrap_or(location);
    if path.starts_with('/')
        && !path.starts_with("//")
        && let Ok(rewritten) = HeaderValue::from_str(&format!("{prefix}{path}"))
    {
        headers.insert(LOCATION, rewritten);
    }
}

fn switch(call: &Call, response: Response<Incoming>) -> ApiResult<Reply> {
    let near = call.take_upgrade().ok_or_else(|| status::bad_request("this connection cannot be upgraded"))?;
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *reply.headers_mut() = response.headers().clone();
    let far = hyper::upgrade::on(response);
    let mut closing = call.server.closing();
    tokio::spawn(async move {
        let (Ok(near), Ok(far)) = tokio::join!(near, far) else { return };
        let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
        tokio::select! {
            result = tokio::io::copy_bidirectional(&mut near, &mut far) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "proxied stream ended");
                }
            }
            _ = closing.wait_for(|closing| *closing) => {}
        }
    });
    Ok(reply)
}

/// Pods' own certificates are nobody's business here: the address is known to be the pod's, as Kubernetes argues too.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
