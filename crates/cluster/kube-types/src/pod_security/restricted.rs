//! The rules that `restricted` adds to `baseline`: what a hardened pod has to say of itself.

use serde_json::Value;

use super::Violation;
use super::look::{breaking, containers, distinct, named, plural, quoted, texts};

/// Kinds of volumes that are free of the host and of drivers.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

pub(super) fn check(pod: &Value, found: &mut Vec<Violation>) {
    volume_types(pod, found);
    if pod["spec"]["os"]["name"] == "windows" {
        // What is left is about Linux alone.
        return user(pod, found);
    }
    escalation(pod, found);
    capabilities(pod, found);
    seccomp(pod, found);
    user(pod, found);
}

fn add(found: &mut Vec<Violation>, reason: &'static str, detail: String) {
    found.push(Violation { reason, detail });
}

fn volume_types(pod: &Value, found: &mut Vec<Violation>) {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let kind = |volume: &'_ Value| -> Option<String> {
        volume.as_object()?.keys().find(|key| *key != "name").cloned()
    };
    let wrong: Vec<(&str, String)> = volumes
        .filter_map(|volume| Some((volume["name"].as_str()?, kind(volume)?)))
        .filter(|(_, kind)| !VOLUMES.contains(&kind.as_str()))
        .collect();
    if wrong.is_empty() {
        return;
    }
    let names: Vec<&str> = wrong.iter().map(|(name, _)| *name).collect();
    let kinds = distinct(wrong.iter().map(|(_, kind)| kind.as_str()));
    let (verb, word) = if names.len() == 1 { ("uses", "volume") } else { ("use", "volumes") };
    let text = format!("{word} {} {verb} restricted volume {} {}", quoted(&names), plural(kinds.len(), "type"), quoted(&kinds));
    add(found, "restricted volume types", text);
}

fn escalation(pod: &Value, found: &mut Vec<Violation>) {
    let names = breaking(pod, |container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    if !names.is_empty() && pod["spec"]["hostUsers"] != false {
        let text = format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&names));
        add(found, "allowPrivilegeEscalation != false", text);
    }
}

fn capabilities(pod: &Value, found: &mut Vec<Violation>) {
    let of = |container: &'_ Value, list: &str| -> Vec<String> {
        texts(&container["securityContext"]["capabilities"][list]).map(str::to_owned).collect()
    };
    let keeping = breaking(pod, |container| !of(container, "drop").iter().any(|one| one == "ALL"));
    let adds = |container: &'_ Value| -> Vec<String> {
        of(container, "add").into_iter().filter(|one| one != "NET_BIND_SERVICE").collect()
    };
    let adding = breaking(pod, |container| !adds(container).is_empty());
    let mut wrong = Vec::new();
    if !keeping.is_empty() {
        wrong.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
    }
    if !adding.is_empty() {
        let all: Vec<String> = containers(pod).flat_map(|(_, container)| adds(container)).collect();
        let shown = quoted(&distinct(all.iter().map(String::as_str)));
        wrong.push(format!("{} must not include {shown} in securityContext.capabilities.add", named(&adding)));
    }
    if !wrong.is_empty() {
        add(found, "unrestricted capabilities", wrong.join("; "));
    }
}

fn seccomp(pod: &Value, found: &mut Vec<Violation>) {
    let fine = |profile: &Value| matches!(profile["type"].as_str(), Some("RuntimeDefault" | "Localhost"));
    let pods_own = &pod["spec"]["securityContext"]["seccompProfile"];
    let (pod_set, pod_fine) = (!pods_own["type"].is_null(), fine(pods_own));
    let own = |container: &'_ Value| -> Value { container["securityContext"]["seccompProfile"].clone() };
    let wrong = breaking(pod, |container| !own(container)["type"].is_null() && !fine(&own(container)));
    let silent = breaking(pod, |container| own(container)["type"].is_null());
    let mut texts = Vec::new();
    if pod_set && !pod_fine {
        let kind = pods_own["type"].as_str().unwrap_or_default();
        texts.push(format!("pod must not set securityContext.seccompProfile.type to {kind:?}"));
    }
    if !wrong.is_empty() {
        let kinds: Vec<String> = containers(pod)
            .filter_map(|(_, one)| own(one)["type"].as_str().map(str::to_owned))
            .filter(|kind| kind != "RuntimeDefault" && kind != "Localhost")
            .collect();
        let shown = quoted(&distinct(kinds.iter().map(String::as_str)));
        texts.push(format!("{} must not set securityContext.seccompProfile.type to {shown}", named(&wrong)));
    }
    if texts.is_empty() && !pod_set && !silent.is_empty() {
        let who = format!("pod or {}", named(&silent));
        texts.push(format!(
            "{who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
        ));
    }
    if !texts.is_empty() {
        add(found, "seccompProfile", texts.join(" and "));
    }
}

fn user(pod: &Value, found: &mut Vec<Violation>) {
    if pod["spec"]["hostUsers"] == false {
        return;
    }
    let context = &pod["spec"]["securityContext"];
    let mut texts = Vec::new();
    if context["runAsNonRoot"] == false {
        texts.push("pod must not set securityContext.runAsNonRoot=false".to_owned());
    }
    let refusing = breaking(pod, |container| container["securityContext"]["runAsNonRoot"] == false);
    if !refusing.is_empty() {
        texts.push(format!("{} must not set securityContext.runAsNonRoot=false", named(&refusing)));
    }
    let silent = breaking(pod, |container| container["securityContext"]["runAsNonRoot"].is_null());
    if texts.is_empty() && context["runAsNonRoot"] != true && !silent.is_empty() {
        texts.push(format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent)));
    }
    if !texts.is_empty() {
        add(found, "runAsNonRoot != true", texts.join(" and "));
    }
    let mut roots = Vec::new();
    if context["runAsUser"] == 0 {
        roots.push("pod must not set runAsUser=0".to_owned());
    }
    let names = breaking(pod, |container| container["securityContext"]["runAsUser"] == 0);
    if !names.is_empty() {
        roots.push(format!("{} must not set runAsUser=0", named(&names)));
    }
    if !roots.is_empty() {
        add(found, "runAsUser=0", roots.join(" and "));
    }
}
