//! The CA and the certificates it signs. ECDSA P-256 throughout, a year per leaf, ten for the CA.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{KeyedCertificate, PkiError, ServingNames, files, parse_certificate};

const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;
const RENEW_BEFORE_SECONDS: i64 = 30 * 24 * 3600;
/// The `kubernetes` service's address, by which pods reach this server.
const SERVICE_ADDRESS: [u8; 4] = [10, 43, 0, 1];

/// What a leaf certificate is for.
pub(super) enum LeafKind {
    Serving { dns: BTreeSet<String>, addresses: BTreeSet<IpAddr> },
    Client { common_name: String, organizations: Vec<String> },
}

impl LeafKind {
    pub(super) fn serving(names: &ServingNames) -> Self {
        let mut dns: BTreeSet<String> = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        ]
        .map(str::to_owned)
        .into();
        dns.insert(names.host_name.to_lowercase());
        let mut addresses: BTreeSet<IpAddr> = names.addresses.iter().copied().collect();
        addresses.insert(IpAddr::from([127, 0, 0, 1]));
        addresses.insert(IpAddr::from(SERVICE_ADDRESS));
        Self::Serving { dns, addresses }
    }

    pub(super) fn client(common_name: &str, organizations: &[&str]) -> Self {
        Self::Client {
            common_name: common_name.to_owned(),
            organizations: organizations.iter().map(|&organization| organization.to_owned()).collect(),
        }
    }

    fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        set_validity(&mut params, LEAF_DAYS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let mut subject = DistinguishedName::new();
        match self {
            Self::Serving { dns, addresses } => {
                subject.push(DnType::CommonName, "kube-apiserver");
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                for name in dns {
                    params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
                }
                params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
            }
            Self::Client { common_name, organizations } => {
                for organization in organizations {
                    subject.push(DnType::OrganizationName, organization.as_str());
                }
                subject.push(DnType::CommonName, common_name.as_str());
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }
        }
        params.distinguished_name = subject;
        Ok(params)
    }

    /// Whether `certificate` names everything that this leaf has to name.
    fn is_named_by(&self, certificate: &X509Certificate<'_>) -> bool {
        let Self::Serving { dns, addresses } = self else {
            return true;
        };
        let Ok(Some(names)) = certificate.subject_alternative_name() else {
            return false;
        };
        let mut dns_held = BTreeSet::new();
        let mut addresses_held = BTreeSet::new();
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(name) => {
                    dns_held.insert((*name).to_owned());
                }
                GeneralName::IPAddress(octets) => {
                    addresses_held.extend(address_of(octets));
                }
                _ => {}
            }
        }
        dns.is_subset(&dns_held) && addresses.is_subset(&addresses_held)
    }
}

pub(super) fn address_of(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

pub(super) struct CertificateAuthority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    pub(super) fn open(directory: &Path) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        if let (Some(certificate_pem), Some(key_pem)) =
            (files::read_optional(&certificate_path)?, files::read_optional(&key_path)?)
        {
            let key = KeyPair::from_pem(&key_pem)
                .map_err(|source| PkiError::Certificate { what: "the CA from its key file", source })?;
            // Only the subject and the key matter for signing, so the issuer is made from the same parameters again.
            return Ok(Self { certificate_pem, issuer: Issuer::new(authority_params(), key) });
        }
        let key = generate_key("the CA key")?;
        let params = authority_params();
        let certificate =
            params.self_signed(&key).map_err(|source| PkiError::Certificate { what: "the CA certificate", source })?;
        // The key first: a certificate without its key would never be completed.
        files::write_private(&key_path, &key.serialize_pem())?;
        files::write_private(&certificate_path, &certificate.pem())?;
        Ok(Self { certificate_pem: certificate.pem(), issuer: Issuer::new(params, key) })
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    pub(super) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The leaf of this name in `directory`, made anew if it is missing, expiring, foreign or misnamed.
    pub(super) fn ensure_leaf(
        &self,
        directory: &Path,
        name: &str,
        kind: &LeafKind,
    ) -> Result<KeyedCertificate, PkiError> {
        let certificate_path = directory.join(format!("{name}.crt"));
        let key_path = directory.join(format!("{name}.key"));
        if let (Some(certificate_pem), Some(key_pem)) =
            (files::read_optional(&certificate_path)?, files::read_optional(&key_path)?)
            && self.is_usable(&certificate_pem, &key_pem, kind)
        {
            return Ok(KeyedCertificate { certificate_pem, key_pem });
        }
        let leaf = self.issue(kind)?;
        files::write_private(&key_path, &leaf.key_pem)?;
        files::write_private(&certificate_path, &leaf.certificate_pem)?;
        Ok(leaf)
    }

    pub(super) fn issue(&self, kind: &LeafKind) -> Result<KeyedCertificate, PkiError> {
        let failed = |source| PkiError::Certificate { what: "a leaf certificate", source };
        let key = generate_key("a leaf key")?;
        let certificate = kind.params().and_then(|params| params.signed_by(&key, &self.issuer)).map_err(failed)?;
        Ok(KeyedCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    fn is_usable(&self, certificate_pem: &str, key_pem: &str, kind: &LeafKind) -> bool {
        let (Ok(der), Ok(ca_der)) = (parse_certificate(certificate_pem), parse_certificate(&self.certificate_pem))
        else {
            return false;
        };
        let (Ok((_, certificate)), Ok((_, ca))) = (X509Certificate::from_der(&der), X509Certificate::from_der(&ca_der))
        else {
            return false;
        };
        let Ok(key) = KeyPair::from_pem(key_pem) else {
            return false;
        };
        let remaining = certificate.validity().not_after.timestamp() - Timestamp::now().as_second();
        // A renewal that died between its two files leaves a key that is not the certificate's.
        remaining > RENEW_BEFORE_SECONDS
            && certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
            && certificate.issuer().as_raw() == ca.subject().as_raw()
            && kind.is_named_by(&certificate)
    }
}

pub(super) fn generate_key(what: &'static str) -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|source| PkiError::Certificate { what, source })
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    set_validity(&mut params, CA_DAYS);
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "gantry-ca");
    params.distinguished_name = subject;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// Valid from yesterday, so that a client whose clock is a little behind accepts it at once.
fn set_validity(params: &mut CertificateParams, days: i64) {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let (from, until) = (today.saturating_sub(1.day()), today.saturating_add(days.days()));
    let date_time = |date: jiff::civil::Date| {
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = date_time(from);
    params.not_after = date_time(until);
}
