//! Nodes, namespaces, events, configuration, leases, quotas.

use super::look::{self, NONE, UNKNOWN, int_of, items, or, str_of};
use super::{Column, View, number, text, wide};
use crate::meta;
use jiff::Timestamp;
use serde_json::Value;

static NODE: View = View {
    columns: &[
        text("Name"),
        text("Status"),
        text("Roles"),
        text("Age"),
        text("Version"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    row: node,
};
static NAMESPACE: View = View {
    columns: &[text("Name"), text("Status"), text("Age")],
    row: |object, now| vec![look::name(object), object["status"]["phase"].clone(), look::age(object, now)],
};
static CORE_EVENT: View = View { columns: EVENT_COLUMNS, row: core_event };
static EVENT: View = View { columns: EVENT_COLUMNS, row: event };
const EVENT_COLUMNS: &[Column] = &[
    text("Last Seen"),
    text("Type"),
    text("Reason"),
    text("Object"),
    wide("Subobject"),
    wide("Source"),
    text("Message"),
    wide("First Seen"),
    wide("Count"),
    wide("Name"),
];
static SECRET: View = View {
    columns: &[text("Name"), text("Type"), number("Data"), text("Age")],
    row: |object, now| {
        vec![look::name(object), object["type"].clone(), size(&object["data"]).into(), look::age(object, now)]
    },
};
static CONFIG_MAP: View = View {
    columns: &[text("Name"), number("Data"), text("Age")],
    row: |object, now| {
        vec![look::name(object), (size(&object["data"]) + size(&object["binaryData"])).into(), look::age(object, now)]
    },
};
static SERVICE_ACCOUNT: View = View {
    columns: &[text("Name"), number("Secrets"), text("Age")],
    row: |object, now| vec![look::name(object), items(&object["secrets"]).len().into(), look::age(object, now)],
};
static COMPONENT: View = View {
    columns: &[text("Name"), text("Status"), text("Message"), text("Error")],
    row: |object, _| {
        let healthy = items(&object["conditions"]).iter().find(|c| c["type"] == "Healthy").unwrap_or(&Value::Null);
        let word = match str_of(&healthy["status"]) {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        vec![look::name(object), word.into(), str_of(&healthy["message"]).into(), str_of(&healthy["error"]).into()]
    },
};
static LEASE: View = View {
    columns: &[text("Name"), text("Holder"), text("Age")],
    row: |object, now| {
        vec![look::name(object), str_of(&object["spec"]["holderIdentity"]).into(), look::age(object, now)]
    },
};
static QUOTA: View = View { columns: &[text("Name"), text("Request"), text("Limit"), text("Age")], row: quota };
static PRIORITY: View = View {
    columns: &[
        text("Name"),
        number("Value"),
        Column { name: "Global-Default", kind: "boolean", wide: false },
        text("Age"),
        text("PreemptionPolicy"),
    ],
    row: |object, now| {
        let is_default = object["globalDefault"] == true;
        vec![
            look::name(object),
            int_of(&object["value"]).into(),
            is_default.into(),
            look::age(object, now),
            str_of(&object["preemptionPolicy"]).into(),
        ]
    },
};
static RUNTIME_CLASS: View = View {
    columns: &[text("Name"), text("Handler"), text("Age")],
    row: |object, now| vec![look::name(object), object["handler"].clone(), look::age(object, now)],
};
static API_SERVICE: View = View {
    columns: &[text("Name"), text("Service"), text("Available"), text("Age")],
    row: |object, now| {
        let service = &object["spec"]["service"];
        let shown = if service.is_object() {
            format!("{}/{}", str_of(&service["namespace"]), str_of(&service["name"]))
        } else {
            "Local".to_owned()
        };
        let available =
            items(&object["status"]["conditions"]).iter().find(|c| c["type"] == "Available").unwrap_or(&Value::Null);
        let word = match str_of(&available["status"]) {
            "" => UNKNOWN.to_owned(),
            "True" => "True".to_owned(),
            other => format!("{other} ({})", str_of(&available["reason"])),
        };
        vec![look::name(object), shown.into(), word.into(), look::age(object, now)]
    },
};

pub(super) fn view(group: &str, kind: &str) -> Option<&'static View> {
    Some(match (group, kind) {
        ("", "Node") => &NODE,
        ("", "Namespace") => &NAMESPACE,
        ("", "Event") => &CORE_EVENT,
        ("events.k8s.io", "Event") => &EVENT,
        ("", "Secret") => &SECRET,
        ("", "ConfigMap") => &CONFIG_MAP,
        ("", "ServiceAccount") => &SERVICE_ACCOUNT,
        ("", "ComponentStatus") => &COMPONENT,
        ("", "ResourceQuota") => &QUOTA,
        ("coordination.k8s.io", "Lease") => &LEASE,
        ("scheduling.k8s.io", "PriorityClass") => &PRIORITY,
        ("node.k8s.io", "RuntimeClass") => &RUNTIME_CLASS,
        ("apiregistration.k8s.io", "APIService") => &API_SERVICE,
        _ => return None,
    })
}

fn size(map: &Value) -> usize {
    map.as_object().map_or(0, |m| m.len())
}

fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let (status, info) = (&object["status"], &object["status"]["nodeInfo"]);
    let mut words = match look::condition(object, "Ready") {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if object["spec"]["unschedulable"] == true {
        words.push_str(",SchedulingDisabled");
    }
    let address = |kind: &str| {
        let found = items(&status["addresses"]).iter().find(|a| a["type"] == kind);
        found.map_or(NONE.to_owned(), |a| str_of(&a["address"]).to_owned())
    };
    vec![
        look::name(object),
        words.into(),
        roles(object).into(),
        look::age(object, now),
        str_of(&info["kubeletVersion"]).into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        or(&info["osImage"], UNKNOWN).into(),
        or(&info["kernelVersion"], UNKNOWN).into(),
        or(&info["containerRuntimeVersion"], UNKNOWN).into(),
    ]
}

fn roles(node: &Value) -> String {
    let mut found: Vec<&str> = meta::labels(node)
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => (key == "kubernetes.io/role").then_some(value),
        })
        .filter(|role| !role.is_empty())
        .collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() { NONE.to_owned() } else { found.join(",") }
}

/// The old and the new kind of event differ in names alone.
struct EventView<'e> {
    object: &'e Value,
    source: String,
    message: &'e str,
    first: [&'e Value; 2],
    last: &'e Value,
    count: i64,
}

fn core_event(event: &Value, now: Timestamp) -> Vec<Value> {
    let source = match (str_of(&event["source"]["component"]), str_of(&event["source"]["host"])) {
        ("", _) => [str_of(&event["reportingComponent"]), str_of(&event["reportingInstance"])]
            .join(", ")
            .trim_matches([',', ' '])
            .to_owned(),
        (component, "") => component.to_owned(),
        (component, host) => format!("{component}, {host}"),
    };
    let view = EventView {
        object: &event["involvedObject"],
        source,
        message: str_of(&event["message"]),
        first: [&event["firstTimestamp"], &event["eventTime"]],
        last: &event["lastTimestamp"],
        count: int_of(&event["count"]),
    };
    event_row(event, &view, now)
}

fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let view = EventView {
        object: &event["regarding"],
        source: [str_of(&event["reportingController"]), str_of(&event["reportingInstance"])]
            .join(", ")
            .trim_matches([',', ' '])
            .to_owned(),
        message: str_of(&event["note"]),
        first: [&event["deprecatedFirstTimestamp"], &event["eventTime"]],
        last: &event["deprecatedLastTimestamp"],
        count: int_of(&event["deprecatedCount"]),
    };
    event_row(event, &view, now)
}

fn event_row(event: &Value, view: &EventView<'_>, now: Timestamp) -> Vec<Value> {
    let first = view.first.into_iter().find(|at| !at.is_null()).unwrap_or(&Value::Null);
    let series = &event["series"];
    let (last, count) = match (series.is_object(), view.last.is_null()) {
        (true, _) => (&series["lastObservedTime"], int_of(&series["count"])),
        (false, false) => (view.last, view.count.max(1)),
        (false, true) => (first, view.count.max(1)),
    };
    let kind = str_of(&view.object["kind"]).to_lowercase();
    let target = match str_of(&view.object["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        look::since(last, now).into(),
        str_of(&event["type"]).into(),
        str_of(&event["reason"]).into(),
        target.into(),
        str_of(&view.object["fieldPath"]).into(),
        view.source.clone().into(),
        view.message.trim().into(),
        look::since(first, now).into(),
        count.into(),
        look::name(event),
    ]
}

/// Used and hard amounts, limits apart from requests.
fn quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in object["status"]["hard"].as_object().into_iter().flatten() {
        let used = or(&object["status"]["used"][name], "0");
        let target = if name.starts_with("limits.") { &mut limits } else { &mut requests };
        target.push(format!("{name}: {used}/{}", str_of(hard)));
    }
    vec![look::name(object), requests.join(", ").into(), limits.join(", ").into(), look::age(object, now)]
}
