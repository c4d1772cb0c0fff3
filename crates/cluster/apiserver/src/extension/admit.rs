//! What happens to every write between the server's own admission and the store: mutating policies and webhooks, then (once
//! the object is valid) validating policies and webhooks.
//!
//! Called by the write path. Configurations are decoded and compiled once per version of them ([`Hooks`]). Invariant: the
//! configurations themselves are never subject to what they configure, so that a wrong one can always be taken away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kube_types::{FieldError, meta, status, strict};
use serde_json::{Value, json};
use store::Store;

use super::attempt::Attempt;
use super::hooks::{self, Hook};
use super::{mutating, policies};
use crate::call::{Call, Target, WriteOptions};
use crate::error::ApiResult;
use crate::{keys, object};

pub(crate) const GROUP: &str = "admissionregistration.k8s.io";

/// Decoded configurations, by key.
#[derive(Default)]
pub(crate) struct Hooks {
    webhooks: Cache<Vec<Hook>>,
    pub(crate) policies: Cache<policies::Policy>,
    pub(crate) mutating: Cache<mutating::Policy>,
}

/// Values made from stored objects, each as long as its object stays the same.
pub(crate) struct Cache<T>(Mutex<HashMap<Bytes, (u64, Arc<T>)>>);

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Cache<T> {
    /// What `make` makes of each object of a kind, in the order of their names.
    pub(crate) fn all(&self, store: &Store, plural: &str, make: impl Fn(&Value) -> T) -> Vec<Arc<T>> {
        let prefix = format!("{}{GROUP}/{plural}/", keys::ROOT);
        let Ok(range) = store.range(prefix.as_bytes(), None, 0, None) else { return Vec::new() };
        if range.items.is_empty() {
            return Vec::new();
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|key, _| !key.starts_with(prefix.as_bytes()) || range.items.iter().any(|item| item.key == *key));
        let mut all = Vec::new();
        for item in range.items {
            let entry = known.get(&item.key).filter(|(revision, _)| *revision == item.mod_revision);
            let made = entry.map(|(_, made)| Arc::clone(made)).unwrap_or_else(|| {
                let made = Arc::new(make(&object::decode(&item.value)));
                known.insert(item.key.clone(), (item.mod_revision, Arc::clone(&made)));
                made
            });
            all.push(made);
        }
        all
    }
}

/// Objects of a kind that are wanted as they are: bindings.
pub(crate) fn stored(store: &Store, plural: &str) -> Vec<Value> {
    let prefix = format!("{}{GROUP}/{plural}/", keys::ROOT);
    let items = store.range(prefix.as_bytes(), None, 0, None).map(|range| range.items).unwrap_or_default();
    items.iter().map(|item| object::decode(&item.value)).collect()
}

fn is_exempt(target: &Target) -> bool {
    target.resource.group == GROUP || !target.resource.is_stored()
}

fn attempt<'a>(
    call: &'a Call,
    target: &'a Target,
    operation: &'static str,
    name: &str,
    old: Option<&Value>,
    options: &WriteOptions,
) -> Attempt<'a> {
    let kind = match operation {
        "CREATE" => "CreateOptions",
        "DELETE" => "DeleteOptions",
        _ if call.info.verb == "patch" => "PatchOptions",
        _ => "UpdateOptions",
    };
    let mut attempt = Attempt::new(call, target, operation, name);
    attempt.old = old.map(|old| part(target, old));
    attempt.dry_run = options.dry_run;
    attempt.options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if operation != "DELETE" {
        attempt.options["fieldManager"] = options.manager.as_str().into();
    }
    if options.dry_run {
        attempt.options["dryRun"] = json!(["All"]);
    }
    attempt
}

/// The object as a webhook for this (sub)resource sees it.
fn part(target: &Target, object: &Value) -> Value {
    if target.subresource == "scale" { crate::resources::scale_of(target, object) } else { object.clone() }
}

/// Lets policies and webhooks change an object that is to be created (`old` is `None`) or updated.
pub(crate) async fn mutate(
    call: &Call,
    target: &Target,
    old: Option<&Value>,
    new: &mut Value,
    options: &WriteOptions,
) -> ApiResult<()> {
    if is_exempt(target) {
        return Ok(());
    }
    let hooks = call.server.hooks.webhooks.all(&call.server.store, "mutatingwebhookconfigurations", hooks::read);
    let policies = mutating::all(call);
    if hooks.is_empty() && policies.is_empty() {
        return Ok(());
    }
    let name = meta::name(new).to_owned();
    let operation = if old.is_some() { "UPDATE" } else { "CREATE" };
    let attempt = attempt(call, target, operation, &name, old, options);
    let before = new.clone();
    let mut shown = part(target, new);
    let mut again = false;
    // What ran before something else changed the object may want to see it again, once.
    let mut changed_by_policies = mutating::run(&attempt, &policies, &mut shown, false).await?;
    let mut seen: HashMap<String, Value> = HashMap::new();
    for round in 0..2 {
        for hook in hooks.iter().flat_map(|all| all.iter()) {
            let last = seen.get(&hook.id);
            if round == 1 && (!hook.reinvoke || last.is_none_or(|last| *last == shown)) {
                continue;
            }
            if let Some(patched) = hooks::mutate(&attempt, hook, &shown).await? {
                again |= patched != shown;
                shown = patched;
                settle(target, &before, &mut shown)?;
            }
            seen.insert(hook.id.clone(), shown.clone());
        }
        if !again && !changed_by_policies {
            break;
        }
        if round == 0 {
            changed_by_policies = mutating::run(&attempt, &policies, &mut shown, true).await?;
        }
    }
    if target.subresource != "scale" {
        *new = shown;
        settle(target, &before, new)?;
    }
    Ok(())
}

/// A changed object is decoded and defaulted like one that a client sent, and keeps its identity.
fn settle(target: &Target, before: &Value, new: &mut Value) -> ApiResult<()> {
    if target.subresource == "scale" {
        return Ok(());
    }
    strict::prune(&target.resource, new).map_err(status::internal)?;
    target.resource.default(new);
    for field in ["uid", "creationTimestamp", "namespace", "resourceVersion", "generation", "deletionTimestamp", "selfLink"] {
        meta::set(new, field, before["metadata"].get(field).cloned());
    }
    Ok(())
}

/// Asks policies and webhooks whether a valid object may be stored.
pub(crate) async fn validate(
    call: &Call,
    target: &Target,
    old: Option<&Value>,
    new: &Value,
    options: &WriteOptions,
) -> ApiResult<()> {
    if is_exempt(target) {
        return Ok(());
    }
    let operation = if old.is_some() { "UPDATE" } else { "CREATE" };
    let name = meta::name(new).to_owned();
    judge(&|| attempt(call, target, operation, &name, old, options), call, Some(&part(target, new))).await
}

/// Asks whether an object may be deleted.
pub(crate) async fn on_delete(call: &Call, target: &Target, object: &Value, options: &WriteOptions) -> ApiResult<()> {
    if is_exempt(target) {
        return Ok(());
    }
    judge(&|| attempt(call, target, "DELETE", meta::name(object), Some(object), options), call, None).await?;
    let hooks = call.server.hooks.webhooks.all(&call.server.store, "mutatingwebhookconfigurations", hooks::read);
    if hooks.is_empty() {
        return Ok(());
    }
    let attempt = attempt(call, target, "DELETE", meta::name(object), Some(object), options);
    for hook in hooks.iter().flat_map(|all| all.iter()) {
        hooks::ask(&attempt, hook, None).await?;
    }
    Ok(())
}

/// Asks about a request to a part of an object that is not the object's own shape: streams (CONNECT), bindings, evictions and
/// tokens (CREATE). Mutating webhooks are asked too, for some only look; their patches count for nothing.
pub(crate) async fn on_part(call: &Call, target: &Target) -> ApiResult<()> {
    let operation = match target.subresource.as_str() {
        "exec" | "attach" | "portforward" | "proxy" => "CONNECT",
        "binding" | "eviction" | "token" if call.info.verb == "create" => "CREATE",
        _ => return Ok(()),
    };
    let store = &call.server.store;
    let mutating = call.server.hooks.webhooks.all(store, "mutatingwebhookconfigurations", hooks::read);
    let validating = call.server.hooks.webhooks.all(store, "validatingwebhookconfigurations", hooks::read);
    let policies = policies::all(call);
    if mutating.is_empty() && validating.is_empty() && policies.is_empty() {
        return Ok(());
    }
    let options = call.write_options()?;
    let mut attempt = attempt(call, target, operation, &target.name, None, &options);
    let object = if operation == "CONNECT" {
        attempt.options = Value::Null;
        connect_options(call, target)
    } else {
        call.loose_body()?
    };
    policies::judge(&attempt, &policies, Some(&object))?;
    for hook in mutating.iter().chain(&validating).flat_map(|all| all.iter()) {
        hooks::ask(&attempt, hook, Some(&object)).await?;
    }
    Ok(())
}

/// `PodExecOptions` and its like, from the query.
fn connect_options(call: &Call, target: &Target) -> Value {
    let kind = target.resource.subresource(&target.subresource).map_or("", |own| own.kind.as_ref());
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    for flag in ["stdin", "stdout", "stderr", "tty"] {
        if call.query.flag(flag) {
            options[flag] = true.into();
        }
    }
    if let Some(container) = call.query.text("container") {
        options["container"] = container.into();
    }
    for (key, lists) in [("command", true), ("path", false)] {
        let all: Vec<&str> = call.query.all(key).collect();
        match (all.first(), lists) {
            (Some(_), true) => options[key] = json!(all),
            (Some(first), false) => options[key] = (*first).into(),
            (None, _) => {}
        }
    }
    options
}

async fn judge<'a>(make: &(dyn Fn() -> Attempt<'a> + Sync), call: &Call, new: Option<&Value>) -> ApiResult<()> {
    let hooks = call.server.hooks.webhooks.all(&call.server.store, "validatingwebhookconfigurations", hooks::read);
    let policies = policies::all(call);
    if hooks.is_empty() && policies.is_empty() {
        return Ok(());
    }
    let attempt = make();
    policies::judge(&attempt, &policies, new)?;
    let asked = hooks.iter().flat_map(|all| all.iter()).map(|hook| hooks::ask(&attempt, hook, new));
    for answer in futures_util::future::join_all(asked).await {
        answer?;
    }
    Ok(())
}

/// What kube-types' own validation leaves to this crate: the expressions of webhooks and policies.
pub(crate) fn validate_configuration(target: &Target, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if target.resource.group != GROUP {
        return errors;
    }
    match target.resource.plural.as_ref() {
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => hooks::check(object, &mut errors),
        "validatingadmissionpolicies" => policies::check(object, &mut errors),
        "mutatingadmissionpolicies" => mutating::check(object, &mut errors),
        _ => {}
    }
    errors
}
