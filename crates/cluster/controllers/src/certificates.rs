//! CertificateSigningRequests: which are approved of themselves, which are signed, and which are old.
//!
//! Called by the controller manager's shell. Invariants: only what a node asks for itself is approved without a user;
//! only Kubernetes' own signers sign, and `legacy-unknown` never without approval; a request that a signer's rules
//! forbid fails, it is not signed in part.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";
pub const UNKNOWN: &str = "kubernetes.io/legacy-unknown";
const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

const APPROVED_FOR: SignedDuration = SignedDuration::from_hours(1);
const DENIED_FOR: SignedDuration = SignedDuration::from_hours(1);
const PENDING_FOR: SignedDuration = SignedDuration::from_hours(24);

/// What the request itself says, read from its bytes by the shell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<String>,
    /// E-mail addresses and URIs.
    pub others: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Nothing,
    /// Look again then.
    Wait(Timestamp),
    Approve(CertificateSigningRequestCondition),
    Sign,
    Fail(CertificateSigningRequestCondition),
    Delete,
}

fn has(request: &CertificateSigningRequest, type_: &str) -> Option<Timestamp> {
    let conditions = request.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|c| c.type_ == type_ && c.status == "True")?;
    found.last_update_time.as_ref().map(|t| t.0).or(Some(Timestamp::MIN))
}

fn condition(type_: &str, reason: &str, message: String, now: Timestamp) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

pub fn decide(request: &CertificateSigningRequest, asked: Result<&Asked, &str>, now: Timestamp) -> Action {
    let created = request.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let signed = request.status.as_ref().is_some_and(|s| s.certificate.as_ref().is_some_and(|c| !c.0.is_empty()));
    let ended = has(request, "Denied").or(has(request, "Failed"));
    if signed {
        let since = has(request, "Approved").map_or(created, |at| at.max(created));
        return expires(since + APPROVED_FOR, now);
    }
    if let Some(at) = ended {
        return expires(at.max(created) + DENIED_FOR, now);
    }
    if has(request, "Approved").is_some() {
        let signers = [CLIENT, NODE_CLIENT, NODE_SERVING, UNKNOWN];
        if !signers.contains(&request.spec.signer_name.as_str()) {
            return expires(created + PENDING_FOR, now);
        }
        return match asked.map_err(str::to_owned).and_then(|asked| check(request, asked)) {
            Ok(()) => Action::Sign,
            Err(why) => Action::Fail(condition("Failed", "SignerValidationFailure", why, now)),
        };
    }
    if asked.is_ok_and(|asked| is_own_node(request, asked)) {
        let why = "Auto approving self kubelet client certificate after SubjectAccessReview.".to_owned();
        return Action::Approve(condition("Approved", "AutoApproved", why, now));
    }
    expires(created + PENDING_FOR, now)
}

fn expires(at: Timestamp, now: Timestamp) -> Action {
    if at <= now { Action::Delete } else { Action::Wait(at) }
}

/// A node asks for a client certificate in its own name.
fn is_own_node(request: &CertificateSigningRequest, asked: &Asked) -> bool {
    request.spec.signer_name == NODE_CLIENT
        && request.spec.username.as_deref() == Some(&asked.common_name)
        && check(request, asked).is_ok()
}

/// The rules of the signer.
fn check(request: &CertificateSigningRequest, asked: &Asked) -> Result<(), String> {
    let usages: Vec<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
    let only = |allowed: &[&str]| usages.iter().all(|u| allowed.contains(u));
    let node = || {
        if asked.organizations != [NODES] {
            return Err("subject organization is not system:nodes".to_owned());
        }
        if !asked.common_name.starts_with(NODE_PREFIX) || asked.common_name.len() == NODE_PREFIX.len() {
            return Err("subject common name does not begin with system:node: ".to_owned());
        }
        Ok(())
    };
    let names = asked.dns_names.len() + asked.addresses.len();
    match request.spec.signer_name.as_str() {
        CLIENT if !usages.contains(&"client auth") => Err("usages did not contain client auth".into()),
        CLIENT if !only(&["client auth", "digital signature", "key encipherment"]) => {
            Err("usages other than digital signature, key encipherment, and client auth are not allowed".into())
        }
        CLIENT if asked.organizations.iter().any(|o| o == "system:masters") => {
            Err("use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed".into())
        }
        NODE_CLIENT => {
            node()?;
            if names + asked.others > 0 {
                return Err("DNS, IP, e-mail and URI subjectAltNames are not allowed".into());
            }
            if !usages.contains(&"client auth") || !only(&["client auth", "digital signature", "key encipherment"]) {
                return Err("usages did not match [client auth digital signature key encipherment]".into());
            }
            Ok(())
        }
        NODE_SERVING => {
            node()?;
            if request.spec.username.as_deref() != Some(&asked.common_name) {
                return Err("subject common name does not match the requesting user".into());
            }
            if names == 0 || asked.others > 0 {
                return Err("DNS or IP subjectAltName is required, e-mail and URI are not allowed".into());
            }
            if !usages.contains(&"server auth") || !only(&["server auth", "digital signature", "key encipherment"]) {
                return Err("usages did not match [server auth digital signature key encipherment]".into());
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn request(signer: &str, usages: &[&str], conditions: Value, signed: bool) -> CertificateSigningRequest {
        let certificate = if signed { json!("eA==") } else { Value::Null };
        serde_json::from_value(json!({"metadata": {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"request": "eA==", "signerName": signer, "usages": usages, "username": "system:node:n"},
            "status": {"conditions": conditions, "certificate": certificate}}))
        .unwrap()
    }

    fn at(hour: i64) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(hour)
    }

    fn node() -> Asked {
        Asked { common_name: "system:node:n".into(), organizations: vec![NODES.into()], ..Asked::default() }
    }

    fn approved() -> Value {
        json!([{"type": "Approved", "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z"}])
    }

    const USES: [&str; 2] = ["client auth", "digital signature"];

    #[test]
    fn only_what_a_node_asks_for_itself_is_approved_without_a_user() {
        let own = request(NODE_CLIENT, &USES, json!([]), false);
        assert!(
            matches!(decide(&own, Ok(&node()), at(0)), Action::Approve(c) if c.reason.as_deref() == Some("AutoApproved"))
        );
        let other = Asked { common_name: "system:node:x".into(), ..node() };
        assert_eq!(decide(&own, Ok(&other), at(0)), Action::Wait(at(24)));
        for signer in [CLIENT, UNKNOWN, "example.com/own"] {
            assert_eq!(decide(&request(signer, &USES, json!([]), false), Ok(&node()), at(0)), Action::Wait(at(24)));
        }
    }

    #[test]
    fn approved_requests_are_signed_when_the_signers_rules_hold() {
        let user = Asked { common_name: "jane".into(), organizations: vec!["devs".into()], ..Asked::default() };
        let master = Asked { organizations: vec!["system:masters".into()], ..user.clone() };
        let serving = Asked { dns_names: vec!["n".into()], ..node() };
        for (signer, usages, asked, signs) in [
            (CLIENT, &USES[..], &user, true),
            (CLIENT, &["server auth"], &user, false),
            (CLIENT, &USES, &master, false),
            (NODE_CLIENT, &USES, &node(), true),
            (NODE_CLIENT, &USES, &user, false),
            (NODE_SERVING, &["server auth"], &serving, true),
            (NODE_SERVING, &["server auth"], &node(), false),
            (UNKNOWN, &["server auth"], &user, true),
        ] {
            let action = decide(&request(signer, usages, approved(), false), Ok(asked), at(0));
            assert_eq!(action == Action::Sign, signs, "{signer} {usages:?}: {action:?}");
            assert!(signs || matches!(action, Action::Fail(_)));
        }
        let foreign = request("example.com/own", &USES, approved(), false);
        assert_eq!(decide(&foreign, Ok(&user), at(0)), Action::Wait(at(24)), "another signs it");
    }

    #[test]
    fn old_requests_are_deleted_each_kind_in_its_time() {
        let denied = json!([{"type": "Denied", "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z"}]);
        for (request, hours) in [
            (request(CLIENT, &USES, json!([]), false), 24),
            (request(CLIENT, &USES, denied, false), 1),
            (request(CLIENT, &USES, approved(), true), 1),
        ] {
            assert_eq!(decide(&request, Ok(&Asked::default()), at(hours - 1)), Action::Wait(at(hours)));
            assert_eq!(decide(&request, Ok(&Asked::default()), at(hours)), Action::Delete);
        }
    }
}
