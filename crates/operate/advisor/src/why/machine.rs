//! Nodes.

use serde_json::Value;

use super::explanation::{Cause, Finding};
use crate::facts::{ObjectName, condition, text};

pub(crate) fn node(subject: &ObjectName, object: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    match condition(object, "Ready") {
        Some(ready) if text(ready, "/status") == "True" => {}
        Some(ready) if text(ready, "/status") == "Unknown" => found.push(
            Finding::new(
                subject,
                Cause::NodeSilent,
                format!("nothing was heard of it since {}", text(ready, "/lastHeartbeatTime")),
            )
            .seen("status", text(ready, "/message"))
            .next("on that machine: gantry status"),
        ),
        Some(ready) => found.push(
            Finding::new(subject, Cause::NodeNotReady, "it says that it is not ready")
                .seen("status", text(ready, "/message")),
        ),
        None => found.push(Finding::new(subject, Cause::NodeSilent, "nothing was ever heard of it")),
    }
    for (kind, cause, what) in [
        ("MemoryPressure", Cause::MemoryPressure, "memory"),
        ("DiskPressure", Cause::DiskPressure, "disk space"),
        ("PIDPressure", Cause::PidPressure, "process numbers"),
    ] {
        if let Some(pressure) = condition(object, kind).filter(|condition| text(condition, "/status") == "True") {
            let next = if kind == "DiskPressure" { "docker system df" } else { "kubectl top pods -A" };
            found.push(
                Finding::new(
                    subject,
                    cause,
                    format!("it is short of {what}: it takes no more pods and may evict some"),
                )
                .seen("status", text(pressure, "/message"))
                .next(next),
            );
        }
    }
    if object["spec"]["unschedulable"] == Value::Bool(true) {
        found.push(
            Finding::new(subject, Cause::Cordoned, "it is cordoned: it takes no new pods")
                .next(format!("kubectl uncordon {}", subject.name)),
        );
    }
    found
}
