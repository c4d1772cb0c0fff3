//! Signs what a CertificateSigningRequest asks for.
//!
//! Called through the wiring by the certificate controller, which has checked the signer's rules. Invariants: the
//! request's own signature is verified; subject and names are the request's, usages and validity are not; what is
//! signed is never an authority.

use super::{Pki, PkiError};
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

/// As long as Kubernetes' own signer gives by default.
const LONGEST: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Clocks of clients may be a little behind.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

impl Pki {
    /// The certificate in PEM. `usages` are those of the API (`client auth`, `digital signature`, …).
    pub fn sign(
        &self,
        request_pem: &str,
        usages: &[String],
        valid_for: Option<SignedDuration>,
    ) -> Result<String, PkiError> {
        let failed = |source| PkiError::Certificate { what: "the requested certificate", source };
        let mut request = CertificateSigningRequestParams::from_pem(request_pem).map_err(failed)?;
        let params = &mut request.params;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = usages.iter().filter_map(|u| key_usage(u)).collect();
        params.extended_key_usages = usages.iter().filter_map(|u| extended_usage(u)).collect();
        params.use_authority_key_identifier_extension = true;
        let now = Timestamp::now();
        let until = now + valid_for.unwrap_or(LONGEST).clamp(SignedDuration::from_mins(10), LONGEST);
        // The library's clock type is only named by it; it starts from a date and adds seconds.
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let after = |at: Timestamp| epoch + std::time::Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0));
        params.not_before = after(now - BACKDATE);
        params.not_after = after(until);
        let certificate = request.signed_by(self.authority.issuer()).map_err(failed)?;
        Ok(certificate.pem())
    }
}

fn key_usage(usage: &str) -> Option<KeyUsagePurpose> {
    Some(match usage {
        "signing" | "digital signature" => KeyUsagePurpose::DigitalSignature,
        "content commitment" => KeyUsagePurpose::ContentCommitment,
        "key encipherment" => KeyUsagePurpose::KeyEncipherment,
        "key agreement" => KeyUsagePurpose::KeyAgreement,
        "data encipherment" => KeyUsagePurpose::DataEncipherment,
        _ => return None,
    })
}

fn extended_usage(usage: &str) -> Option<ExtendedKeyUsagePurpose> {
    Some(match usage {
        "any" => ExtendedKeyUsagePurpose::Any,
        "server auth" => ExtendedKeyUsagePurpose::ServerAuth,
        "client auth" => ExtendedKeyUsagePurpose::ClientAuth,
        "code signing" => ExtendedKeyUsagePurpose::CodeSigning,
        "email protection" | "s/mime" => ExtendedKeyUsagePurpose::EmailProtection,
        "timestamping" => ExtendedKeyUsagePurpose::TimeStamping,
        "ocsp signing" => ExtendedKeyUsagePurpose::OcspSigning,
        _ => return None,
    })
}
