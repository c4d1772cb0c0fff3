//! The cluster's own public-key infrastructure in `<root>/pki`: a CA, the API server's serving certificate, the
//! administrator's client certificate and the key that signs service-account tokens. Made once, read on every start;
//! a leaf that has less than 30 days left, or whose names no longer fit this machine, is made anew under the same CA.
//!
//! Invariant: a private key exists on disk only as a 0600 file in a 0700 directory, and is replaced by rename, never
//! written in place. Called by the wiring (listener, kubeconfig) and by `token`.

mod certificate;
mod files;
mod request;
mod signing;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use certificate::{CertificateAuthority, LeafKind};
pub(crate) use request::Requested;

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("making {what}")]
    Certificate { what: &'static str, source: rcgen::Error },
    #[error("reading {what}: {reason}")]
    Parse { what: &'static str, reason: String },
    #[error("TLS set-up")]
    Tls(#[from] rustls::Error),
    #[error("client certificate verifier")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The names under which the API server is reached.
#[derive(Debug, Clone)]
pub struct ServingNames {
    pub host_name: String,
    pub addresses: Vec<IpAddr>,
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct KeyedCertificate {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// Everything under `<root>/pki`, loaded.
pub struct Pki {
    authority: CertificateAuthority,
    serving: KeyedCertificate,
    admin: KeyedCertificate,
    token_key: Arc<EcdsaKeyPair>,
}

impl Pki {
    /// Reads the directory, and makes what is missing or about to expire.
    pub fn open(directory: &Path, names: &ServingNames) -> Result<Self, PkiError> {
        files::ensure_private_directory(directory)?;
        let authority = CertificateAuthority::open(directory)?;
        let serving = authority.ensure_leaf(directory, "apiserver", &LeafKind::serving(names))?;
        let admin = authority.ensure_leaf(
            directory,
            "admin",
            &LeafKind::client("kubernetes-admin", &[crate::identity::SYSTEM_MASTERS]),
        )?;
        let token_key = Arc::new(open_token_key(&directory.join("sa.key"))?);
        Ok(Self { authority, serving, admin, token_key })
    }

    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// A kubeconfig for the administrator, with all data embedded, so that the file can be copied anywhere.
    #[must_use]
    pub fn kubeconfig(&self, server_url: &str) -> String {
        let ca = BASE64.encode(self.ca_pem());
        let certificate = BASE64.encode(&self.admin.certificate_pem);
        let key = BASE64.encode(&self.admin.key_pem);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: gantry\n  cluster:\n    server: {server_url}\n    \
             certificate-authority-data: {ca}\nusers:\n- name: gantry-admin\n  user:\n    \
             client-certificate-data: {certificate}\n    client-key-data: {key}\ncontexts:\n- name: gantry\n  context:\n    \
             cluster: gantry\n    user: gantry-admin\ncurrent-context: gantry\npreferences: {{}}\n"
        )
    }

    /// A new client certificate: for a node that joins (`system:node:NAME` in `system:nodes`) or another user.
    pub fn client_certificate(&self, common_name: &str, organizations: &[&str]) -> Result<KeyedCertificate, PkiError> {
        self.authority.issue(&LeafKind::client(common_name, organizations))
    }

    pub(crate) fn token_key(&self) -> Arc<EcdsaKeyPair> {
        Arc::clone(&self.token_key)
    }

    /// The listener's TLS: our certificate, client certificates of our CA accepted but not demanded, h2 before http/1.1.
    pub fn server_tls(&self) -> Result<rustls::ServerConfig, PkiError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(parse_certificate(self.ca_pem())?)?;
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()?;
        let chain = vec![parse_certificate(&self.serving.certificate_pem)?];
        let key = PrivateKeyDer::from_pem_slice(self.serving.key_pem.as_bytes())
            .map_err(|source| PkiError::Parse { what: "the serving key", reason: source.to_string() })?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn parse_certificate(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|source| PkiError::Parse { what: "a certificate", reason: source.to_string() })
}

fn open_token_key(path: &Path) -> Result<EcdsaKeyPair, PkiError> {
    let pem = match files::read_optional(path)? {
        Some(pem) => pem,
        None => {
            let key = certificate::generate_key("the service-account key")?;
            let pem = key.serialize_pem();
            files::write_private(path, &pem)?;
            pem
        }
    };
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|source| PkiError::Parse { what: "the service-account key", reason: source.to_string() })?;
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der(), &SystemRandom::new())
        .map_err(|rejected| PkiError::Parse { what: "the service-account key", reason: rejected.to_string() })
}

#[cfg(test)]
mod tests;
