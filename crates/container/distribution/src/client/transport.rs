//! HTTP to registries: scheme, authentication, redirects, patience, bounded answers.
//!
//! A [`Session`] is one repository of one registry (or mirror) with the rights that its calls need. A `401` is answered
//! once with a token or basic credentials; credentials never follow a redirect to another host. Every wait has an end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::answer::{Answer, absolute, unreachable};
use super::auth::{Challenge, TokenReply, percent_encode};
use super::hosts::{Endpoint, Hosts};
use super::{Auth, tls};
use crate::error::{Error, Result};

pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Http = HttpClient<HttpsConnector<HttpConnector>, Body>;

const MAX_REDIRECTS: usize = 5;
const MAX_TOKEN_BYTES: usize = 1 << 20;
/// How long it is remembered what a host's scheme and certificates are.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Docker's words for a registry that took the connection and then said nothing.
const SILENT: &str = "net/http: request canceled (Client.Timeout exceeded while awaiting headers)";

#[derive(Clone)]
pub(super) struct Transport(Arc<Shared>);

struct Shared {
    hosts: Hosts,
    /// For hosts with nothing particular about them.
    usual: OnceLock<Http>,
    particular: Mutex<HashMap<String, (Instant, Http)>>,
    /// What was found out of hosts that may speak either.
    schemes: Mutex<HashMap<String, (Instant, &'static str)>>,
}

/// Calls to one registry, with one scope.
pub(super) struct Session {
    transport: Transport,
    host: String,
    base: String,
    pub(super) repository: String,
    pub(super) is_mirror: bool,
    scope: Option<String>,
    auth: Option<Auth>,
    /// The `Authorization` header that worked.
    granted: Mutex<Option<String>>,
    /// Bytes of bodies sent so far: an upload that moves is not silent.
    pub(super) sent: Arc<AtomicU64>,
}

impl Transport {
    pub(super) fn new(hosts: Hosts) -> Self {
        // One provider is compiled in; a second installation of it is refused, and that is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let shared = Shared { hosts, usual: OnceLock::new(), particular: Mutex::default(), schemes: Mutex::default() };
        Self(Arc::new(shared))
    }

    pub(super) fn hosts(&self) -> &Hosts {
        &self.0.hosts
    }

    /// `actions`: what is to be done with the endpoint's repository (`pull`, `pull,push`); `None` for no repository.
    pub(super) async fn session(
        &self,
        endpoint: &Endpoint,
        actions: Option<&str>,
        auth: Option<&Auth>,
    ) -> Result<Session> {
        let scheme = match endpoint.scheme {
            Some(scheme) => scheme,
            None => self.scheme(&endpoint.host).await?,
        };
        let auth = auth.filter(|_| !endpoint.is_mirror);
        let granted = auth.filter(|a| !a.registry_token.is_empty()).map(|a| format!("Bearer {}", a.registry_token));
        Ok(Session {
            transport: self.clone(),
            host: endpoint.host.clone(),
            base: format!("{scheme}://{}", endpoint.host),
            repository: endpoint.repository.clone(),
            is_mirror: endpoint.is_mirror,
            scope: actions.map(|actions| format!("repository:{}:{actions}", endpoint.repository)),
            auth: auth.cloned(),
            granted: Mutex::new(granted),
            sent: Arc::default(),
        })
    }

    /// An insecure registry speaks TLS or not: TLS is tried first, as Docker does.
    async fn scheme(&self, host: &str) -> Result<&'static str> {
        let known = self.0.schemes.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied();
        if let Some((_, scheme)) = known.filter(|(since, _)| since.elapsed() < REMEMBERED) {
            return Ok(scheme);
        }
        let request = Request::builder().uri(format!("https://{host}/v2/")).body(no_body());
        let request = request.map_err(|e| Error::Answer { url: host.to_owned(), reason: e.to_string() })?;
        let asked = tokio::time::timeout(self.0.hosts.patience.answer, self.http(host)?.request(request)).await;
        let scheme = match asked {
            Ok(Ok(_)) => "https",
            // Nobody there: nothing to remember, and the request itself tells it best.
            Ok(Err(error)) if error.is_connect() && unreachable(&Method::GET, host, &error).is_refused() => {
                return Ok("http");
            }
            Ok(Err(_)) | Err(_) => "http",
        };
        let mut schemes = self.0.schemes.lock().unwrap_or_else(PoisonError::into_inner);
        schemes.insert(host.to_owned(), (Instant::now(), scheme));
        Ok(scheme)
    }

    /// What was known of a host may be why it cannot be reached.
    fn forget(&self, host: &str) {
        self.0.schemes.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }

    fn http(&self, host: &str) -> Result<Http> {
        let shared = &self.0;
        let mut particular = shared.particular.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, http)) = particular.get(host).filter(|(since, _)| since.elapsed() < REMEMBERED) {
            return Ok(http.clone());
        }
        let (certificates, insecure) = (shared.hosts.certificates(host)?, shared.hosts.is_insecure(host));
        if certificates.is_none() && !insecure {
            return Ok(shared.usual.get_or_init(|| self.client(tls::machine())).clone());
        }
        let http = self.client(tls::particular(host, certificates, insecure)?);
        particular.insert(host.to_owned(), (Instant::now(), http.clone()));
        Ok(http)
    }

    fn client(&self, tls: rustls::ClientConfig) -> Http {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(self.0.hosts.patience.connect));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        HttpClient::builder(TokioExecutor::new()).build(https.wrap_connector(connector))
    }
}

pub(super) fn no_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn full_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

impl Session {
    /// `/v2/REPOSITORY/rest`.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.repository)
    }

    pub(super) async fn get(&self, path: &str, headers: &[(header::HeaderName, String)]) -> Result<Answer> {
        self.patiently(Method::GET, path, headers).await
    }

    pub(super) async fn head(&self, path: &str) -> Result<Answer> {
        self.patiently(Method::HEAD, path, &[]).await
    }

    /// Asks again, after a pause, while the registry is busy or breaks off. Only for what changes nothing.
    async fn patiently(&self, method: Method, path: &str, headers: &[(header::HeaderName, String)]) -> Result<Answer> {
        let patience = self.transport.0.hosts.patience;
        let mut attempt = 1;
        loop {
            let result = self.send(method.clone(), path, headers, &no_body).await;
            let asked = match &result {
                Ok(answer) if answer.is_busy() => answer.retry_after(),
                Err(error) if error.is_transient() && !error.is_refused() => None,
                Ok(_) | Err(_) => return result,
            };
            // A mirror that is busy has others behind it.
            let Some(pause) = patience.pause(attempt, asked).filter(|_| !self.is_mirror) else { return result };
            tracing::debug!(path, attempt, "registry is asked again");
            attempt += 1;
            tokio::time::sleep(pause).await;
        }
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
        self.request(request, url).await
    }

    /// Waits as long as something moves.
    async fn request(&self, request: Request<Body>, url: &str) -> Result<Answer> {
        let method = request.method().clone();
        let authority = url.split('/').nth(2).unwrap_or_default();
        let patience = self.transport.0.hosts.patience;
        let mut pending = std::pin::pin!(self.transport.http(authority)?.request(request));
        let mut sent = self.sent.load(Ordering::Relaxed);
        loop {
            match tokio::time::timeout(patience.answer, &mut pending).await {
                Ok(Ok(response)) => return Ok(Answer { url: url.to_owned(), response, idle: patience.idle }),
                Ok(Err(error)) => {
                    self.transport.forget(&self.host);
                    return Err(unreachable(&method, url, &error));
                }
                Err(_) => {
                    let now = self.sent.load(Ordering::Relaxed);
                    if now == sent {
                        return Err(Error::Unreachable { method, url: url.to_owned(), reason: SILENT.to_owned() });
                    }
                    sent = now;
                }
            }
        }
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
        let answer = self.request(request.map_err(|e| invalid(e.to_string()))?, realm).await?;
        if matches!(answer.response.status().as_u16(), 401 | 403) {
            return Err(Error::Unauthorized("incorrect username or password".into()));
        }
        let bytes = answer.expect(&[200]).await?.bytes(MAX_TOKEN_BYTES).await?;
        let reply: TokenReply = serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string()))?;
        reply.into_token().map(|t| format!("Bearer {t}")).ok_or_else(|| invalid("no token in the answer".into()))
    }
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
