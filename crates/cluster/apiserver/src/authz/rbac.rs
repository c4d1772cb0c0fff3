//! Role-based access control from the roles and bindings in the store, kept decoded by one task that follows their changes.
//!
//! Invariant: what is not granted is denied. A binding whose role is missing grants nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use kube_types::meta;
use kube_types::selector::LabelSelector;
use serde_json::{Value, json};
use store::{EventKind, KeyValue, Store};

use super::Attributes;
use crate::identity::{Identity, SERVICE_ACCOUNT_PREFIX};
use crate::keys;
use crate::object::{self, text};

const GROUP: &str = "rbac.authorization.k8s.io";

/// One rule of a role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) urls: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == "*" || own == wanted)
}

impl Rule {
    pub(crate) fn all_of(role: &Value) -> Vec<Self> {
        role["rules"].as_array().into_iter().flatten().map(Self::parse).collect()
    }

    pub(crate) fn parse(rule: &Value) -> Self {
        let list = |field: &str| -> Vec<String> {
            rule[field].as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            urls: list("nonResourceURLs"),
        }
    }

    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !has(&self.verbs, attributes.verb) {
            return false;
        }
        match attributes.path {
            Some(path) => self.urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => url == path,
            }),
            None => {
                has(&self.groups, attributes.group)
                    && self.names_resource(attributes)
                    && (self.names.is_empty() || self.names.iter().any(|name| name == attributes.name))
            }
        }
    }

    fn names_resource(&self, attributes: &Attributes<'_>) -> bool {
        let full = attributes.full_resource();
        self.resources.iter().any(|own| {
            own == "*"
                || *own == full
                || (!attributes.subresource.is_empty() && own.strip_prefix("*/") == Some(attributes.subresource))
        })
    }

    /// Each single permission of the rule.
    fn permissions(&self) -> Vec<Attributes<'_>> {
        let no_name = [String::new()];
        let names = if self.names.is_empty() { &no_name[..] } else { &self.names[..] };
        let mut all = Vec::new();
        for verb in &self.verbs {
            all.extend(self.urls.iter().map(|url| Attributes { path: Some(url), ..Attributes::verb(verb) }));
            for group in &self.groups {
                for resource in &self.resources {
                    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                    all.extend(names.iter().map(|name| Attributes {
                        verb,
                        group,
                        resource,
                        subresource,
                        // The borrow of `no_name` must not escape.
                        name: if name.is_empty() {
                            ""
                        } else {
                            self.names.iter().find(|own| *own == name).map_or("", |own| own)
                        },
                        ..Attributes::default()
                    }));
                }
            }
        }
        all
    }

    /// As Kubernetes prints a missing permission.
    pub(crate) fn describe(&self) -> String {
        let mut parts = Vec::new();
        for (label, list) in [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.names),
            ("NonResourceURLs", &self.urls),
            ("Verbs", &self.verbs),
        ] {
            if !list.is_empty() {
                parts.push(format!("{label}:{list:?}"));
            }
        }
        format!("{{{}}}", parts.join(", "))
    }

    fn to_value(&self) -> Value {
        let mut value = json!({"verbs": self.verbs});
        for (field, list) in [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.urls),
        ] {
            if !list.is_empty() {
                value[field] = json!(list);
            }
        }
        value
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Subject {
    User(String),
    Group(String),
}

#[derive(Debug)]
struct Binding {
    subjects: Vec<Subject>,
    role: RoleKey,
}

/// A Role (with its namespace) or a ClusterRole (without).
type RoleKey = (String, String);

impl Binding {
    fn parse(object: &Value) -> Self {
        let namespace = meta::namespace(object);
        let subjects = object["subjects"].as_array().into_iter().flatten().filter_map(|subject| {
            let name = text(subject, "/name");
            Some(match text(subject, "/kind") {
                "User" => Subject::User(name.to_owned()),
                "Group" => Subject::Group(name.to_owned()),
                "ServiceAccount" => {
                    let own = text(subject, "/namespace");
                    let own = if own.is_empty() { namespace } else { own };
                    Subject::User(format!("{SERVICE_ACCOUNT_PREFIX}{own}:{name}"))
                }
                _ => return None,
            })
        });
        let role_namespace = if text(object, "/roleRef/kind") == "Role" { namespace } else { "" };
        Self {
            subjects: subjects.collect(),
            role: (role_namespace.to_owned(), text(object, "/roleRef/name").to_owned()),
        }
    }

    fn binds(&self, user: &Identity) -> bool {
        self.subjects.iter().any(|subject| match subject {
            Subject::User(name) => *name == user.name,
            Subject::Group(group) => user.in_group(group),
        })
    }
}

struct Role {
    rules: Vec<Rule>,
    labels: BTreeMap<String, String>,
    /// A ClusterRole that is the sum of others.
    aggregates: Vec<LabelSelector>,
}

impl Role {
    fn parse(object: &Value) -> Self {
        let selectors = object.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array);
        Self {
            rules: Rule::all_of(object),
            labels: meta::labels(object).map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            aggregates: selectors.into_iter().flatten().filter_map(|one| LabelSelector::from_value(one).ok()).collect(),
        }
    }
}

#[derive(Default)]
struct Tables {
    roles: HashMap<RoleKey, Role>,
    /// By namespace (empty for cluster role bindings), then name.
    bindings: HashMap<String, BTreeMap<String, Binding>>,
}

impl Tables {
    fn put(&mut self, key: &[u8], stored: &[u8]) {
        let Some((plural, namespace, name)) = parse_key(key) else {
            return;
        };
        let object = object::decode(stored);
        match plural {
            "roles" | "clusterroles" => {
                self.roles.insert((namespace.to_owned(), name.to_owned()), Role::parse(&object));
            }
            "rolebindings" | "clusterrolebindings" => {
                self.bindings.entry(namespace.to_owned()).or_default().insert(name.to_owned(), Binding::parse(&object));
            }
            _ => {}
        }
    }

    fn remove(&mut self, key: &[u8]) {
        let Some((plural, namespace, name)) = parse_key(key) else {
            return;
        };
        match plural {
            "roles" | "clusterroles" => {
                self.roles.remove(&(namespace.to_owned(), name.to_owned()));
            }
            "rolebindings" | "clusterrolebindings" => {
                if let Some(bindings) = self.bindings.get_mut(namespace) {
                    bindings.remove(name);
                }
            }
            _ => {}
        }
    }

    /// Everything that is granted to `user`, cluster-wide and in `namespace`.
    fn rules<'a>(&'a self, user: &'a Identity, namespace: &str) -> impl Iterator<Item = &'a Rule> {
        let scopes = [Some(""), (!namespace.is_empty()).then_some(namespace)];
        scopes
            .into_iter()
            .flatten()
            .filter_map(|scope| self.bindings.get(scope))
            .flat_map(BTreeMap::values)
            .filter(|binding| binding.binds(user))
            .flat_map(|binding| self.role_rules(&binding.role))
    }

    fn role_rules<'a>(&'a self, key: &RoleKey) -> Vec<&'a Rule> {
        let Some(role) = self.roles.get(key) else {
            return Vec::new();
        };
        let mut rules: Vec<&Rule> = role.rules.iter().collect();
        for selector in &role.aggregates {
            let parts = self
                .roles
                .iter()
                .filter(|((namespace, _), part)| namespace.is_empty() && selector.matches_map(&part.labels));
            rules.extend(parts.flat_map(|(_, part)| &part.rules));
        }
        rules
    }
}

/// `/registry/GROUP/PLURAL/[NAMESPACE/]NAME`
fn parse_key(key: &[u8]) -> Option<(&str, &str, &str)> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(keys::ROOT)?.strip_prefix(GROUP)?.strip_prefix('/')?;
    let (plural, rest) = rest.split_once('/')?;
    let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
    Some((plural, namespace, name))
}

/// The decoded roles and bindings.
pub(crate) struct Rbac {
    tables: RwLock<Tables>,
    /// What the tables are a picture of.
    loaded_at: u64,
}

impl Rbac {
    pub(crate) fn load(store: &Store) -> Self {
        let mut tables = Tables::default();
        let prefix = format!("{}{GROUP}/", keys::ROOT);
        let mut loaded_at = store.revision();
        if let Ok(range) = store.range(prefix.as_bytes(), None, 0, None) {
            loaded_at = range.revision;
            for KeyValue { key, value, .. } in range.items {
                tables.put(&key, &value);
            }
        }
        Self { tables: RwLock::new(tables), loaded_at }
    }

    /// Keeps the tables current until the task is aborted.
    pub(crate) fn follow(this: &Arc<Self>, store: &Store) -> Result<tokio::task::AbortHandle, store::Compacted> {
        let prefix = format!("{}{GROUP}/", keys::ROOT);
        let mut changes = store.watch(prefix, Some(this.loaded_at))?;
        let (this, store) = (Arc::clone(this), store.clone());
        let task = tokio::spawn(async move {
            loop {
                match changes.next().await {
                    Ok(event) => {
                        let mut tables = this.tables.write().unwrap_or_else(PoisonError::into_inner);
                        match &event.kind {
                            EventKind::Put { value, .. } => tables.put(&event.key, &value.value),
                            EventKind::Delete { .. } => tables.remove(&event.key),
                        }
                    }
                    Err(error) => {
                        // Behind the kept history: start again from what is there now.
                        let fresh = Self::load(&store);
                        let prefix = format!("{}{GROUP}/", keys::ROOT);
                        let Ok(resumed) = store.watch(prefix, Some(fresh.loaded_at)) else {
                            return;
                        };
                        if matches!(error, store::WatchError::Closed) {
                            return;
                        }
                        changes = resumed;
                        let fresh = fresh.tables.into_inner().unwrap_or_else(PoisonError::into_inner);
                        *this.tables.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                    }
                }
            }
        });
        Ok(task.abort_handle())
    }

    pub(crate) fn allows(&self, user: &Identity, attributes: &Attributes<'_>) -> bool {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.rules(user, attributes.namespace).any(|rule| rule.allows(attributes))
    }

    /// Whether the user holds everything that `rule` grants in `namespace`.
    pub(crate) fn covers(&self, user: &Identity, namespace: &str, rule: &Rule) -> bool {
        rule.permissions().iter().all(|permission| self.allows(user, &Attributes { namespace, ..*permission }))
    }

    /// All rules of a user in a namespace: resource rules and path rules, as a `SelfSubjectRulesReview` shows them.
    pub(crate) fn rules_of(&self, user: &Identity, namespace: &str) -> (Vec<Value>, Vec<Value>) {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let (paths, resources): (Vec<&Rule>, Vec<&Rule>) =
            tables.rules(user, namespace).partition(|rule| !rule.urls.is_empty());
        (resources.into_iter().map(Rule::to_value).collect(), paths.into_iter().map(Rule::to_value).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        let mut tables = Tables::default();
        let mut put = |key: &str, value: Value| {
            tables.put(format!("{}{GROUP}/{key}", keys::ROOT).as_bytes(), value.to_string().as_bytes())
        };
        put(
            "clusterroles/view",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods", "*/scale"], "verbs": ["get", "list"]}]}),
        );
        put(
            "clusterroles/part",
            json!({"metadata": {"labels": {"sum": "yes"}}, "rules": [{"apiGroups": ["x"], "resources": ["ys"], "verbs": ["*"]}]}),
        );
        put(
            "clusterroles/sum",
            json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"sum": "yes"}}]}}),
        );
        put(
            "roles/a/one",
            json!({"rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"], "verbs": ["get"]}]}),
        );
        put(
            "clusterroles/paths",
            json!({"rules": [{"nonResourceURLs": ["/healthz/*", "/version"], "verbs": ["get"]}]}),
        );
        put(
            "rolebindings/a/view",
            json!({"metadata": {"namespace": "a"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "ann"}, {"kind": "ServiceAccount", "name": "bot"}]}),
        );
        put(
            "rolebindings/a/one",
            json!({"metadata": {"namespace": "a"}, "roleRef": {"kind": "Role", "name": "one"},
            "subjects": [{"kind": "Group", "name": "team"}]}),
        );
        put(
            "clusterrolebindings/sum",
            json!({"roleRef": {"kind": "ClusterRole", "name": "sum"}, "subjects": [{"kind": "Group", "name": "team"}]}),
        );
        put(
            "clusterrolebindings/paths",
            json!({"roleRef": {"kind": "ClusterRole", "name": "paths"}, "subjects": [{"kind": "User", "name": "ann"}]}),
        );
        tables
    }

    #[test]
    fn roles_grant_what_they_say_where_they_are_bound_and_nothing_else() {
        let ann = Identity::new("ann", Vec::<String>::new());
        let team = Identity::new("tim", ["team"]);
        let bot = Identity::service_account("a", "bot", "");
        let get = |group, resource, namespace, name| Attributes {
            group,
            resource,
            namespace,
            name,
            ..Attributes::verb("get")
        };
        let path = |path| Attributes { path: Some(path), ..Attributes::verb("get") };
        let tables = tables();
        for (user, attributes, expected) in [
            (&ann, get("", "pods", "a", ""), true),
            (&ann, get("", "pods", "b", ""), false),
            (&ann, get("", "pods", "", ""), false),
            (&ann, Attributes { subresource: "log", ..get("", "pods", "a", "p") }, false),
            (&ann, Attributes { subresource: "scale", ..get("", "anything", "a", "p") }, true),
            (&ann, Attributes { verb: "delete", ..get("", "pods", "a", "p") }, false),
            (&bot, get("", "pods", "a", "p"), true),
            (&team, get("", "secrets", "a", "s"), true),
            (&team, get("", "secrets", "a", "t"), false),
            (&team, get("", "secrets", "a", ""), false),
            (&team, get("x", "ys", "any", "z"), true),
            (&ann, get("x", "ys", "a", "z"), false),
            (&ann, path("/version"), true),
            (&ann, path("/versions"), false),
            (&ann, path("/healthz/etcd"), true),
            (&team, path("/version"), false),
        ] {
            let allowed = tables.rules(user, attributes.namespace).any(|rule| rule.allows(&attributes));
            assert_eq!(allowed, expected, "{} {attributes:?}", user.name);
        }
    }

    #[test]
    fn a_removed_binding_grants_nothing_any_more() {
        let mut tables = tables();
        tables.remove(format!("{}{GROUP}/rolebindings/a/view", keys::ROOT).as_bytes());
        let ann = Identity::new("ann", Vec::<String>::new());
        assert_eq!(tables.rules(&ann, "a").filter(|rule| rule.urls.is_empty()).count(), 0);
    }
}
