//! Certificate signing requests: read, checked for possession of their key, and signed by the CA.
//!
//! Called by admission of `CertificateSigningRequest`. Invariant: of what a request says only the subject and the names are taken
//! over; usages and times are the caller's, and the certificate is never a CA.

use jiff::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData, SanType,
    SignatureAlgorithm,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, GeneralName};

use super::{Pki, PkiError};

/// What a request asks for.
#[derive(Debug, Clone)]
pub(crate) struct Requested {
    pub(crate) common_name: String,
    pub(crate) organizations: Vec<String>,
    /// Whether it names hosts, addresses or anything else beside its subject.
    pub(crate) has_names: bool,
    names: Vec<SanType>,
    key: RequestedKey,
}

#[derive(Debug, Clone)]
struct RequestedKey {
    bits: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl Requested {
    /// `None` for what is no request, is not signed by its own key, or has a key of a kind that we do not sign.
    pub(crate) fn parse(pem: &[u8]) -> Option<Self> {
        let block = Pem::iter_from_buffer(pem).next()?.ok()?;
        if block.label != "CERTIFICATE REQUEST" {
            return None;
        }
        let (_, request) = X509CertificationRequest::from_der(&block.contents).ok()?;
        request.verify_signature().ok()?;
        let info = &request.certification_request_info;
        let algorithm = match info.subject_pki.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => &rcgen::PKCS_RSA_SHA256,
            "1.2.840.10045.2.1" => match info.subject_pki.subject_public_key.data.len() {
                65 => &rcgen::PKCS_ECDSA_P256_SHA256,
                97 => &rcgen::PKCS_ECDSA_P384_SHA384,
                _ => return None,
            },
            "1.3.101.112" => &rcgen::PKCS_ED25519,
            _ => return None,
        };
        let text = |name: &x509_parser::x509::AttributeTypeAndValue<'_>| name.as_str().ok().map(str::to_owned);
        let (names, has_names) = names_of(&request)?;
        Some(Self {
            common_name: info.subject.iter_common_name().filter_map(text).next().unwrap_or_default(),
            organizations: info.subject.iter_organization().filter_map(text).collect(),
            has_names,
            names,
            key: RequestedKey { bits: info.subject_pki.subject_public_key.data.to_vec(), algorithm },
        })
    }

    #[cfg(test)]
    pub(crate) fn for_tests(name: &str, groups: &[&str], has_names: bool) -> Self {
        Self {
            common_name: name.to_owned(),
            organizations: groups.iter().map(|&group| group.to_owned()).collect(),
            has_names,
            names: Vec::new(),
            key: RequestedKey { bits: Vec::new(), algorithm: &rcgen::PKCS_ED25519 },
        }
    }
}

fn names_of(request: &X509CertificationRequest<'_>) -> Option<(Vec<SanType>, bool)> {
    let mut names = Vec::new();
    let mut any = false;
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(alternatives) = extension else { continue };
        for name in &alternatives.general_names {
            any = true;
            match name {
                GeneralName::DNSName(name) => names.push(SanType::DnsName((*name).try_into().ok()?)),
                GeneralName::IPAddress(octets) => {
                    names.push(SanType::IpAddress(super::certificate::address_of(octets)?));
                }
                // Neither mail addresses nor URIs are taken over.
                _ => return None,
            }
        }
    }
    Some((names, any))
}

impl Pki {
    /// The certificate, PEM, with these usages (in Kubernetes' words) for so many seconds from now.
    pub(crate) fn sign_request(&self, asked: &Requested, usages: &[&str], seconds: i64) -> Result<String, PkiError> {
        let failed = |source| PkiError::Certificate { what: "a requested certificate", source };
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        for organization in &asked.organizations {
            subject.push(DnType::OrganizationName, organization.as_str());
        }
        subject.push(DnType::CommonName, asked.common_name.as_str());
        params.distinguished_name = subject;
        params.subject_alt_names.clone_from(&asked.names);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        for usage in usages {
            match *usage {
                "digital signature" => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                "client auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
                "server auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
                _ => {}
            }
        }
        let now = Timestamp::now().as_second();
        let at = |second: i64| {
            // Five minutes are given to clocks that are behind.
            rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(second.unsigned_abs())
        };
        params.not_before = at(now - 300);
        params.not_after = at(now + seconds);
        let certificate = params.signed_by(&asked.key, self.authority.issuer()).map_err(failed)?;
        Ok(certificate.pem())
    }
}
