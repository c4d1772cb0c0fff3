//! Pods against levels, with the words that users see.

use super::*;
use serde_json::json;

fn told(level: Level, spec: Value) -> String {
    describe(&violations(level, &json!({"metadata": {}, "spec": spec})))
}

#[test]
fn a_plain_pod_is_fine_in_baseline_and_told_what_restricted_wants() {
    let plain = json!({"containers": [{"name": "c", "image": "busybox"}]});
    assert_eq!(told(Level::Privileged, plain.clone()), "");
    assert_eq!(told(Level::Baseline, plain.clone()), "");
    assert_eq!(
        told(Level::Restricted, plain),
        "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
         runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"), \
         unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"])"
    );
}

#[test]
fn a_hardened_pod_is_fine_everywhere() {
    let hardened = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        }}],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "x"}}],
    });
    assert_eq!(told(Level::Restricted, hardened), "");
}

#[test]
fn what_opens_the_host_is_refused_by_baseline() {
    for (spec, text) in [
        (json!({"hostNetwork": true, "hostPID": true}), "host namespaces (hostNetwork=true, hostPID=true)"),
        (
            json!({"containers": [{"name": "a", "securityContext": {"privileged": true}}, {"name": "b", "securityContext": {"privileged": true}}]}),
            "privileged (containers \"a\", \"b\" must not set securityContext.privileged=true)",
        ),
        (
            json!({"containers": [{"name": "a", "securityContext": {"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}}]}),
            "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (json!({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}), "hostPath volumes (volume \"h\")"),
        (
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80}]}]}),
            "hostPort (container \"a\" uses hostPort 80)",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({"ephemeralContainers": [{"name": "d", "securityContext": {"procMount": "Unmasked"}}]}),
            "procMount (container \"d\" must not set securityContext.procMount to \"Unmasked\")",
        ),
    ] {
        assert_eq!(told(Level::Baseline, spec.clone()), text, "{spec}");
        assert_eq!(told(Level::Privileged, spec), "");
    }
}
