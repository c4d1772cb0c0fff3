//! The rules of the level `baseline`: nothing that is known to let a pod out of its container.

use serde_json::Value;

use super::look::{breaking, containers, distinct, named, plural, quoted, texts};
use super::{Level, Violation};

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID",
    "SETPCAP", "SETUID", "SYS_CHROOT",
];
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

pub(super) fn check(level: Level, pod: &Value, found: &mut Vec<Violation>) {
    host_namespaces(pod, found);
    privileged(pod, found);
    // The stricter level has a stricter rule for the same thing.
    if level == Level::Baseline {
        capabilities(pod, found);
        seccomp(pod, found);
    }
    host_paths(pod, found);
    host_ports(pod, found);
    app_armor(pod, found);
    selinux(pod, found);
    proc_mount(pod, found);
    sysctls(pod, found);
    host_process(pod, found);
    probe_hosts(pod, found);
}

fn add(found: &mut Vec<Violation>, reason: &'static str, detail: String) {
    found.push(Violation { reason, detail });
}

fn host_namespaces(pod: &Value, found: &mut Vec<Violation>) {
    let used: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod["spec"][*field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if !used.is_empty() {
        add(found, "host namespaces", used.join(", "));
    }
}

fn privileged(pod: &Value, found: &mut Vec<Violation>) {
    let names = breaking(pod, |container| container["securityContext"]["privileged"] == true);
    if !names.is_empty() {
        add(found, "privileged", format!("{} must not set securityContext.privileged=true", named(&names)));
    }
}

fn capabilities(pod: &Value, found: &mut Vec<Violation>) {
    let added = |container: &'_ Value| -> Vec<String> {
        let added = &container["securityContext"]["capabilities"]["add"];
        texts(added).filter(|one| !CAPABILITIES.contains(one)).map(str::to_owned).collect()
    };
    let names = breaking(pod, |container| !added(container).is_empty());
    if names.is_empty() {
        return;
    }
    let all: Vec<String> = containers(pod).flat_map(|(_, container)| added(container)).collect();
    let all = distinct(all.iter().map(String::as_str));
    let text = format!("{} must not include {} in securityContext.capabilities.add", named(&names), quoted(&all));
    add(found, "non-default capabilities", text);
}

fn host_paths(pod: &Value, found: &mut Vec<Violation>) {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let names: Vec<&str> =
        volumes.filter(|volume| !volume["hostPath"].is_null()).filter_map(|volume| volume["name"].as_str()).collect();
    if !names.is_empty() {
        add(found, "hostPath volumes", format!("{} {}", plural(names.len(), "volume"), quoted(&names)));
    }
}

fn host_ports(pod: &Value, found: &mut Vec<Violation>) {
    let ports = |container: &Value| -> Vec<u64> {
        let ports = container["ports"].as_array().into_iter().flatten();
        ports.filter_map(|port| port["hostPort"].as_u64()).filter(|&port| port > 0).collect()
    };
    let names = breaking(pod, |container| !ports(container).is_empty());
    if names.is_empty() {
        return;
    }
    let mut all: Vec<u64> = containers(pod).flat_map(|(_, container)| ports(container)).collect();
    all.sort_unstable();
    all.dedup();
    let shown: Vec<String> = all.iter().map(u64::to_string).collect();
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let text = format!("{} {verb} {} {}", named(&names), plural(all.len(), "hostPort"), shown.join(", "));
    add(found, "hostPort", text);
}

fn app_armor(pod: &Value, found: &mut Vec<Violation>) {
    let mut texts = Vec::new();
    if pod["spec"]["securityContext"]["appArmorProfile"]["type"] == "Unconfined" {
        texts.push("pod must not set AppArmor profile type to \"Unconfined\"".to_owned());
    }
    let names =
        breaking(pod, |container| container["securityContext"]["appArmorProfile"]["type"] == "Unconfined");
    if !names.is_empty() {
        texts.push(format!("{} must not set AppArmor profile type to \"Unconfined\"", named(&names)));
    }
    let annotations = pod["metadata"]["annotations"].as_object().into_iter().flatten();
    let wrong: Vec<String> = annotations
        .filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| !(value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/")))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if !wrong.is_empty() {
        texts.push(wrong.join(", "));
    }
    if !texts.is_empty() {
        let reason = if texts.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" };
        add(found, reason, texts.join(" and "));
    }
}

fn selinux(pod: &Value, found: &mut Vec<Violation>) {
    let pods_own = std::iter::once(("pod", &pod["spec"]["securityContext"]["seLinuxOptions"]));
    let of_containers =
        containers(pod).map(|(name, container)| (name, &container["securityContext"]["seLinuxOptions"]));
    let mut who = Vec::new();
    let mut what = Vec::new();
    for (index, (name, options)) in pods_own.chain(of_containers).enumerate() {
        let text = |field: &str| options[field].as_str().unwrap_or_default();
        let mut wrong = Vec::new();
        if !SELINUX_TYPES.contains(&text("type")) {
            wrong.push(format!("type {:?}", text("type")));
        }
        if !text("user").is_empty() {
            wrong.push("user may not be set".to_owned());
        }
        if !text("role").is_empty() {
            wrong.push("role may not be set".to_owned());
        }
        if !wrong.is_empty() {
            who.push(if index == 0 { "pod".to_owned() } else { format!("container {name:?}") });
            what.extend(wrong);
        }
    }
    if !who.is_empty() {
        add(found, "seLinuxOptions", format!("{} set forbidden securityContext.seLinuxOptions: {}", who.join(" and "), what.join("; ")));
    }
}

fn proc_mount(pod: &Value, found: &mut Vec<Violation>) {
    let value = |container: &'_ Value| -> String {
        container["securityContext"]["procMount"].as_str().unwrap_or("Default").to_owned()
    };
    let names = breaking(pod, |container| value(container) != "Default");
    if !names.is_empty() && pod["spec"]["hostUsers"] != false {
        let all: Vec<String> = containers(pod).map(|(_, one)| value(one)).filter(|one| one != "Default").collect();
        let shown = quoted(&distinct(all.iter().map(String::as_str)));
        add(found, "procMount", format!("{} must not set securityContext.procMount to {shown}", named(&names)));
    }
}

fn seccomp(pod: &Value, found: &mut Vec<Violation>) {
    let mut texts = Vec::new();
    if pod["spec"]["securityContext"]["seccompProfile"]["type"] == "Unconfined" {
        texts.push("pod must not set securityContext.seccompProfile.type to \"Unconfined\"".to_owned());
    }
    let names = breaking(pod, |container| container["securityContext"]["seccompProfile"]["type"] == "Unconfined");
    if !names.is_empty() {
        texts.push(format!("{} must not set securityContext.seccompProfile.type to \"Unconfined\"", named(&names)));
    }
    if !texts.is_empty() {
        add(found, "seccompProfile", texts.join(" and "));
    }
}

fn sysctls(pod: &Value, found: &mut Vec<Violation>) {
    let all = pod["spec"]["securityContext"]["sysctls"].as_array().into_iter().flatten();
    let names: Vec<&str> = all.filter_map(|one| one["name"].as_str()).filter(|name| !SYSCTLS.contains(name)).collect();
    if !names.is_empty() {
        add(found, "forbidden sysctls", names.join(", "));
    }
}

fn host_process(pod: &Value, found: &mut Vec<Violation>) {
    let set = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let names = breaking(pod, |container| set(&container["securityContext"]));
    let mut who = Vec::new();
    if set(&pod["spec"]["securityContext"]) {
        who.push("pod".to_owned());
    }
    if !names.is_empty() {
        who.push(named(&names));
    }
    if !who.is_empty() {
        let text = format!("{} must not set securityContext.windowsOptions.hostProcess=true", who.join(" and "));
        add(found, "hostProcess", text);
    }
}

/// A probe or hook that names a host makes the node reach out for the pod.
fn probe_hosts(pod: &Value, found: &mut Vec<Violation>) {
    let places = [
        "/livenessProbe/httpGet/host",
        "/livenessProbe/tcpSocket/host",
        "/readinessProbe/httpGet/host",
        "/readinessProbe/tcpSocket/host",
        "/startupProbe/httpGet/host",
        "/startupProbe/tcpSocket/host",
        "/lifecycle/postStart/httpGet/host",
        "/lifecycle/postStart/tcpSocket/host",
        "/lifecycle/preStop/httpGet/host",
        "/lifecycle/preStop/tcpSocket/host",
    ];
    let hosts = |container: &Value| -> Vec<String> {
        let all = places.iter().filter_map(|place| container.pointer(place).and_then(Value::as_str));
        all.filter(|host| !matches!(*host, "" | "127.0.0.1" | "::1" | "localhost")).map(str::to_owned).collect()
    };
    let names = breaking(pod, |container| !hosts(container).is_empty());
    if !names.is_empty() {
        let all: Vec<String> = containers(pod).flat_map(|(_, container)| hosts(container)).collect();
        let shown = quoted(&distinct(all.iter().map(String::as_str)));
        let verb = if names.len() == 1 { "uses" } else { "use" };
        add(found, "probe or lifecycle host", format!("{} {verb} {} {shown}", named(&names), plural(all.len(), "host")));
    }
}
