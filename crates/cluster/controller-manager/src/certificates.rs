//! The certificate shell: approves what nodes ask for themselves, signs what is approved, deletes what is old.

use crate::Context;
use crate::runner::{Outcome, Queue, Reconcile, feed, or_gone, own_key, run};
use controllers::certificates::{self, Action, Asked};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_client::informer::{Cache, ObjectKey, Scope};
use kube_client::{ClientError, DeleteOptions};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::task::JoinSet;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

/// Signs a request in PEM for usages and a time; the wiring gives it the cluster's authority.
#[derive(Clone)]
pub struct Signer(Arc<Sign>);

type Sign = dyn Fn(&str, &[String], Option<SignedDuration>) -> Result<String, String> + Send + Sync;

impl Signer {
    pub fn new(
        sign: impl Fn(&str, &[String], Option<SignedDuration>) -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        Signer(Arc::new(sign))
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

struct Certificates {
    context: Arc<Context>,
    cache: Cache<CertificateSigningRequest>,
    signer: Signer,
}

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let Some(signer) = context.config.signer.clone() else { return };
    let queue = Queue::default();
    let cache: Cache<CertificateSigningRequest> = Cache::start(&context.client, Scope::default());
    feed(tasks, &cache, &queue, own_key);
    run(tasks, context, &queue, Certificates { context: context.clone(), cache, signer }, 1);
}

/// What the bytes say; Err: why they cannot be read.
fn read(request: &CertificateSigningRequest) -> Result<(String, Asked), String> {
    let pem = String::from_utf8(request.spec.request.0.clone()).map_err(|_| "the request is not PEM".to_owned())?;
    let (_, block) =
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|e| format!("the request is not PEM: {e}"))?;
    let (_, parsed) =
        X509CertificationRequest::from_der(&block.contents).map_err(|e| format!("the request cannot be read: {e}"))?;
    let subject = &parsed.certification_request_info.subject;
    let mut asked = Asked {
        common_name: subject
            .iter_common_name()
            .filter_map(|n| n.as_str().ok())
            .map(str::to_owned)
            .next()
            .unwrap_or_default(),
        organizations: subject.iter_organization().filter_map(|n| n.as_str().ok()).map(str::to_owned).collect(),
        ..Asked::default()
    };
    for extension in parsed.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => asked.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => asked.addresses.extend(address(bytes)),
                _ => asked.others += 1,
            }
        }
    }
    drop(parsed);
    Ok((pem, asked))
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|a| a.to_string())
}

impl Reconcile for Certificates {
    const NAME: &'static str = "certificatesigningrequest";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(request) = self.cache.get_key(key) else { return Ok(None) };
        let read = read(&request);
        let asked = read.as_ref().map(|(_, asked)| asked).map_err(String::as_str);
        match certificates::decide(&request, asked, Timestamp::now()) {
            Action::Nothing => Ok(None),
            Action::Wait(at) => Ok(Some(at)),
            Action::Delete => {
                let api = self.context.client.api::<CertificateSigningRequest>();
                or_gone(api.delete(&key.name, &DeleteOptions::of(&request.metadata)).await)?;
                Ok(None)
            }
            Action::Approve(condition) => {
                let changed = with_condition(&request, condition);
                let path = format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{}/approval", key.name);
                let body = serde_json::to_value(&changed)
                    .map_err(|source| ClientError::Encode { what: path.clone(), source })?;
                let put = crate::discovery::request(http::Method::PUT, &path, "application/json", Some(&body))?;
                self.context.client.raw(put).await?;
                Ok(None)
            }
            Action::Fail(condition) => self.write(&with_condition(&request, condition)).await,
            Action::Sign => {
                let pem = read.map(|(pem, _)| pem).unwrap_or_default();
                let usages = request.spec.usages.clone().unwrap_or_default();
                let valid_for = request.spec.expiration_seconds.map(|s| SignedDuration::from_secs(i64::from(s)));
                let mut changed = CertificateSigningRequest::clone(&request);
                match (self.signer.0)(&pem, &usages, valid_for) {
                    Ok(certificate) => {
                        let status = changed.status.get_or_insert_default();
                        status.certificate = Some(ByteString(certificate.into_bytes()));
                    }
                    Err(why) => changed = with_condition(&request, failed(why)),
                }
                self.write(&changed).await
            }
        }
    }
}

fn failed(why: String) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: "Failed".into(),
        status: "True".into(),
        reason: Some("SigningError".into()),
        message: Some(why),
        last_update_time: Some(Time(Timestamp::now())),
        last_transition_time: Some(Time(Timestamp::now())),
    }
}

fn with_condition(
    request: &CertificateSigningRequest,
    condition: CertificateSigningRequestCondition,
) -> CertificateSigningRequest {
    let mut changed = request.clone();
    changed.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
    changed
}

impl Certificates {
    async fn write(&self, changed: &CertificateSigningRequest) -> Outcome {
        let written = self.context.client.api::<CertificateSigningRequest>().update_status(changed).await?;
        self.cache.observe(&written);
        Ok(None)
    }
}
