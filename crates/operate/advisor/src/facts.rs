//! What is known of the cluster when a question is asked: objects as the API gave them, their events, the last lines of logs.
//!
//! Filled by the shell. Invariant: lists come out in the order of names, events with the newest last.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// Which object: its kind, its namespace (empty for the cluster's own kinds) and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ObjectName {
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
}

impl ObjectName {
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The name of an object that has its kind with it.
    pub fn of(kind: &str, object: &Value) -> Self {
        Self::new(kind, text(object, "/metadata/namespace"), text(object, "/metadata/name"))
    }
}

/// `pod/web`, as commands take it.
impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.to_ascii_lowercase(), self.name)
    }
}

/// The last lines that a container wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    pub lines: Vec<String>,
}

/// Everything that one explanation may know.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    objects: BTreeMap<ObjectName, Value>,
    events: BTreeMap<(String, String), Vec<Value>>,
    /// By namespace, pod and container.
    logs: BTreeMap<(String, String, String), Tail>,
    /// Names that exist, of kinds whose content is nobody's business here (secrets).
    names: BTreeMap<(String, String), Vec<String>>,
    now: Timestamp,
}

impl Facts {
    pub fn at(now: Timestamp) -> Self {
        Self { now, ..Self::default() }
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }

    pub fn add(&mut self, kind: &str, object: Value) {
        self.objects.insert(ObjectName::of(kind, &object), object);
    }

    /// Events of core/v1 or events.k8s.io/v1; those that do not say what they regard are dropped.
    pub fn add_event(&mut self, event: Value) {
        let regarding = if event["involvedObject"].is_null() { "/regarding" } else { "/involvedObject" };
        let key = (
            text(&event, &format!("{regarding}/kind")).to_owned(),
            format!(
                "{}/{}",
                text(&event, &format!("{regarding}/namespace")),
                text(&event, &format!("{regarding}/name"))
            ),
        );
        let place = self.events.entry(key).or_default();
        let at = event_time(&event);
        let index = place.partition_point(|known| event_time(known) <= at);
        place.insert(index, event);
    }

    pub fn add_log(&mut self, namespace: &str, pod: &str, container: &str, tail: Tail) {
        self.logs.insert((namespace.to_owned(), pod.to_owned(), container.to_owned()), tail);
    }

    pub fn add_name(&mut self, kind: &str, namespace: &str, name: &str) {
        self.names.entry((kind.to_owned(), namespace.to_owned())).or_default().push(name.to_owned());
    }

    pub fn get(&self, name: &ObjectName) -> Option<&Value> {
        self.objects.get(name)
    }

    pub fn list<'a>(&'a self, kind: &'a str, namespace: &'a str) -> impl Iterator<Item = &'a Value> + 'a {
        let from = ObjectName::new(kind, namespace, "");
        self.objects
            .range(from..)
            .take_while(move |(name, _)| name.kind == kind && name.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// Objects of one kind, in all namespaces, that nothing else controls.
    pub fn roots(&self, kind: &str) -> Vec<ObjectName> {
        let all = self.objects.range(ObjectName::new(kind, "", "")..).take_while(|(name, _)| name.kind == kind);
        all.filter(|(_, object)| list(object, "/metadata/ownerReferences").next().is_none())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// What this object controls or owns, of one kind.
    pub fn owned<'a>(&'a self, kind: &'a str, owner: &'a Value) -> impl Iterator<Item = &'a Value> + 'a {
        let uid = text(owner, "/metadata/uid");
        self.list(kind, text(owner, "/metadata/namespace")).filter(move |object| {
            !uid.is_empty() && list(object, "/metadata/ownerReferences").any(|reference| text(reference, "/uid") == uid)
        })
    }

    /// An object's events, the newest last.
    pub fn events(&self, name: &ObjectName) -> &[Value] {
        self.events.get(&(name.kind.clone(), format!("{}/{}", name.namespace, name.name))).map_or(&[], Vec::as_slice)
    }

    /// The newest event with one of these reasons.
    pub fn event(&self, name: &ObjectName, reasons: &[&str]) -> Option<&Value> {
        self.events(name).iter().rev().find(|event| reasons.contains(&text(event, "/reason")))
    }

    pub fn log(&self, namespace: &str, pod: &str, container: &str) -> Option<&Tail> {
        self.logs.get(&(namespace.to_owned(), pod.to_owned(), container.to_owned()))
    }

    /// Whether an object of this name exists, as far as is known; `None` where nobody asked.
    pub fn exists(&self, kind: &str, namespace: &str, name: &str) -> Option<bool> {
        self.names.get(&(kind.to_owned(), namespace.to_owned())).map(|names| names.iter().any(|known| known == name))
    }

    /// The existing name that is nearest to a wrong one.
    pub fn nearest(&self, kind: &str, namespace: &str, wrong: &str) -> Option<&str> {
        let names = self.names.get(&(kind.to_owned(), namespace.to_owned()))?;
        names
            .iter()
            .map(|name| (strsim::osa_distance(name, wrong), name.as_str()))
            .filter(|(distance, _)| *distance <= 2 + wrong.len() / 6)
            .min()
            .map(|(_, name)| name)
    }
}

/// The text at a JSON pointer, or nothing.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer, or zero.
pub(crate) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The items of the list at a JSON pointer.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

pub(crate) fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    text(object, pointer).parse().ok()
}

/// A condition of an object's status.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").find(|condition| text(condition, "/type") == kind)
}

/// When an event was last seen.
pub(crate) fn event_time(event: &Value) -> Option<Timestamp> {
    [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/deprecatedLastTimestamp",
        "/eventTime",
        "/metadata/creationTimestamp",
    ]
    .iter()
    .find_map(|pointer| time(event, pointer))
}

/// Whether an object's labels fit a `matchLabels` map (or a service's plain selector); an empty selector fits nothing.
pub(crate) fn selects(selector: Option<&Value>, object: &Value) -> bool {
    let Some(wanted) = selector.and_then(Value::as_object).filter(|wanted| !wanted.is_empty()) else { return false };
    wanted.iter().all(|(key, value)| object["metadata"]["labels"].get(key) == Some(value))
}
