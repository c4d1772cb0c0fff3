//! What makes pods: deployments, sets, jobs, autoscalers.

use super::look::{self, NONE, UNKNOWN, int_of, items, plain, str_of};
use super::{Column, View, number, text, wide};
use crate::time;
use jiff::Timestamp;
use serde_json::Value;

const REPLICA_COLUMNS: &[Column] = &[
    text("Name"),
    number("Desired"),
    number("Current"),
    number("Ready"),
    text("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

static REPLICA_SET: View = View { columns: REPLICA_COLUMNS, row: replica_set };
static DEPLOYMENT: View = View {
    columns: &[
        text("Name"),
        text("Ready"),
        number("Up-to-date"),
        number("Available"),
        text("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    row: deployment,
};
static STATEFUL_SET: View = View {
    columns: &[text("Name"), text("Ready"), text("Age"), wide("Containers"), wide("Images")],
    row: stateful_set,
};
static DAEMON_SET: View = View {
    columns: &[
        text("Name"),
        number("Desired"),
        number("Current"),
        number("Ready"),
        number("Up-to-date"),
        number("Available"),
        text("Node Selector"),
        text("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    row: daemon_set,
};
static JOB: View = View {
    columns: &[
        text("Name"),
        text("Status"),
        text("Completions"),
        text("Duration"),
        text("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    row: job,
};
static CRON_JOB: View = View {
    columns: &[
        text("Name"),
        text("Schedule"),
        text("Timezone"),
        text("Suspend"),
        number("Active"),
        text("Last Schedule"),
        text("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    row: cron_job,
};
static AUTOSCALER: View = View {
    columns: &[
        text("Name"),
        text("Reference"),
        text("Targets"),
        text("MinPods"),
        text("MaxPods"),
        text("Replicas"),
        text("Age"),
    ],
    row: autoscaler,
};
static DISRUPTION_BUDGET: View = View {
    columns: &[text("Name"), text("Min Available"), text("Max Unavailable"), text("Allowed Disruptions"), text("Age")],
    row: disruption_budget,
};
static REVISION: View = View {
    columns: &[text("Name"), text("Controller"), text("Revision"), text("Age")],
    row: |object, now| {
        let owner = crate::meta::controller_of(object).map_or(NONE.to_owned(), |owner| {
            let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
            let kind = owner.kind.to_lowercase();
            if group.is_empty() { format!("{kind}/{}", owner.name) } else { format!("{kind}.{group}/{}", owner.name) }
        });
        vec![look::name(object), owner.into(), object["revision"].clone(), look::age(object, now)]
    },
};

pub(super) fn view(group: &str, kind: &str) -> Option<&'static View> {
    Some(match (group, kind) {
        ("apps", "ReplicaSet") | ("", "ReplicationController") => &REPLICA_SET,
        ("apps", "Deployment") => &DEPLOYMENT,
        ("apps", "StatefulSet") => &STATEFUL_SET,
        ("apps", "DaemonSet") => &DAEMON_SET,
        ("apps", "ControllerRevision") => &REVISION,
        ("batch", "Job") => &JOB,
        ("batch", "CronJob") => &CRON_JOB,
        ("autoscaling", "HorizontalPodAutoscaler") => &AUTOSCALER,
        ("policy", "PodDisruptionBudget") => &DISRUPTION_BUDGET,
        _ => return None,
    })
}

/// Selectors are typed, but a ReplicationController's is a plain map.
fn selector(spec: &Value) -> String {
    let selector = &spec["selector"];
    let typed = selector.get("matchLabels").is_some_and(Value::is_object) || selector.get("matchExpressions").is_some();
    if typed { look::selector(selector) } else { look::labels(selector) }
}

fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = look::containers(&spec["template"]["spec"]);
    vec![
        look::name(object),
        int_of(&spec["replicas"]).into(),
        int_of(&status["replicas"]).into(),
        int_of(&status["readyReplicas"]).into(),
        look::age(object, now),
        names,
        images,
        selector(spec).into(),
    ]
}

fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = look::containers(&spec["template"]["spec"]);
    vec![
        look::name(object),
        format!("{}/{}", int_of(&status["readyReplicas"]), int_of(&spec["replicas"])).into(),
        int_of(&status["updatedReplicas"]).into(),
        int_of(&status["availableReplicas"]).into(),
        look::age(object, now),
        names,
        images,
        selector(spec).into(),
    ]
}

fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = look::containers(&spec["template"]["spec"]);
    let ready = format!("{}/{}", int_of(&status["readyReplicas"]), int_of(&spec["replicas"]));
    vec![look::name(object), ready.into(), look::age(object, now), names, images]
}

fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = look::containers(&spec["template"]["spec"]);
    let mut cells = vec![look::name(object)];
    for count in
        ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable"]
    {
        cells.push(int_of(&status[count]).into());
    }
    cells.push(look::labels(&spec["template"]["spec"]["nodeSelector"]).into());
    cells.extend([look::age(object, now), names, images, selector(spec).into()]);
    cells
}

fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = look::containers(&spec["template"]["spec"]);
    let succeeded = int_of(&status["succeeded"]);
    let completions = match (spec["completions"].as_i64(), int_of(&spec["parallelism"])) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    vec![
        look::name(object),
        job_word(object).into(),
        completions.into(),
        job_duration(status, now).into(),
        look::age(object, now),
        names,
        images,
        selector(spec).into(),
    ]
}

fn job_word(job: &Value) -> &'static str {
    let holds = |kind| look::condition(job, kind) == Some("True");
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if crate::meta::is_being_deleted(job) {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn job_duration(status: &Value, now: Timestamp) -> String {
    let moment = |field: &str| time::parse(str_of(&status[field]));
    match (moment("startTime"), moment("completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => time::human_duration(end.unwrap_or(now).as_second() - start.as_second()),
    }
}

fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let job_spec = &spec["jobTemplate"]["spec"];
    let [names, images] = look::containers(&job_spec["template"]["spec"]);
    let last = &status["lastScheduleTime"];
    vec![
        look::name(object),
        spec["schedule"].clone(),
        look::or(&spec["timeZone"], NONE).into(),
        if spec["suspend"] == true { "True" } else { "False" }.into(),
        items(&status["active"]).len().into(),
        if last.is_null() { NONE.to_owned() } else { look::since(last, now) }.into(),
        look::age(object, now),
        names,
        images,
        look::selector(&job_spec["selector"]).into(),
    ]
}

fn autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let target = &spec["scaleTargetRef"];
    vec![
        look::name(object),
        format!("{}/{}", str_of(&target["kind"]), str_of(&target["name"])).into(),
        autoscaler_targets(spec, status).into(),
        spec["minReplicas"].as_i64().map_or(look::UNSET.to_owned(), |n| n.to_string()).into(),
        int_of(&spec["maxReplicas"]).to_string().into(),
        int_of(&status["currentReplicas"]).to_string().into(),
        look::age(object, now),
    ]
}

/// `cpu: 12%/80%`, one a metric; only resource metrics are spelled out.
fn autoscaler_targets(spec: &Value, status: &Value) -> String {
    if let Some(target) = spec["targetCPUUtilizationPercentage"].as_i64() {
        let current = status["currentCPUUtilizationPercentage"].as_i64();
        return format!("cpu: {}/{target}%", current.map_or(UNKNOWN.to_owned(), |n| format!("{n}%")));
    }
    let current = items(&status["currentMetrics"]);
    let metrics = items(&spec["metrics"]).iter().enumerate().map(|(at, metric)| {
        let (name, target) = (str_of(&metric["resource"]["name"]), &metric["resource"]["target"]);
        let now = &current.get(at).unwrap_or(&Value::Null)["resource"]["current"];
        match target["averageUtilization"].as_i64() {
            Some(wanted) => {
                let actual = now["averageUtilization"].as_i64().map_or(UNKNOWN.to_owned(), |n| format!("{n}%"));
                format!("{name}: {actual}/{wanted}%")
            }
            None if metric["type"] == "Resource" => {
                format!("{name}: {}/{}", look::or(&now["averageValue"], UNKNOWN), str_of(&target["averageValue"]))
            }
            None => format!("{UNKNOWN}/{}", str_of(&metric["type"])),
        }
    });
    let all: Vec<String> = metrics.collect();
    if all.is_empty() { NONE.to_owned() } else { all.join(", ") }
}

fn disruption_budget(object: &Value, now: Timestamp) -> Vec<Value> {
    let bound = |field: &str| match plain(&object["spec"][field]) {
        text if text.is_empty() => "N/A".to_owned(),
        text => text,
    };
    vec![
        look::name(object),
        bound("minAvailable").into(),
        bound("maxUnavailable").into(),
        int_of(&object["status"]["disruptionsAllowed"]).into(),
        look::age(object, now),
    ]
}
