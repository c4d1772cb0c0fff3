//! HTTP to registries: scheme, authentication, redirects, bounded answers.
//!
//! A [`Session`] is one repository of one registry with the rights that its calls need. A `401` is answered once with a
//! token or basic credentials; credentials never follow a redirect to another host.

use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::Auth;
use super::auth::{Challenge, TokenReply, percent_encode};
use crate::error::{Error, Result};

pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

const MAX_REDIRECTS: usize = 5;
const MAX_ERROR_BYTES: usize = 64 << 10;

#[derive(Clone)]
pub(super) struct Transport {
    http: HttpClient<HttpsConnector<HttpConnector>, Body>,
    insecure: Arc<Vec<String>>,
}

/// Calls to one registry, with one scope.
pub(super) struct Session {
    transport: Transport,
    base: String,
    scope: Option<String>,
    auth: Option<Auth>,
    /// The `Authorization` header that worked.
    granted: Mutex<Option<String>>,
}

/// An answer, with the URL that gave it.
pub(super) struct Answer {
    pub(super) url: String,
    pub(super) response: Response<Incoming>,
}

impl Transport {
    pub(super) fn new(insecure: Vec<String>) -> Self {
        // One provider is compiled in; a second installation of it is refused, and that is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = match HttpsConnectorBuilder::new().with_native_roots() {
            Ok(builder) => builder,
            // A machine without certificates can still talk to loopback registries; others fail with a clear TLS error.
            Err(error) => {
                tracing::warn!(%error, "no certificate authorities found on this machine");
                let empty = rustls::ClientConfig::builder()
                    .with_root_certificates(rustls::RootCertStore::empty())
                    .with_no_client_auth();
                HttpsConnectorBuilder::new().with_tls_config(empty)
            }
        };
        let http = HttpClient::builder(TokioExecutor::new()).build(builder.https_or_http().enable_http1().build());
        Self { http, insecure: Arc::new(insecure) }
    }

    /// `access`: the repository and what is to be done (`pull`, `pull,push`).
    pub(super) fn session(&self, registry: &str, access: Option<(&str, &str)>, auth: Option<&Auth>) -> Session {
        let scheme =
            if is_loopback(registry) || self.insecure.iter().any(|r| r == registry) { "http" } else { "https" };
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let granted = auth.filter(|a| !a.registry_token.is_empty()).map(|a| format!("Bearer {}", a.registry_token));
        Session {
            transport: self.clone(),
            base: format!("{scheme}://{host}"),
            scope: access.map(|(repository, actions)| format!("repository:{repository}:{actions}")),
            auth: auth.cloned(),
            granted: Mutex::new(granted),
        }
    }
}

/// Whether a registry is on this machine by its very name.
pub(super) fn is_loopback(registry: &str) -> bool {
    let host = registry
        .rsplit_once(':')
        .map_or(registry, |(host, port)| if port.bytes().all(|b| b.is_ascii_digit()) { host } else { registry });
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) fn no_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn full_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

impl Session {
    pub(super) async fn get(&self, path: &str, headers: &[(header::HeaderName, String)]) -> Result<Answer> {
        self.send(Method::GET, path, headers, &no_body).await
    }

    pub(super) async fn head(&self, path: &str) -> Result<Answer> {
        self.send(Method::HEAD, path, &[], &no_body).await
    }

    /// Sends a request; `path` may be a whole URL (a `Location`). `body` is called again when a request is repeated.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, String)],
        body: &(dyn Fn() -> Body + Sync),
    ) -> Result<Answer> {
        let url = self.resolve(path);
        let answer = self.follow(&method, &url, headers, body).await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED || !self.authorize(&answer).await? {
            return Ok(answer);
        }
        self.follow(&method, &url, headers, body).await
    }

    fn resolve(&self, path: &str) -> String {
        if path.starts_with('/') { format!("{}{path}", self.base) } else { path.to_owned() }
    }

    async fn follow(
        &self,
        method: &Method,
        url: &str,
        headers: &[(header::HeaderName, String)],
        body: &(dyn Fn() -> Body + Sync),
    ) -> Result<Answer> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.once(method, &url, headers, body()).await?;
            let status = answer.response.status();
            let location = answer.response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
            match location {
                Some(location) if status.is_redirection() => url = absolute(&url, location),
                _ => return Ok(answer),
            }
        }
        Err(Error::Answer { url, reason: format!("more than {MAX_REDIRECTS} redirects") })
    }

    async fn once(
        &self,
        method: &Method,
        url: &str,
        headers: &[(header::HeaderName, String)],
        body: Body,
    ) -> Result<Answer> {
        let uri: Uri =
            url.parse().map_err(|e| Error::Answer { url: url.to_owned(), reason: format!("bad address: {e}") })?;
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        for (name, value) in headers {
            insert(request.headers_mut(), name.clone(), value);
        }
        insert(request.headers_mut(), header::USER_AGENT, concat!("gantry/", env!("CARGO_PKG_VERSION")));
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Only the registry itself gets the credentials, not a store of blobs that it redirects to.
        if let Some(granted) =
            granted.filter(|_| url.strip_prefix(&self.base).is_some_and(|rest| rest.starts_with('/')))
        {
            insert(request.headers_mut(), header::AUTHORIZATION, &granted);
        }
        let response = self.transport.http.request(request).await.map_err(|e| unreachable(method, url, &e))?;
        Ok(Answer { url: url.to_owned(), response })
    }

    /// Obtains what the challenge asks for; whether the request is worth repeating.
    async fn authorize(&self, answer: &Answer) -> Result<bool> {
        let challenges = answer.response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = challenges.iter().filter_map(|c| c.to_str().ok()).find_map(Challenge::parse);
        let granted = match challenge {
            None => None,
            Some(Challenge::Basic) => self.auth.as_ref().and_then(Auth::basic),
            Some(Challenge::Bearer { realm, service, scope }) => {
                Some(self.token(&realm, service.as_deref(), scope.as_deref()).await?)
            }
        };
        let mut current = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = granted.is_some() && *current != granted;
        if changed {
            *current = granted;
        }
        Ok(changed)
    }

    async fn token(&self, realm: &str, service: Option<&str>, scope: Option<&str>) -> Result<String> {
        let mut form: Vec<String> = Vec::new();
        form.extend(service.map(|s| format!("service={}", percent_encode(s))));
        form.extend(self.scope.as_deref().or(scope).map(|s| format!("scope={}", percent_encode(s))));
        let refresh = self.auth.as_ref().map(|a| a.identity_token.as_str()).filter(|t| !t.is_empty());
        let request = match refresh {
            Some(token) => {
                form.extend([
                    "grant_type=refresh_token".into(),
                    "client_id=gantry".into(),
                    format!("refresh_token={}", percent_encode(token)),
                ]);
                let request = Request::builder()
                    .method(Method::POST)
                    .uri(realm)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
                request.body(full_body(form.join("&")))
            }
            None => {
                let separator = if realm.contains('?') { '&' } else { '?' };
                let mut request = Request::builder().uri(format!("{realm}{separator}{}", form.join("&")));
                if let Some(basic) = self.auth.as_ref().and_then(Auth::basic) {
                    request = request.header(header::AUTHORIZATION, basic);
                }
                request.body(no_body())
            }
        };
        let invalid = |reason: String| Error::Answer { url: realm.to_owned(), reason };
        let request = request.map_err(|e| invalid(e.to_string()))?;
        let method = request.method().clone();
        let response = self.transport.http.request(request).await.map_err(|e| unreachable(&method, realm, &e))?;
        let answer = Answer { url: realm.to_owned(), response };
        if matches!(answer.response.status().as_u16(), 401 | 403) {
            return Err(Error::Unauthorized("incorrect username or password".into()));
        }
        let bytes = answer.expect(&[200]).await?.bytes(MAX_ERROR_BYTES).await?;
        let reply: TokenReply = serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string()))?;
        reply.into_token().map(|t| format!("Bearer {t}")).ok_or_else(|| invalid("no token in the answer".into()))
    }
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Turns every other status into an error, with the registry's own message.
    pub(super) async fn expect(self, statuses: &[u16]) -> Result<Self> {
        if statuses.contains(&self.status()) {
            return Ok(self);
        }
        let (status, url) = (self.response.status(), self.url.clone());
        let body = self.bytes(MAX_ERROR_BYTES).await.unwrap_or_default();
        let message = error_message(&body);
        Err(match status.as_u16() {
            401 | 403 => Error::Unauthorized(message.unwrap_or_else(|| "authentication required".into())),
            429 => Error::TooManyRequests(message.unwrap_or_else(|| "try again later".into())),
            _ => Error::Status { url, status, detail: message.map(|m| format!(": {m}")).unwrap_or_default() },
        })
    }

    /// The whole body, if it is not larger than `limit`.
    pub(super) async fn bytes(self, limit: usize) -> Result<Bytes> {
        let url = self.url;
        let collected = Limited::new(self.response.into_body(), limit).collect().await;
        Ok(collected.map_err(|e| Error::Answer { url, reason: e.to_string() })?.to_bytes())
    }

    /// Where the registry wants the next request; relative ones are made whole.
    pub(super) fn location(&self) -> Option<String> {
        self.header("location").map(|l| absolute(&self.url, l))
    }
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn absolute(base: &str, location: &str) -> String {
    if !location.starts_with('/') {
        return location.to_owned();
    }
    let end = base.find("://").and_then(|i| base[i + 3..].find('/').map(|j| i + 3 + j)).unwrap_or(base.len());
    format!("{}{location}", &base[..end])
}

/// `{"errors":[{"code":…,"message":…}]}`
fn error_message(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let first = value.get("errors")?.get(0)?;
    Some(first.get("message")?.as_str()?.to_owned())
}

/// In Docker's (Go's) words, for the cases that people search for.
fn unreachable(method: &Method, url: &str, error: &hyper_util::client::legacy::Error) -> Error {
    let authority = url.split('/').nth(2).unwrap_or(url);
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        reason = match inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(std::io::ErrorKind::ConnectionRefused) => {
                format!("dial tcp {authority}: connect: connection refused")
            }
            _ if inner.to_string().contains("lookup") => {
                format!("dial tcp: lookup {authority}: no such host")
            }
            _ => inner.to_string(),
        };
        if reason.starts_with("dial tcp") {
            break;
        }
        cause = inner.source();
    }

    Error::Unreachable { method: method.clone(), url: url.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_registries_are_known_by_name_and_locations_are_made_whole() {
        for (registry, expected) in [
            ("localhost:5000", true),
            ("localhost", true),
            ("127.9.0.1:80", true),
            ("[::1]:5000", true),
            ("ghcr.io", false),
            ("localhost.evil.com", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(is_loopback(registry), expected, "{registry}");
        }
        assert_eq!(absolute("http://a:5000/v2/x/", "/v2/y"), "http://a:5000/v2/y");
        assert_eq!(absolute("http://a/v2/", "https://b/z"), "https://b/z");
    }
}
