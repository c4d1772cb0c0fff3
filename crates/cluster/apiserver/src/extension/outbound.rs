//! Calls to servers outside: webhooks and aggregated API servers, over TLS only.
//!
//! A [`Destination`] is what a `clientConfig` names: a URL, or a service whose ready endpoints are looked up in the store.
//! Invariant: a call ends within its deadline whatever the other side does, and its answer is bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kube_types::meta;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use store::Store;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use crate::{keys, object};

const MAX_ANSWER_BYTES: usize = 8 << 20;
/// Where distributions keep the authorities that everybody trusts.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Whom to call.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    place: Place,
    /// What the certificate has to name.
    name: String,
    path: String,
    authority: Option<Vec<u8>>,
    insecure: bool,
}

#[derive(Debug, Clone)]
enum Place {
    Host { host: String, port: u16 },
    Service { namespace: String, name: String, port: u16 },
}

/// A call that came to nothing, in the words of Go's HTTP client where clients know them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{0}")]
    Destination(String),
    #[error("dial tcp {address}: {source}")]
    Connect { address: String, source: std::io::Error },
    #[error("tls: failed to verify certificate: {0}")]
    Tls(String),
    #[error("context deadline exceeded")]
    Timeout,
    #[error("{0}")]
    Http(String),
}

/// A client certificate and its key, in PEM.
pub(crate) struct Credential {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Destination {
    /// From the `clientConfig` of a webhook.
    pub(crate) fn of_client_config(config: &Value) -> Result<Self, CallError> {
        let authority = authority(&config["caBundle"])?;
        if let Some(url) = config["url"].as_str() {
            let rest = url.strip_prefix("https://");
            let rest = rest.ok_or_else(|| CallError::Destination(format!("{url}: the URL scheme must be https")))?;
            let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
            let (host, port) = match host.rsplit_once(':').filter(|_| !host.ends_with(']')) {
                Some((host, port)) => {
                    (host, port.parse().map_err(|_| CallError::Destination(format!("{url}: invalid port")))?)
                }
                None => (host, 443),
            };
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let place = Place::Host { host: host.clone(), port };
            return Ok(Self { place, name: host, path: path.to_owned(), authority, insecure: false });
        }
        let path = object::text(config, "/service/path");
        let path = if path.is_empty() { "/".to_owned() } else { format!("/{}", path.trim_start_matches('/')) };
        Self::of_service(&config["service"], path, authority)
    }

    /// From a reference to a service.
    pub(crate) fn of_service(service: &Value, path: String, authority: Option<Vec<u8>>) -> Result<Self, CallError> {
        let (namespace, name) = (object::text(service, "/namespace"), object::text(service, "/name"));
        if namespace.is_empty() || name.is_empty() {
            return Err(CallError::Destination("neither a URL nor a service is given".to_owned()));
        }
        let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        Ok(Self {
            place: Place::Service { namespace: namespace.to_owned(), name: name.to_owned(), port },
            name: format!("{name}.{namespace}.svc"),
            path,
            authority,
            insecure: false,
        })
    }

    pub(crate) fn trusting_anybody(self, insecure: bool) -> Self {
        Self { insecure, ..self }
    }

    /// As messages show it.
    pub(crate) fn url(&self) -> String {
        let port = match &self.place {
            Place::Host { port, .. } | Place::Service { port, .. } => *port,
        };
        let name = if self.name.contains(':') { format!("[{}]", self.name) } else { self.name.clone() };
        format!("https://{name}:{port}{}", self.path)
    }

    async fn addresses(&self, store: &Store) -> Result<Vec<SocketAddr>, CallError> {
        match &self.place {
            Place::Host { host, port } => tokio::net::lookup_host((host.as_str(), *port))
                .await
                .map(Iterator::collect)
                .map_err(|source| CallError::Connect { address: format!("lookup {host}"), source }),
            Place::Service { namespace, name, port } => endpoints(store, namespace, name, *port),
        }
    }

    /// A connection on which requests can be sent, and the task that drives it.
    async fn connect(&self, store: &Store, credential: Option<&Credential>) -> Result<Connection, CallError> {
        let addresses = self.addresses(store).await?;
        let stream = dial(&addresses).await?;
        let name = ServerName::try_from(self.name.clone()).map_err(|error| CallError::Tls(error.to_string()))?;
        let connector = TlsConnector::from(Arc::new(self.tls(credential)?));
        let stream = connector.connect(name, stream).await.map_err(|error| CallError::Tls(error.to_string()))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| CallError::Http(error.to_string()))?;
        // It lives as long as the guard of whoever reads the answer.
        let task = tokio::spawn(connection.with_upgrades());
        Ok(Connection { sender, guard: Guard(task.abort_handle()) })
    }

    fn tls(&self, credential: Option<&Credential>) -> Result<ClientConfig, CallError> {
        let wrong = |error: &dyn std::fmt::Display| CallError::Tls(error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?;
        let builder = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        match credential {
            None => Ok(builder.with_no_client_auth()),
            Some(own) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(own.certificate.as_bytes()).collect();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).map_err(|error| wrong(&error))?;
                builder.with_client_auth_cert(chain.map_err(|error| wrong(&error))?, key).map_err(|error| wrong(&error))
            }
        }
    }

    fn roots(&self) -> Result<RootCertStore, CallError> {
        let system = || std::fs::read(SYSTEM_ROOTS).unwrap_or_default();
        let pem = self.authority.clone().unwrap_or_else(system);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
            // The system's list may hold what this library does not know; a bundle of one's own should not.
            if let (Err(error), Some(_)) = (roots.add(certificate), &self.authority) {
                return Err(CallError::Tls(error.to_string()));
            }
        }
        Ok(roots)
    }

    /// POSTs JSON and reads the answer's body.
    pub(crate) async fn post(&self, store: &Store, query: &str, body: &Value, within: Duration) -> Result<Bytes, CallError> {
        let call = async {
            let mut connection = self.connect(store, None).await?;
            let joint = if self.path.contains('?') { '&' } else { '?' };
            let request = Request::post(format!("{}{joint}{query}", self.path))
                .header(http::header::HOST, self.host())
                .header(http::header::CONTENT_TYPE, "application/json")
                .header(http::header::ACCEPT, "application/json")
                .header(http::header::USER_AGENT, "kube-apiserver-admission")
                .body(Full::new(Bytes::from(body.to_string())))
                .map_err(|error| CallError::Http(error.to_string()))?;
            let answer = connection.sender.send_request(request).await;
            let answer = answer.map_err(|error| CallError::Http(error.to_string()))?;
            let code = answer.status();
            let bytes = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
            let bytes = bytes.map_err(|error| CallError::Http(error.to_string()))?.to_bytes();
            if !code.is_success() {
                let text: String = String::from_utf8_lossy(&bytes).trim().chars().take(1024).collect();
                return Err(CallError::Http(if text.is_empty() {
                    format!("the server returned {code}")
                } else {
                    format!("an error on the server ({text:?}) has prevented the request from succeeding")
                }));
            }
            Ok(bytes)
        };
        tokio::time::timeout(within, call).await.unwrap_or(Err(CallError::Timeout))
    }

    fn host(&self) -> String {
        self.url().trim_start_matches("https://").split('/').next().unwrap_or_default().to_owned()
    }

    /// Passes a request on and hands its answer back while it arrives; the guard has to live as long as the answer is read.
    pub(crate) async fn forward(
        &self,
        store: &Store,
        mut request: Request<Bytes>,
        credential: Option<&Credential>,
        within: Duration,
    ) -> Result<(Response<Incoming>, Guard), CallError> {
        let host = self.host().parse().map_err(|_| CallError::Destination(format!("{} is no host", self.name)))?;
        request.headers_mut().insert(http::header::HOST, host);
        let call = async {
            let mut connection = self.connect(store, credential).await?;
            let answer = connection.sender.send_request(request.map(Full::new)).await;
            Ok((answer.map_err(|error| CallError::Http(error.to_string()))?, connection.guard))
        };
        tokio::time::timeout(within, call).await.unwrap_or(Err(CallError::Timeout))
    }
}

struct Connection {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    guard: Guard,
}

/// Ends the connection's task when it is dropped.
pub(crate) struct Guard(AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The bytes of a `caBundle`: base64 of PEM.
pub(crate) fn authority(bundle: &Value) -> Result<Option<Vec<u8>>, CallError> {
    let Some(text) = bundle.as_str().filter(|text| !text.is_empty()) else { return Ok(None) };
    let decoded = base64::engine::general_purpose::STANDARD.decode(text);
    decoded.map(Some).map_err(|_| CallError::Tls("unable to load root certificates: unable to parse bytes as PEM block".to_owned()))
}

async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, CallError> {
    let mut last = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Small requests must not wait for more of them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "no delay cannot be set");
                }
                return Ok(stream);
            }
            Err(source) => last = Some(CallError::Connect { address: address.to_string(), source }),
        }
    }
    Err(last.unwrap_or_else(|| CallError::Destination("no address is known".to_owned())))
}

/// The ready endpoints behind a port of a service.
fn endpoints(store: &Store, namespace: &str, name: &str, port: u16) -> Result<Vec<SocketAddr>, CallError> {
    let missing = |text: String| CallError::Destination(text);
    let service = store.get(&keys::known("", "services", namespace, name));
    let service = service.ok_or_else(|| missing(format!("service {name:?} not found")))?;
    let service = object::decode(&service.value);
    let ports = service["spec"]["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let found = ports.iter().find(|own| own["port"].as_u64() == Some(u64::from(port)));
    let found = found.ok_or_else(|| missing(format!("no service port {port} found for service {name:?}")))?;
    let prefix = format!("{}discovery.k8s.io/endpointslices/{namespace}/", keys::ROOT);
    let slices = store.range(prefix.as_bytes(), None, 0, None).map(|range| range.items).unwrap_or_default();
    let mut addresses = Vec::new();
    for item in slices {
        let slice = object::decode(&item.value);
        if meta::label(&slice, "kubernetes.io/service-name") != Some(name) {
            continue;
        }
        let same_name = |own: &&Value| object::text(own, "/name") == object::text(found, "/name");
        let Some(port) = slice["ports"].as_array().and_then(|ports| ports.iter().find(same_name)) else { continue };
        let Some(port) = port["port"].as_u64().and_then(|port| u16::try_from(port).ok()) else { continue };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            if endpoint["conditions"]["ready"] == false {
                continue;
            }
            let texts = endpoint["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
            addresses.extend(texts.filter_map(|text| Some(SocketAddr::new(text.parse().ok()?, port))));
        }
    }
    if addresses.is_empty() {
        return Err(missing(format!("no endpoints available for service {name:?}")));
    }
    Ok(addresses)
}

/// `insecureSkipTLSVerify` of an APIService.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
