//! What the server adds to an object, or refuses, before it is stored, kind by kind.
//!
//! Invariant: admission only reads; what has to be true at commit, and what is written along with the object, is handed
//! back as [`Effects`] for the object's own transaction.

mod certificates;
mod defaults;
mod limits;
mod namespace;
mod pod;
mod pod_security;
mod quota;
mod roles;
mod service;

use bytes::Bytes;
use kube_types::lifecycle::Subresource;
use serde_json::Value;
use store::{Compare, Op};

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::extension::definitions;

/// Guards and writes that join an object's transaction.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) compare: Vec<Compare>,
    pub(crate) ops: Vec<Op>,
}

pub(crate) fn on_create(call: &Call, target: &Target, object: &mut Value) -> ApiResult<Effects> {
    let mut effects = Effects::default();
    namespace::on_create(call, target, &mut effects)?;
    match (target.resource.group.as_ref(), target.resource.plural.as_ref()) {
        ("", "pods") => {
            pod::on_create(call, target, object)?;
            defaults::runtime_class(call, target, object)?;
            limits::on_pod(call, target, object)?;
            pod::classify(object);
        }
        ("", "persistentvolumeclaims") => {
            defaults::storage_class(call, object)?;
            limits::on_claim(call, target, object)?;
        }
        ("networking.k8s.io", "ingresses") => defaults::ingress_class(call, target, object)?,
        ("certificates.k8s.io", "certificatesigningrequests") => certificates::on_create(call, target, object)?,
        ("", "services") => service::on_create(call, target, object, &mut effects)?,
        (definitions::GROUP, definitions::PLURAL) => definitions::on_create(object),
        ("", "namespaces") => {
            namespace::complete(object);
            pod_security::check_namespace(call, target, None, object)?;
        }
        ("", "nodes") => {
            crate::authz::node::check_node_write(call, target, object, None)?;
            defaults::new_node(object);
        }
        ("rbac.authorization.k8s.io", _) => roles::check_escalation(call, target, object, None)?,
        _ => {}
    }
    pod_security::check(call, target, None, object, Subresource::Main)?;
    quota::charge(call, target, None, object, &mut effects)?;
    Ok(effects)
}

pub(crate) fn on_update(
    call: &Call,
    target: &Target,
    old: &Value,
    new: &mut Value,
    subresource: Subresource<'_>,
) -> ApiResult<Effects> {
    let mut effects = Effects::default();
    match (target.resource.group.as_ref(), target.resource.plural.as_ref()) {
        ("", "services") if subresource == Subresource::Main => {
            service::on_update(call, target, old, new, &mut effects)?
        }
        (definitions::GROUP, definitions::PLURAL) if subresource == Subresource::Main => definitions::on_update(new),
        ("", "namespaces") => {
            namespace::complete(new);
            pod_security::check_namespace(call, target, Some(old), new)?;
        }
        ("", "persistentvolumeclaims") if subresource == Subresource::Main => {
            defaults::claim_growth(call, target, old, new)?;
        }
        ("certificates.k8s.io", "certificatesigningrequests") => certificates::on_update(call, target, old, new)?,
        ("", "nodes") => crate::authz::node::check_node_write(call, target, new, Some(old))?,
        ("", "pods") => crate::authz::node::check_pod_write(call, target, old)?,
        ("rbac.authorization.k8s.io", _) => roles::check_escalation(call, target, new, Some(old))?,
        _ => {}
    }
    pod_security::check(call, target, Some(old), new, subresource)?;
    if subresource != Subresource::Status {
        quota::charge(call, target, Some(old), new, &mut effects)?;
    }
    Ok(effects)
}

pub(crate) fn on_delete(call: &Call, target: &Target, object: &Value) -> ApiResult<()> {
    match (target.resource.group.as_ref(), target.resource.plural.as_ref()) {
        ("", "namespaces") => namespace::on_delete(target),
        ("", "pods") => crate::authz::node::check_pod_write(call, target, object),
        _ => Ok(()),
    }
}

/// What goes with an object when it is removed for good.
pub(crate) fn on_remove(target: &Target, stored: &Bytes) -> Effects {
    if target.is("", "services") { service::on_remove(&crate::object::decode(stored)) } else { Effects::default() }
}
