//! One write on its way through webhooks and policies: what is attempted, and which rules it falls under.
//!
//! Built by [`super::admit`]. Pure but for looking the namespace up in the store.

use std::sync::{Arc, OnceLock};

use kube_types::selector::LabelSelector;
use kube_types::{Resource, meta};
use serde_json::{Value, json};

use crate::call::{Call, Target};
use crate::{keys, object};

/// What is attempted.
pub(crate) struct Attempt<'a> {
    pub(crate) call: &'a Call,
    pub(crate) target: &'a Target,
    pub(crate) operation: &'static str,
    pub(crate) name: String,
    pub(crate) old: Option<Value>,
    pub(crate) dry_run: bool,
    pub(crate) options: Value,
    namespace: OnceLock<Option<Value>>,
}

/// The group, version and kind or plural by which a webhook or policy sees the attempt.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) resource: Arc<Resource>,
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(call: &'a Call, target: &'a Target, operation: &'static str, name: &str) -> Self {
        Self {
            call,
            target,
            operation,
            name: name.to_owned(),
            old: None,
            dry_run: false,
            options: Value::Null,
            namespace: OnceLock::new(),
        }
    }

    /// The kind of the object: that of the subresource where it has one of its own.
    pub(crate) fn kind(&self, seen: &Seen) -> Value {
        let own = seen.resource.subresource(&self.target.subresource);
        let (group, version) = own
            .and_then(|own| own.group_version.as_ref())
            .map_or((&seen.resource.group, &seen.resource.version), |(group, version)| (group, version));
        let kind = own.map_or(&seen.resource.kind, |own| &own.kind);
        json!({"group": group, "version": version, "kind": kind})
    }

    pub(crate) fn resource(&self, seen: &Seen) -> Value {
        json!({"group": seen.resource.group, "version": seen.resource.version, "resource": seen.resource.plural})
    }

    /// The `request` of an AdmissionReview, and of CEL, without the objects.
    pub(crate) fn request(&self, seen: &Seen) -> Value {
        let own = Seen { resource: Arc::clone(&self.target.resource) };
        let user = &self.call.user;
        let mut info = json!({"username": user.name, "groups": user.groups});
        if !user.uid.is_empty() {
            info["uid"] = user.uid.as_str().into();
        }
        if !user.extra.is_empty() {
            info["extra"] = json!(user.extra);
        }
        let mut request = json!({
            "kind": self.kind(seen), "resource": self.resource(seen),
            "requestKind": self.kind(&own), "requestResource": self.resource(&own),
            "operation": self.operation, "userInfo": info, "dryRun": self.dry_run, "options": self.options,
        });
        let parts = [("name", self.name.as_str()), ("namespace", self.namespace()), ("subResource", &self.target.subresource), ("requestSubResource", &self.target.subresource)];
        for (key, text) in parts {
            if !text.is_empty() {
                request[key] = text.into();
            }
        }
        request
    }

    fn is_namespace(&self) -> bool {
        self.target.is("", "namespaces")
    }

    pub(crate) fn namespace(&self) -> &str {
        if self.is_namespace() { &self.name } else { &self.target.namespace }
    }

    /// The namespace object that the attempt is in, if any.
    pub(crate) fn namespace_object(&self) -> Option<&Value> {
        let find = || {
            if self.is_namespace() || self.target.namespace.is_empty() {
                return None;
            }
            let key = keys::known("", "namespaces", "", &self.target.namespace);
            self.call.server.store.get(&key).map(|found| object::decode(&found.value))
        };
        self.namespace.get_or_init(find).as_ref()
    }

    /// How a list of rules sees the attempt: as it came, or as an equivalent version of the resource.
    pub(crate) fn seen_by(&self, rules: &[Value], equivalent: bool) -> Option<Seen> {
        let matches = |resource: &Resource| rules.iter().any(|rule| self.rule_matches(rule, resource));
        if matches(&self.target.resource) {
            return Some(Seen { resource: Arc::clone(&self.target.resource) });
        }
        if !equivalent {
            return None;
        }
        let served = &self.call.server.served;
        let own = &self.target.resource;
        let groups = served.groups();
        let versions = groups.iter().find(|(group, _)| *group == own.group).map(|(_, versions)| versions.as_slice());
        versions
            .unwrap_or_default()
            .iter()
            .filter_map(|version| served.find(&own.group, version, &own.plural))
            .find(|resource| matches(resource))
            .map(|resource| Seen { resource })
    }

    fn rule_matches(&self, rule: &Value, resource: &Resource) -> bool {
        let any = |key: &str, wanted: &str| {
            rule[key].as_array().into_iter().flatten().any(|own| own == "*" || own == wanted)
        };
        let names = rule["resourceNames"].as_array().map_or(&[][..], Vec::as_slice);
        let scope = match rule["scope"].as_str() {
            Some("Namespaced") => resource.namespaced && !self.is_namespace(),
            // A namespace is a cluster-scoped object.
            Some("Cluster") => !resource.namespaced,
            _ => true,
        };
        scope
            && any("operations", self.operation)
            && any("apiGroups", &resource.group)
            && any("apiVersions", &resource.version)
            && rule["resources"].as_array().into_iter().flatten().filter_map(Value::as_str).any(|own| {
                let (plural, subresource) = own.split_once('/').unwrap_or((own, ""));
                let wanted = self.target.subresource.as_str();
                (plural == "*" || plural == resource.plural)
                    && (subresource == wanted || subresource == "*" || own == "*" && wanted.is_empty())
            })
            && (names.is_empty() || names.iter().any(|own| own == self.name.as_str()))
    }

    /// Whether namespace and object carry the labels that are asked for. An unreadable selector selects nothing.
    pub(crate) fn selected(&self, hook: &Value, new: Option<&Value>) -> bool {
        let selector = |key: &str| LabelSelector::from_value(hook.get(key).unwrap_or(&Value::Null));
        let matches = |selector: &LabelSelector, object: &Value| selector.matches(|key| meta::label(object, key));
        if let Some(wanted) = hook.get("namespaceSelector").filter(|wanted| !is_empty(wanted)) {
            let Ok(wanted) = LabelSelector::from_value(wanted) else { return false };
            let labels = if self.is_namespace() { new.or(self.old.as_ref()) } else { self.namespace_object() };
            // What is in no namespace is not chosen by one.
            if labels.is_some_and(|object| !matches(&wanted, object)) {
                return false;
            }
        }
        if hook.get("objectSelector").is_none_or(is_empty) {
            return true;
        }
        match selector("objectSelector") {
            Ok(wanted) => [new, self.old.as_ref()].into_iter().flatten().any(|object| matches(&wanted, object)),
            Err(_) => false,
        }
    }
}

fn is_empty(selector: &Value) -> bool {
    let none = |key: &str| {
        selector.get(key).is_none_or(|part| {
            part.as_array().is_none_or(Vec::is_empty) && part.as_object().is_none_or(serde_json::Map::is_empty)
        })
    };
    none("matchLabels") && none("matchExpressions")
}
