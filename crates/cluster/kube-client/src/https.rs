//! The HTTPS transport, for parts that run in another process than the API server.
//!
//! Made by `Client::from_kubeconfig`. Invariant: a connection is only made to a server whose certificate the given
//! authority signed. HTTP/1.1 with a pool: each watch has a connection of its own, so that none can stall another.

use crate::kubeconfig::Endpoint;
use crate::node::Duplex;
use crate::{Body, ClientError, Transport};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

pub(crate) struct HttpsTransport {
    client: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    server: String,
    token: Option<http::HeaderValue>,
}

impl HttpsTransport {
    pub(crate) fn new(endpoint: Endpoint) -> Result<Self, ClientError> {
        let server = endpoint.server.trim_end_matches('/').to_owned();
        let token = endpoint.token.as_deref().map(bearer).transpose()?;
        let tls = tls_config(endpoint)?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        Ok(HttpsTransport { client: HttpClient::builder(TokioExecutor::new()).build(connector), server, token })
    }
}

fn bearer(token: &str) -> Result<http::HeaderValue, ClientError> {
    let mut value = http::HeaderValue::try_from(format!("Bearer {}", token.trim()))
        .map_err(|_| ClientError::InvalidRequest("the token cannot be sent in a header".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls_config(endpoint: Endpoint) -> Result<ClientConfig, ClientError> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| ClientError::InvalidRequest(format!("{what}: {error}"));
    let mut roots = RootCertStore::empty();
    for certificate in certificates(endpoint.authority.as_deref().unwrap_or_default())? {
        roots.add(certificate).map_err(|e| wrong("the certificate authority", &e))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong("TLS", &e))?
        .with_root_certificates(roots);
    match (endpoint.certificate, endpoint.key) {
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| wrong("the client key", &e))?;
            let chain = certificates(&certificate)?;
            builder.with_client_auth_cert(chain, key).map_err(|e| wrong("the client certificate", &e))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(ClientError::InvalidRequest("a client certificate and its key come together".into())),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.map_err(|error| ClientError::InvalidRequest(format!("a certificate cannot be read: {error}")))
}

impl HttpsTransport {
    /// Sends the request to the server, whatever it answers.
    async fn request(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<hyper::body::Incoming>, ClientError> {
        let (mut parts, body) = request.into_parts();
        let failed = {
            let (method, uri) = (parts.method.to_string(), parts.uri.to_string());
            move |reason: String| ClientError::Transport { method, uri, reason }
        };
        let target = format!("{}{}", self.server, parts.uri);
        parts.uri = match target.parse() {
            Ok(uri) => uri,
            Err(error) => return Err(failed(format!("{target}: {error}"))),
        };
        if let Some(token) = &self.token {
            parts.headers.insert(http::header::AUTHORIZATION, token.clone());
        }
        let answer = self.client.request(http::Request::from_parts(parts, Full::new(body))).await;
        answer.map_err(|error| failed(chain(&error)))
    }
}

impl Transport for HttpsTransport {
    fn call(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, ClientError>> {
        Box::pin(async move {
            let answer = self.request(request).await?;
            Ok(answer.map(|body| {
                Body::from_stream(futures_util::TryStreamExt::map_err(body.into_data_stream(), |error| {
                    ClientError::Transport {
                        method: String::new(),
                        uri: "the answer's body".into(),
                        reason: chain(&error),
                    }
                }))
            }))
        })
    }

    fn upgrade(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<Box<dyn Duplex>, ClientError>> {
        Box::pin(async move {
            let (method, uri) = (request.method().to_string(), request.uri().to_string());
            let answer = self.request(request).await?;
            let code = answer.status();
            if code != http::StatusCode::SWITCHING_PROTOCOLS {
                let body = http_body_util::Limited::new(answer.into_body(), crate::client::ERROR_BYTES);
                let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                return Err(ClientError::Status(Box::new(crate::client::read_status(code, &bytes))));
            }
            let upgraded = hyper::upgrade::on(answer).await;
            let upgraded = upgraded.map_err(|error| ClientError::Transport { method, uri, reason: chain(&error) })?;
            Ok(Box::new(hyper_util::rt::TokioIo::new(upgraded)) as Box<dyn Duplex>)
        })
    }
}

/// The whole story of an error: the outermost says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
