//! One container: why it does not start, does not stay, or is not ready. Of pods, and of the Docker half.

use serde_json::Value;

use super::explanation::{Cause, Explanation, Finding, conclude, namespace_option};
use super::{pull, reference};
use crate::facts::{Facts, ObjectName, Tail, list, number, text};

/// Lines of a log that are quoted.
const QUOTED: usize = 5;

/// Its last run failed and another one was begun.
pub(crate) fn failed_before(state: &Value) -> bool {
    !state["lastState"]["terminated"].is_null() && number(state, "/restartCount") > 0
}

pub(crate) fn failed_now(state: &Value) -> bool {
    !state["state"]["terminated"].is_null() && number(state, "/state/terminated/exitCode") != 0
}

/// An init container that keeps the pod from going on.
pub(crate) fn init_finding(subject: &ObjectName, pod: &Value, state: &Value, facts: &Facts) -> Option<Finding> {
    let (name, spec) = (text(state, "/name"), spec_of(pod, state));
    let sidecar = text(spec, "/restartPolicy") == "Always";
    if number(state, "/state/terminated/exitCode") == 0 && !state["state"]["terminated"].is_null() {
        return None;
    }
    if sidecar && state["started"] == Value::Bool(true) {
        return None;
    }
    if !state["state"]["running"].is_null() && !failed_before(state) {
        return Some(
            Finding::new(
                subject,
                Cause::InitContainerRunning,
                format!("its init container {name:?} has not ended yet"),
            )
            .next(format!("kubectl logs {} -c {name}{}", subject.name, namespace_option(subject))),
        );
    }
    // One that waits for its turn is held up by the one before it.
    if text(state, "/state/waiting/reason") == "PodInitializing" {
        return None;
    }
    let cause = finding(subject, pod, state, facts)?;
    if matches!(cause.cause, Cause::Starting | Cause::ImagePulling) {
        return Some(cause);
    }
    Some(
        Finding::new(
            subject,
            Cause::InitContainerFailing,
            format!("its init container {name:?} does not succeed, so no other starts"),
        )
        .because([cause]),
    )
}

/// What is wrong with a container; `None` where it runs and is ready, or ended well.
pub(crate) fn finding(subject: &ObjectName, pod: &Value, state: &Value, facts: &Facts) -> Option<Finding> {
    if !state["state"]["waiting"].is_null() {
        return Some(waiting(subject, pod, state, facts));
    }
    if !state["state"]["terminated"].is_null() {
        return ended(subject, pod, state, facts);
    }
    if state["ready"] == Value::Bool(true) {
        return None;
    }
    Some(unready(subject, pod, state, facts))
}

fn waiting(subject: &ObjectName, pod: &Value, state: &Value, facts: &Facts) -> Finding {
    let (name, image) = (text(state, "/name"), text(spec_of(pod, state), "/image"));
    let (reason, message) = (text(state, "/state/waiting/reason"), text(state, "/state/waiting/message"));
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable" => pull::finding(subject, pod, image, reason, message, facts),
        "CreateContainerConfigError" => configuration(subject, name, message, facts),
        "CreateContainerError" | "RunContainerError" | "StartError" => start_failure(subject, name, reason, message),
        "PostStartHookError" => post_start(subject, name, facts).seen("status", message),
        "CrashLoopBackOff" => {
            let last = &state["lastState"]["terminated"];
            // A container that could not be started has its reason in its last state.
            if matches!(text(last, "/reason"), "StartError" | "ContainerCannotRun" | "RunContainerError") {
                return start_failure(subject, name, text(last, "/reason"), text(last, "/message"));
            }
            crash(subject, pod, state, last, facts)
        }
        _ => match facts.events(subject).last().filter(|event| text(event, "/reason") == "Pulling") {
            Some(event) => {
                Finding::new(subject, Cause::ImagePulling, format!("image {image} is being pulled")).event(Some(event))
            }
            None => Finding::new(subject, Cause::Starting, format!("container {name:?} is being started"))
                .event(facts.events(subject).last()),
        },
    }
}

fn post_start(subject: &ObjectName, name: &str, facts: &Facts) -> Finding {
    let summary = format!("container {name:?} is killed because its postStart hook fails");
    Finding::new(subject, Cause::PostStartHookFailed, summary).event(facts.event(subject, &["FailedPostStartHook"]))
}

fn configuration(subject: &ObjectName, name: &str, message: &str, facts: &Facts) -> Finding {
    if let Some(found) = reference::missing(subject, message, facts) {
        return found.seen("status", format!("container {name:?}: {message}"));
    }
    if message.contains("runAsNonRoot") || message.contains("run as root") {
        return Finding::new(
            subject,
            Cause::RunsAsRoot,
            format!("container {name:?} may not run as root (runAsNonRoot), but its image does"),
        )
        .seen("status", message)
        .next("set securityContext.runAsUser to a number above 0, or USER in the image's Dockerfile");
    }
    Finding::new(subject, Cause::ContainerConfig, format!("container {name:?} cannot be configured"))
        .seen("status", message)
}

fn start_failure(subject: &ObjectName, name: &str, reason: &str, message: &str) -> Finding {
    let lower = message.to_ascii_lowercase();
    let (cause, summary) = if lower.contains("executable file not found") || lower.contains("no such file or directory")
    {
        (Cause::CommandNotFound, format!("container {name:?} cannot start: its command is not in the image"))
    } else if lower.contains("permission denied") || lower.contains("exec format error") {
        (Cause::CommandNotExecutable, format!("container {name:?} cannot start: its command cannot be executed"))
    } else {
        (Cause::ContainerCreate, format!("container {name:?} cannot be started"))
    };
    Finding::new(subject, cause, summary).seen("status", format!("{reason}: {message}")).next(format!(
        "kubectl get pod {}{} -o jsonpath='{{.spec.containers}}'",
        subject.name,
        namespace_option(subject)
    ))
}

/// A container that has ended, and is not about to be started again.
pub(crate) fn ended(subject: &ObjectName, pod: &Value, state: &Value, facts: &Facts) -> Option<Finding> {
    let end = &state["state"]["terminated"];
    if end.is_null() || number(end, "/exitCode") == 0 {
        return None;
    }
    Some(crash(subject, pod, state, end, facts))
}

/// Why a run ended, from the way it ended and from what was done to it.
fn crash(subject: &ObjectName, pod: &Value, state: &Value, end: &Value, facts: &Facts) -> Finding {
    let name = text(state, "/name");
    let code = number(end, "/exitCode");
    let restarts = number(state, "/restartCount");
    let times = if restarts > 0 { format!(" ({restarts} restarts)") } else { String::new() };
    let killed = facts.event(subject, &["Killing"]).map(|event| text(event, "/message"));
    let probe_kill = |kind: &str| killed.is_some_and(|message| message.contains(kind) && message.contains(name));
    let logs = format!("kubectl logs {} -c {name}{} --previous", subject.name, namespace_option(subject));
    let finding = if text(end, "/reason") == "OOMKilled" {
        let limit = text(spec_of(pod, state), "/resources/limits/memory");
        let limit = if limit.is_empty() { "the node's memory".to_owned() } else { format!("its limit of {limit}") };
        Finding::new(
            subject,
            Cause::OutOfMemory,
            format!("container {name:?} needed more memory than {limit} and was killed{times}"),
        )
        .next(format!("raise resources.limits.memory of {name:?}, or find what it keeps"))
        .next(logs)
    } else if probe_kill("liveness") {
        probe_finding(subject, state, facts, Cause::LivenessProbeKills, "liveness", &times).next(logs)
    } else if code > 128 && facts.event(subject, &["FailedPostStartHook"]).is_some() {
        post_start(subject, name, facts).next(logs)
    } else if probe_kill("startup") {
        probe_finding(subject, state, facts, Cause::StartupProbeKills, "startup", &times).next(logs)
    } else if code == 0 {
        Finding::new(
            subject,
            Cause::EndsAtOnce,
            format!("container {name:?} ends by itself with success, but is to run for ever{times}"),
        )
        .next("let its command stay in the foreground, or make it a Job")
        .next(logs)
    } else if code == 127 {
        Finding::new(
            subject,
            Cause::CommandNotFound,
            format!("container {name:?} calls a command that its image does not have{times}"),
        )
        .next(logs)
    } else if code == 126 {
        Finding::new(
            subject,
            Cause::CommandNotExecutable,
            format!("container {name:?} calls a file that cannot be executed{times}"),
        )
        .next(logs)
    } else if code > 128 {
        Finding::new(
            subject,
            Cause::KilledBySignal,
            format!("container {name:?} was ended by signal {}{times}", signal(code - 128)),
        )
        .next(logs)
    } else {
        Finding::new(subject, Cause::CrashLoop, format!("container {name:?} ends with exit code {code}{times}"))
            .next(logs)
    };
    let message = text(end, "/message");
    let finding = if message.is_empty() { finding } else { finding.seen("status", message.trim().to_owned()) };
    quote(finding, facts.log(&subject.namespace, &subject.name, name))
}

fn probe_finding(subject: &ObjectName, state: &Value, facts: &Facts, cause: Cause, kind: &str, times: &str) -> Finding {
    let name = text(state, "/name");
    Finding::new(
        subject,
        cause,
        format!("container {name:?} is killed again and again because its {kind} probe fails{times}"),
    )
    .event(probe_event(subject, kind, facts))
}

fn probe_event<'a>(subject: &ObjectName, kind: &str, facts: &'a Facts) -> Option<&'a Value> {
    facts.events(subject).iter().rev().find(|event| {
        text(event, "/reason") == "Unhealthy" && text(event, "/message").to_ascii_lowercase().starts_with(kind)
    })
}

/// Running, but not ready.
fn unready(subject: &ObjectName, pod: &Value, state: &Value, facts: &Facts) -> Finding {
    let (name, spec) = (text(state, "/name"), spec_of(pod, state));
    if state["started"] == Value::Bool(false) && !spec["startupProbe"].is_null() {
        let failing = probe_event(subject, "startup", facts);
        return Finding::new(
            subject,
            Cause::StartupProbePending,
            format!("container {name:?} has not passed its startup probe yet"),
        )
        .event(failing);
    }
    if failed_before(state) && spec["readinessProbe"].is_null() {
        return crash(subject, pod, state, &state["lastState"]["terminated"], facts);
    }
    let failing = probe_event(subject, "readiness", facts);
    let finding = Finding::new(
        subject,
        if failing.is_some() { Cause::ReadinessProbeFails } else { Cause::Starting },
        match failing {
            Some(_) => format!("container {name:?} runs, but its readiness probe fails, so no service sends to it"),
            None => format!("container {name:?} runs, but no readiness probe has passed yet"),
        },
    );
    finding.event(failing).seen("spec", format!("readinessProbe: {}", spec["readinessProbe"])).next(format!(
        "kubectl logs {} -c {name}{}",
        subject.name,
        namespace_option(subject)
    ))
}

/// The container's part of the pod's spec.
fn spec_of<'a>(pod: &'a Value, state: &Value) -> &'a Value {
    let name = text(state, "/name");
    ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"]
        .iter()
        .flat_map(|place| list(pod, place))
        .find(|spec| text(spec, "/name") == name)
        .unwrap_or(&Value::Null)
}

fn quote(mut finding: Finding, tail: Option<&Tail>) -> Finding {
    let Some(tail) = tail else { return finding };
    let lines = tail.lines.iter().filter(|line| !line.trim().is_empty());
    let lines: Vec<&String> = lines.collect();
    for line in &lines[lines.len().saturating_sub(QUOTED)..] {
        finding = finding.seen("log", (*line).clone());
    }
    finding
}

fn signal(number: i64) -> String {
    let name = match number {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        6 => "ABRT",
        7 => "BUS",
        8 => "FPE",
        9 => "KILL",
        11 => "SEGV",
        13 => "PIPE",
        15 => "TERM",
        _ => return number.to_string(),
    };
    format!("{number} (SIG{name})")
}

/// A container of the Docker half, from what `docker inspect` says of it and its last lines.
pub fn explain_container(inspected: &Value, tail: &Tail) -> Explanation {
    let name = text(inspected, "/Name").trim_start_matches('/');
    let subject = ObjectName::new("Container", "", name);
    let state = &inspected["State"];
    let code = number(state, "/ExitCode");
    let finding = match text(state, "/Status") {
        "running" => running(&subject, state),
        "paused" => {
            Some(Finding::new(&subject, Cause::Paused, "somebody paused it").next(format!("docker unpause {name}")))
        }
        "created" if !text(state, "/Error").is_empty() => Some(
            Finding::new(&subject, Cause::StartFailed, "it could not be started").seen("status", text(state, "/Error")),
        ),
        "created" => Some(
            Finding::new(&subject, Cause::NeverStarted, "it was created and never started")
                .next(format!("docker start {name}")),
        ),
        "restarting" => Some(
            Finding::new(
                &subject,
                Cause::Restarting,
                format!(
                    "it ends with exit code {code} and is started again and again ({} times)",
                    number(inspected, "/RestartCount")
                ),
            )
            .next(format!("docker logs {name}")),
        ),
        _ if state["OOMKilled"] == Value::Bool(true) => Some(
            Finding::new(&subject, Cause::OutOfMemory, "it needed more memory than its limit and was killed")
                .seen("spec", format!("Memory: {} bytes", inspected["HostConfig"]["Memory"]))
                .next(format!("docker update --memory … {name}")),
        ),
        _ if !text(state, "/Error").is_empty() => Some(
            Finding::new(&subject, Cause::StartFailed, "it could not be started").seen("status", text(state, "/Error")),
        ),
        _ if code == 0 => {
            Some(Finding::new(&subject, Cause::ExitedByRequest, "its program ended by itself, with success"))
        }
        _ if code == 137 || code == 143 => Some(
            Finding::new(&subject, Cause::ExitedByRequest, format!("it was stopped by signal {}", signal(code - 128)))
                .next(format!("docker start {name}")),
        ),
        _ if code > 128 => Some(
            Finding::new(
                &subject,
                Cause::KilledBySignal,
                format!("its program was ended by signal {}", signal(code - 128)),
            )
            .next(format!("docker logs {name}")),
        ),
        _ => Some(
            Finding::new(&subject, Cause::ExitedWithError, format!("its program ended with exit code {code}"))
                .next(format!("docker logs {name}")),
        ),
    };
    let quoted =
        finding.map(|finding| if finding.cause == Cause::Paused { finding } else { quote(finding, Some(tail)) });
    conclude(subject, quoted.into_iter().collect())
}

fn running(subject: &ObjectName, state: &Value) -> Option<Finding> {
    if text(state, "/Health/Status") != "unhealthy" {
        return None;
    }
    let finding = Finding::new(
        subject,
        Cause::Unhealthy,
        format!("it runs, but its health check failed {} times in a row", number(state, "/Health/FailingStreak")),
    );
    let last = list(state, "/Health/Log").last();
    Some(match last {
        Some(check) => {
            finding.seen("status", format!("exit code {}: {}", check["ExitCode"], text(check, "/Output").trim()))
        }
        None => finding,
    })
}
