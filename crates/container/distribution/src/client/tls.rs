//! TLS to registries: the machine's authorities, those of `certs.d`, or (insecure registries) anybody's certificate.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::hosts::Certificates;
use crate::error::{Error, Result};

/// Trusts the machine's own authorities. A machine without any can still talk to insecure registries.
pub(super) fn machine() -> ClientConfig {
    ClientConfig::builder().with_root_certificates(machine_roots()).with_no_client_auth()
}

fn machine_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        tracing::warn!(errors = ?found.errors, "no certificate authorities found on this machine");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

/// Trusts the machine's authorities and a registry's own, and shows our certificate if there is one. `anybody`: where
/// the registry is insecure and names no authority, its certificate is not looked at.
pub(super) fn particular(host: &str, certificates: Option<Certificates>, anybody: bool) -> Result<ClientConfig> {
    let Certificates { authorities, own } = certificates.unwrap_or_default();
    let bad = |error: rustls::Error| Error::Certificates { host: host.to_owned(), reason: error.to_string() };
    let builder = if authorities.is_empty() && anybody {
        ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Anybody::new()))
    } else {
        let mut roots = machine_roots();
        for authority in authorities {
            roots.add(authority).map_err(bad)?;
        }
        ClientConfig::builder().with_root_certificates(roots)
    };
    match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(bad),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// Takes every certificate. Only for registries that the user declared insecure, and loopback.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl Anybody {
    fn new() -> Self {
        Self(Arc::new(rustls::crypto::ring::default_provider()))
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end: &CertificateDer<'_>,
        _between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
