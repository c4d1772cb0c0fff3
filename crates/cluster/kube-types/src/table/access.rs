//! Roles, bindings, certificates, admission, flow control, devices.

use super::look::{self, NONE, UNKNOWN, UNSET, int_of, items, or, str_of};
use super::{NAME_AND_CREATION, View, number, text, wide};
use crate::time;
use jiff::Timestamp;
use serde_json::Value;

static BINDING: View = View {
    columns: &[text("Name"), text("Role"), text("Age"), wide("Users"), wide("Groups"), wide("ServiceAccounts")],
    row: binding,
};
static SIGNING_REQUEST: View = View {
    columns: &[
        text("Name"),
        text("Age"),
        text("SignerName"),
        text("Requestor"),
        text("RequestedDuration"),
        text("Condition"),
    ],
    row: signing_request,
};
static WEBHOOKS: View = View {
    columns: &[text("Name"), number("Webhooks"), text("Age")],
    row: |object, now| vec![look::name(object), items(&object["webhooks"]).len().into(), look::age(object, now)],
};
static VALIDATING_POLICY: View = View {
    columns: &[text("Name"), number("Validations"), text("ParamKind"), text("Age")],
    row: |object, now| policy(object, "validations", now),
};
static MUTATING_POLICY: View = View {
    columns: &[text("Name"), number("Mutations"), text("ParamKind"), text("Age")],
    row: |object, now| policy(object, "mutations", now),
};
static POLICY_BINDING: View = View {
    columns: &[text("Name"), text("PolicyName"), text("ParamRef"), text("Age")],
    row: |object, now| {
        let (spec, reference) = (&object["spec"], &object["spec"]["paramRef"]);
        let shown =
            match (str_of(&reference["namespace"]), str_of(&reference["name"]), reference["selector"].is_object()) {
                ("", "", false) => UNSET.to_owned(),
                (_, _, true) => look::selector(&reference["selector"]),
                ("", name, _) => name.to_owned(),
                (namespace, name, _) => format!("{namespace}/{name}"),
            };
        vec![look::name(object), spec["policyName"].clone(), shown.into(), look::age(object, now)]
    },
};
static FLOW_SCHEMA: View = View {
    columns: &[
        text("Name"),
        text("PriorityLevel"),
        number("MatchingPrecedence"),
        text("DistinguisherMethod"),
        text("Age"),
        text("MissingPL"),
    ],
    row: |object, now| {
        let spec = &object["spec"];
        vec![
            look::name(object),
            str_of(&spec["priorityLevelConfiguration"]["name"]).into(),
            int_of(&spec["matchingPrecedence"]).into(),
            or(&spec["distinguisherMethod"]["type"], NONE).into(),
            look::age(object, now),
            look::condition(object, "Dangling").unwrap_or("?").into(),
        ]
    },
};
static PRIORITY_LEVEL: View = View {
    columns: &[
        text("Name"),
        text("Type"),
        text("NominalConcurrencyShares"),
        text("Queues"),
        text("HandSize"),
        text("QueueLengthLimit"),
        text("Age"),
    ],
    row: |object, now| {
        let spec = &object["spec"];
        let queuing = &spec["limited"]["limitResponse"]["queuing"];
        let count = |value: &Value| Value::from(value.as_i64().map_or(NONE.to_owned(), |n| n.to_string()));
        vec![
            look::name(object),
            str_of(&spec["type"]).into(),
            count(&spec["limited"]["nominalConcurrencyShares"]),
            count(&queuing["queues"]),
            count(&queuing["handSize"]),
            count(&queuing["queueLengthLimit"]),
            look::age(object, now),
        ]
    },
};
static RESOURCE_CLAIM: View = View {
    columns: &[text("Name"), text("State"), text("Age")],
    row: |object, now| {
        let status = &object["status"];
        let mut words = Vec::new();
        if crate::meta::is_being_deleted(object) {
            words.push("deleted");
        }
        words.push(if status["allocation"].is_object() { "allocated" } else { "pending" });
        if !items(&status["reservedFor"]).is_empty() {
            words.push("reserved");
        }
        vec![look::name(object), words.join(",").into(), look::age(object, now)]
    },
};
static RESOURCE_SLICE: View = View {
    columns: &[text("Name"), text("Node"), text("Driver"), text("Pool"), text("Age")],
    row: |object, now| {
        let spec = &object["spec"];
        vec![
            look::name(object),
            or(&spec["nodeName"], UNSET).into(),
            str_of(&spec["driver"]).into(),
            str_of(&spec["pool"]["name"]).into(),
            look::age(object, now),
        ]
    },
};

pub(super) fn view(group: &str, kind: &str) -> Option<&'static View> {
    Some(match (group, kind) {
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => &BINDING,
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => &NAME_AND_CREATION,
        ("certificates.k8s.io", "CertificateSigningRequest") => &SIGNING_REQUEST,
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => {
            &WEBHOOKS
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => &VALIDATING_POLICY,
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => &MUTATING_POLICY,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding") => {
            &POLICY_BINDING
        }
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => &FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => &PRIORITY_LEVEL,
        ("resource.k8s.io", "ResourceClaim") => &RESOURCE_CLAIM,
        ("resource.k8s.io", "ResourceSlice") => &RESOURCE_SLICE,
        _ => return None,
    })
}

fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = &object["roleRef"];
    let subjects = |kind: &str| {
        let all = items(&object["subjects"]).iter().filter(|s| s["kind"] == kind);
        let names = all.map(|s| match str_of(&s["namespace"]) {
            "" => str_of(&s["name"]).to_owned(),
            namespace => format!("{namespace}/{}", str_of(&s["name"])),
        });
        Value::from(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        look::name(object),
        format!("{}/{}", str_of(&role["kind"]), str_of(&role["name"])).into(),
        look::age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

fn signing_request(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let has = |kind: &str| items(&object["status"]["conditions"]).iter().any(|c| c["type"] == kind);
    let mut words = Vec::new();
    if has("Denied") {
        words.push("Denied");
    } else if has("Approved") {
        words.push("Approved");
    } else {
        words.push("Pending");
    }
    if has("Failed") {
        words.push("Failed");
    }
    if !str_of(&object["status"]["certificate"]).is_empty() {
        words.push("Issued");
    }
    vec![
        look::name(object),
        look::age(object, now),
        or(&spec["signerName"], NONE).into(),
        str_of(&spec["username"]).into(),
        spec["expirationSeconds"].as_i64().map_or(NONE.to_owned(), time::human_duration).into(),
        words.join(",").into(),
    ]
}

fn policy(object: &Value, list: &str, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let kind = &spec["paramKind"];
    let shown = if kind.is_object() {
        format!("{}/{}", str_of(&kind["apiVersion"]), or(&kind["kind"], UNKNOWN))
    } else {
        UNSET.to_owned()
    };
    vec![look::name(object), items(&spec[list]).len().into(), shown.into(), look::age(object, now)]
}
