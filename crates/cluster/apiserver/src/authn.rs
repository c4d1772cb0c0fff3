//! Who sends a request: a client certificate of our CA, a service-account or bootstrap token, or nobody in particular; and
//! impersonation, once it is allowed.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use kube_types::status;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::authz::{self, Attributes};
use crate::call::Call;
use crate::error::ApiResult;
use crate::identity::{self, Identity};
use crate::request::percent_decode;
use crate::server::ApiServer;
use crate::{keys, object};

/// The user of a connection's verified client certificate: CN is the name, each O a group.
pub(crate) fn of_certificate(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups = subject.iter_organization().filter_map(|organization| organization.as_str().ok());
    (!name.is_empty()).then(|| Identity::new(name, groups))
}

/// Decides who sent a request from outside. A wrong credential is refused, none at all is anonymous.
pub(crate) fn identify(server: &ApiServer, certificate: Option<&Identity>, headers: &HeaderMap) -> ApiResult<Identity> {
    if let Some(identity) = certificate {
        return Ok(identity.clone());
    }
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Ok(Identity::anonymous());
    };
    let token = header.to_str().ok().and_then(|header| header.split_once(' '));
    let Some((scheme, token)) = token else {
        return Err(status::unauthorized().into());
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Identity::anonymous());
    }
    let now = Timestamp::now();
    if let Some(user) = bootstrap_token(server, token.trim(), now) {
        return Ok(user);
    }
    server.tokens.verify(&server.store, token.trim(), &[], now).map_err(|error| {
        tracing::debug!(%error, "token refused");
        status::unauthorized().into()
    })
}

/// `ID.SECRET` of a bootstrap token, by which a machine joins: a Secret in `kube-system` that says it may be used so.
fn bootstrap_token(server: &ApiServer, token: &str, now: Timestamp) -> Option<Identity> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    if !plain(id, 6) || !plain(secret, 16) {
        return None;
    }
    let key = keys::known("", "secrets", "kube-system", &format!("bootstrap-token-{id}"));
    let stored = object::decode(&server.store.get(&key)?.value);
    let field = |name: &str| -> Option<String> {
        String::from_utf8(BASE64.decode(stored["data"][name].as_str()?).ok()?).ok()
    };
    let same = field("token-secret")
        .is_some_and(|own| is_same_secret(own.as_bytes(), secret.as_bytes()));
    let current = match field("expiration") {
        Some(until) => kube_types::time::parse(&until).is_some_and(|until| until > now),
        None => true,
    };
    let usable = stored["type"] == "bootstrap.kubernetes.io/token"
        && field("token-id").as_deref() == Some(id)
        && field("usage-bootstrap-authentication").as_deref() == Some("true");
    if !same || !current || !usable || kube_types::meta::is_being_deleted(&stored) {
        return None;
    }
    let more = field("auth-extra-groups").unwrap_or_default();
    let more = more.split(',').filter(|group| group.starts_with("system:bootstrappers:")).map(str::to_owned);
    let groups = std::iter::once("system:bootstrappers".to_owned()).chain(more);
    Some(Identity::new(format!("system:bootstrap:{id}"), groups))
}

/// Compares every byte, so that the time taken tells nothing about where two secrets differ.
fn is_same_secret(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

/// Replaces the user by the one that the `Impersonate-…` headers name, each part of which has to be allowed.
pub(crate) fn impersonate(call: &mut Call) -> ApiResult<()> {
    let texts = |name: &str| -> Vec<String> {
        call.headers.get_all(name).iter().filter_map(|value| value.to_str().ok().map(str::to_owned)).collect()
    };
    let user = texts("impersonate-user").into_iter().next().unwrap_or_default();
    let groups = texts("impersonate-group");
    let uid = texts("impersonate-uid").into_iter().next().unwrap_or_default();
    let extra = extra_headers(&call.headers);
    if user.is_empty() {
        if groups.is_empty() && extra.is_empty() && uid.is_empty() {
            return Ok(());
        }
        return Err(status::bad_request("requested impersonation of groups or extra without a user").into());
    }
    let mut wanted = Identity { name: user, uid, groups, extra };
    check_impersonation(call, &wanted)?;
    complete(&mut wanted);
    tracing::info!(user = call.user.name, impersonated = wanted.name, "impersonation");
    call.user = wanted;
    Ok(())
}

fn extra_headers(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix("impersonate-extra-"), value.to_str()) {
            extra.entry(percent_decode(key)).or_default().push(value.to_owned());
        }
    }
    extra
}

fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix(identity::SERVICE_ACCOUNT_PREFIX)?.split_once(':')
}

fn check_impersonation(call: &Call, wanted: &Identity) -> ApiResult<()> {
    let check = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let attributes =
            Attributes { group, resource, subresource, namespace, name, ..Attributes::verb("impersonate") };
        if authz::decide(&call.server, &call.user, &attributes) {
            Ok(())
        } else {
            Err(authz::denial(&call.user, &attributes))
        }
    };
    match service_account(&wanted.name) {
        Some((namespace, name)) => check("", "serviceaccounts", "", namespace, name)?,
        None => check("", "users", "", "", &wanted.name)?,
    }
    for group in &wanted.groups {
        check("", "groups", "", "", group)?;
    }
    if !wanted.uid.is_empty() {
        check("authentication.k8s.io", "uids", "", "", &wanted.uid)?;
    }
    for (key, values) in &wanted.extra {
        for value in values {
            check("authentication.k8s.io", "userextras", key, "", value)?;
        }
    }
    Ok(())
}

fn complete(user: &mut Identity) {
    if let (Some((namespace, _)), true) = (service_account(&user.name), user.groups.is_empty()) {
        user.groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let group = if user.name == identity::ANONYMOUS { identity::UNAUTHENTICATED } else { identity::AUTHENTICATED };
    if !user.in_group(group) {
        user.groups.push(group.to_owned());
    }
}
