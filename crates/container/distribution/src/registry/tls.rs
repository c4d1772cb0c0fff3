//! A certificate and its key, from PEM files, as the registry serves them.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Error, Result};

/// Reads a certificate chain and its private key.
pub fn load(certificate: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>> {
    let failed =
        |path: &Path, problem: String| Error::File { path: path.to_owned(), source: std::io::Error::other(problem) };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|e| failed(certificate, e.to_string()))?;
    if chain.is_empty() {
        return Err(failed(certificate, "no certificate in it".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| failed(key, e.to_string()))?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private);
    config.map(Arc::new).map_err(|e| failed(key, e.to_string()))
}
