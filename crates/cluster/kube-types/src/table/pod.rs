//! Pods. The status column sums up phase, containers and deletion in one word, as kubectl's users know it.

use super::look::{self, NONE, int_of, items, or, str_of};
use super::{View, text, wide};
use crate::meta;
use crate::time;
use jiff::Timestamp;
use serde_json::{Value, json};

static POD: View = View {
    columns: &[
        text("Name"),
        text("Ready"),
        text("Status"),
        text("Restarts"),
        text("Age"),
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ],
    row,
};

static TEMPLATE: View = View {
    columns: &[text("Name"), text("Containers"), text("Images"), text("Pod Labels")],
    row: |object, _| {
        let [names, images] = look::containers(&object["template"]["spec"]);
        vec![look::name(object), names, images, look::labels(&object["template"]["metadata"]["labels"]).into()]
    },
};

pub(super) fn view(group: &str, kind: &str) -> Option<&'static View> {
    match (group, kind) {
        ("", "Pod") => Some(&POD),
        ("", "PodTemplate") => Some(&TEMPLATE),
        _ => None,
    }
}

/// Lets kubectl leave finished pods out on request.
pub(super) fn row_condition(pod: &Value) -> Option<Value> {
    let (reason, message) = match str_of(&pod["status"]["phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let summary = summarise(pod);
    let ip = items(&status["podIPs"]).first().map_or(&status["podIP"], |first| &first["ip"]);
    vec![
        look::name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.word.into(),
        restarts(summary.restarts, summary.last_restart, now).into(),
        look::age(pod, now),
        or(ip, NONE).into(),
        or(&spec["nodeName"], NONE).into(),
        or(&status["nominatedNodeName"], NONE).into(),
        readiness_gates(pod).into(),
    ]
}

fn restarts(count: i64, last: Option<Timestamp>, now: Timestamp) -> String {
    match last {
        Some(last) if count > 0 => format!("{count} ({} ago)", time::age(Some(last), now)),
        _ => count.to_string(),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let met = gates.iter().filter(|gate| look::condition(pod, str_of(&gate["conditionType"])) == Some("True")).count();
    format!("{met}/{}", gates.len())
}

#[derive(Default)]
struct Summary {
    word: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn count_restarts(&mut self, status: &Value) {
        self.restarts += int_of(&status["restartCount"]);
        let finished = str_of(&status["lastState"]["terminated"]["finishedAt"]);
        self.last_restart = self.last_restart.max(time::parse(finished));
    }
}

fn summarise(pod: &Value) -> Summary {
    let status = &pod["status"];
    let word = match str_of(&status["reason"]) {
        "" => str_of(&status["phase"]),
        reason => reason,
    };
    let mut summary = Summary { word: word.to_owned(), ..Summary::default() };
    let gated =
        items(&status["conditions"]).iter().any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated");
    if gated {
        summary.word = "SchedulingGated".to_owned();
    }
    let sidecars: Vec<&str> = items(&pod["spec"]["initContainers"])
        .iter()
        .filter(|c| c["restartPolicy"] == "Always")
        .map(|c| str_of(&c["name"]))
        .collect();
    summary.total = items(&pod["spec"]["containers"]).len() + sidecars.len();

    let sidecar_share = initial_containers(pod, &sidecars, &mut summary);
    let initializing = sidecar_share.is_none();
    if !initializing || look::condition(pod, "Initialized") == Some("True") {
        if let Some((restarts, last)) = sidecar_share {
            (summary.restarts, summary.last_restart) = (restarts, last);
        }
        main_containers(pod, &mut summary);
    }
    if meta::is_being_deleted(pod) {
        if status["reason"] == "NodeLost" {
            summary.word = "Unknown".to_owned();
        } else if !matches!(str_of(&status["phase"]), "Succeeded" | "Failed") {
            summary.word = "Terminating".to_owned();
        }
    }
    summary
}

/// Walks the init containers. `None` while they are not through; then the word says how far they are. Otherwise the sidecars'
/// own restarts, which go on counting.
fn initial_containers(pod: &Value, sidecars: &[&str], summary: &mut Summary) -> Option<(i64, Option<Timestamp>)> {
    let mut share = Summary::default();
    for (at, status) in items(&pod["status"]["initContainerStatuses"]).iter().enumerate() {
        summary.count_restarts(status);
        let is_sidecar = sidecars.contains(&str_of(&status["name"]));
        if is_sidecar {
            share.count_restarts(status);
        }
        let terminated = &status["state"]["terminated"];
        if terminated.is_object() && int_of(&terminated["exitCode"]) == 0 {
            continue;
        }
        if is_sidecar && status["started"] == true {
            summary.ready += usize::from(status["ready"] == true);
            continue;
        }
        let waiting = str_of(&status["state"]["waiting"]["reason"]);
        summary.word = if terminated.is_object() {
            format!("Init:{}", exit_word(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{at}/{}", items(&pod["spec"]["initContainers"]).len())
        };
        return None;
    }
    Some((share.restarts, share.last_restart))
}

/// The first container's trouble has the last word.
fn main_containers(pod: &Value, summary: &mut Summary) {
    let mut any_running = false;
    for status in items(&pod["status"]["containerStatuses"]).iter().rev() {
        summary.count_restarts(status);
        let state = &status["state"];
        let waiting = str_of(&state["waiting"]["reason"]);
        if !waiting.is_empty() {
            summary.word = waiting.to_owned();
        } else if state["terminated"].is_object() {
            summary.word = exit_word(&state["terminated"]);
        } else if status["ready"] == true && state["running"].is_object() {
            any_running = true;
            summary.ready += 1;
        }
    }
    if summary.word == "Completed" && any_running {
        let ready = look::condition(pod, "Ready") == Some("True");
        summary.word = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

fn exit_word(terminated: &Value) -> String {
    match (str_of(&terminated["reason"]), int_of(&terminated["signal"])) {
        ("", 0) => format!("ExitCode:{}", int_of(&terminated["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
