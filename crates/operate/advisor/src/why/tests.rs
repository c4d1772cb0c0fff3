//! Objects as the API gives them, and the cause that each has to lead to.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Cause, Explanation, Finding, Question, Verdict, explain, explain_container, questions};
use crate::facts::{Facts, ObjectName, Tail};

fn now() -> Timestamp {
    "2026-11-26T12:00:00Z".parse().unwrap()
}

fn facts() -> Facts {
    let mut facts = Facts::at(now());
    facts.add(
        "Node",
        json!({"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "2"}, "conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    facts
}

/// A placed pod with one container in this state.
fn pod(state: Value) -> Value {
    let mut status = json!({"name": "c", "ready": false, "restartCount": 0});
    status.as_object_mut().unwrap().extend(state.as_object().unwrap().clone());
    json!({
        "metadata": {"name": "p", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "web:1", "ports": [{"containerPort": 8000, "name": "http"}]}]},
        "status": {"phase": "Running", "containerStatuses": [status]},
    })
}

fn waiting(reason: &str, message: &str) -> Value {
    pod(json!({"state": {"waiting": {"reason": reason, "message": message}}}))
}

fn event(kind: &str, name: &str, reason: &str, message: &str) -> Value {
    json!({
        "involvedObject": {"kind": kind, "namespace": "shop", "name": name}, "type": "Warning", "reason": reason, "message": message,
        "count": 3, "lastTimestamp": "2026-11-26T11:59:00Z",
    })
}

fn about(kind: &str, object: Value, facts: &mut Facts) -> Explanation {
    let name = ObjectName::of(kind, &object);
    facts.add(kind, object);
    explain(&name, facts)
}

/// The causes at the ends of all chains.
fn roots(explanation: &Explanation) -> Vec<Cause> {
    fn walk(finding: &Finding, found: &mut Vec<Cause>) {
        if finding.because.is_empty() {
            found.push(finding.cause);
        }
        finding.because.iter().for_each(|below| walk(below, found));
    }
    let mut found = Vec::new();
    explanation.findings.iter().for_each(|finding| walk(finding, &mut found));
    found
}

#[test]
fn a_waiting_container_leads_to_what_it_waits_for() {
    for (reason, message, cause) in [
        ("ErrImagePull", "manifest for nosuch:1 not found: manifest unknown", Cause::ImageNotFound),
        (
            "ImagePullBackOff",
            "Back-off pulling image: dial tcp: lookup reg.example: no such host",
            Cause::RegistryUnreachable,
        ),
        (
            "ErrImagePull",
            "pull access denied, repository does not exist or may require authorization",
            Cause::RegistryDenied,
        ),
        ("ErrImagePull", "toomanyrequests: You have reached your pull rate limit", Cause::RegistryRateLimit),
        ("InvalidImageName", "couldn't parse image name", Cause::InvalidImageName),
        (
            "ErrImageNeverPull",
            "Container image \"web:1\" is not present with pull policy of Never",
            Cause::ImageNeverPulled,
        ),
        ("ErrImagePull", "unexpected end of stream", Cause::ImagePullFailed),
        ("CreateContainerConfigError", "configmap \"app\" not found", Cause::ConfigMapMissing),
        ("CreateContainerConfigError", "secret \"app\" not found", Cause::SecretMissing),
        ("CreateContainerConfigError", "couldn't find key a in ConfigMap shop/app", Cause::KeyMissing),
        ("CreateContainerConfigError", "container has runAsNonRoot and image will run as root", Cause::RunsAsRoot),
        ("CreateContainerConfigError", "something else", Cause::ContainerConfig),
        ("RunContainerError", "exec: \"nosuch\": executable file not found in $PATH", Cause::CommandNotFound),
        ("RunContainerError", "exec: \"/etc/passwd\": permission denied", Cause::CommandNotExecutable),
        ("CreateContainerError", "something else", Cause::ContainerCreate),
        ("PostStartHookError", "command failed", Cause::PostStartHookFailed),
    ] {
        let explanation = about("Pod", waiting(reason, message), &mut facts());
        assert_eq!(roots(&explanation), [cause], "{reason}: {message}");
        assert_eq!(explanation.verdict, Verdict::Broken);
        assert!(
            explanation.findings[0].evidence.iter().any(|evidence| evidence.text.contains(message)),
            "{explanation:?}"
        );
    }
    let creating = about("Pod", waiting("ContainerCreating", ""), &mut facts());
    assert_eq!((roots(&creating), creating.verdict), (vec![Cause::Starting], Verdict::Progressing));
}

#[test]
fn a_wrong_name_is_told_with_the_one_that_was_meant() {
    let mut facts = facts();
    facts.add_name("ConfigMap", "shop", "app-config");
    let explanation =
        about("Pod", waiting("CreateContainerConfigError", "configmap \"app-confg\" not found"), &mut facts);
    assert!(explanation.findings[0].next[0].contains("app-config"), "{explanation:?}");
    facts.add_name("Pod", "shop", "p");
    let nothing = explain(&ObjectName::new("Pod", "shop", "q"), &facts);
    assert_eq!(nothing.findings[0].next[0], "gantry why pod/p");
}

#[test]
fn a_crash_is_told_by_the_way_it_ended_and_quotes_the_last_words() {
    let crashed = |end: Value| {
        pod(
            json!({"restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}, "lastState": {"terminated": end}}),
        )
    };
    for (end, cause) in [
        (json!({"exitCode": 1, "reason": "Error"}), Cause::CrashLoop),
        (json!({"exitCode": 137, "reason": "OOMKilled"}), Cause::OutOfMemory),
        (json!({"exitCode": 0, "reason": "Completed"}), Cause::EndsAtOnce),
        (json!({"exitCode": 127, "reason": "Error"}), Cause::CommandNotFound),
        (json!({"exitCode": 126, "reason": "Error"}), Cause::CommandNotExecutable),
        (json!({"exitCode": 139, "reason": "Error"}), Cause::KilledBySignal),
        (
            json!({"exitCode": 128, "reason": "StartError", "message": "exec: \"x\": executable file not found"}),
            Cause::CommandNotFound,
        ),
    ] {
        let pod = crashed(end.clone());
        let name = ObjectName::of("Pod", &pod);
        let mut facts = facts();
        facts.add("Pod", pod);
        let asked = questions(&name, &facts);
        assert_eq!(
            asked,
            [Question::Log { namespace: "shop".into(), pod: "p".into(), container: "c".into(), previous: true }]
        );
        facts.add_log("shop", "p", "c", Tail { lines: vec!["KeyError: 'DATABASE_URL'".into(), String::new()] });
        let explanation = explain(&name, &facts);
        assert_eq!(roots(&explanation), [cause], "{end}");
        if end["reason"] != "StartError" {
            assert_eq!(explanation.findings[0].evidence.last().unwrap().text, "KeyError: 'DATABASE_URL'");
        }
    }
    for (kind, cause) in [("liveness", Cause::LivenessProbeKills), ("startup", Cause::StartupProbeKills)] {
        let mut facts = facts();
        facts.add_event(event("Pod", "p", "Killing", &format!("Container c failed {kind} probe, will be restarted")));
        let explanation = about("Pod", crashed(json!({"exitCode": 137, "reason": "Error"})), &mut facts);
        assert_eq!(roots(&explanation), [cause]);
    }
}

#[test]
fn what_runs_and_is_not_ready_says_which_probe_or_gate() {
    let running = pod(json!({"started": true, "state": {"running": {}}}));
    let mut facts1 = facts();
    facts1.add_event(event("Pod", "p", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503"));
    assert_eq!(roots(&about("Pod", running, &mut facts1)), [Cause::ReadinessProbeFails]);
    let mut gated = pod(json!({"ready": true, "state": {"running": {}}}));
    gated["spec"]["readinessGates"] = json!([{"conditionType": "example.com/warm"}]);
    assert_eq!(roots(&about("Pod", gated, &mut facts())), [Cause::ReadinessGate]);
    let mut slow = pod(json!({"started": false, "state": {"running": {}}}));
    slow["spec"]["containers"][0]["startupProbe"] = json!({"exec": {}});
    assert_eq!(about("Pod", slow, &mut facts()).verdict, Verdict::Progressing);
    let fine = pod(json!({"ready": true, "state": {"running": {}}}));
    assert_eq!(about("Pod", fine, &mut facts()).verdict, Verdict::Fine);
}

#[test]
fn the_schedulers_sentence_is_taken_apart() {
    for (message, cause) in [
        ("0/1 nodes are available: 1 Insufficient cpu.", Cause::TooFewResources),
        ("0/1 nodes are available: 1 Too many pods.", Cause::TooManyPods),
        (
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
            Cause::NodeSelectorMatchesNothing,
        ),
        ("0/1 nodes are available: 1 node(s) had untolerated taint {a: b}.", Cause::TaintNotTolerated),
        ("0/1 nodes are available: 1 node(s) were unschedulable.", Cause::NodesCordoned),
        ("0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules.", Cause::AffinityUnsatisfied),
        ("0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints.", Cause::TopologySpread),
        (
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
            Cause::HostPortTaken,
        ),
        ("0/1 nodes are available: 1 node(s) had volume node affinity conflict.", Cause::VolumeNotPlaceable),
    ] {
        let mut pending = pod(json!({}));
        pending["spec"]["nodeName"] = Value::Null;
        pending["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": message}]});
        let explanation = about("Pod", pending, &mut facts());
        assert_eq!((roots(&explanation), explanation.verdict), (vec![cause], Verdict::Broken), "{message}");
    }
    let mut gated = pod(json!({}));
    gated["spec"] = json!({"schedulingGates": [{"name": "example.com/wait"}]});
    gated["status"] = json!({"phase": "Pending"});
    assert_eq!(roots(&about("Pod", gated, &mut facts())), [Cause::SchedulingGated]);
    let mut foreign = pod(json!({}));
    foreign["spec"] = json!({"schedulerName": "nobody"});
    foreign["status"] = json!({"phase": "Pending"});
    assert_eq!(roots(&about("Pod", foreign, &mut facts())), [Cause::NoScheduler]);
}

#[test]
fn a_claim_that_a_pending_pod_waits_for_is_followed() {
    let mut facts = facts();
    facts.add("PersistentVolumeClaim", json!({"metadata": {"name": "data", "namespace": "shop"}, "spec": {"storageClassName": "fast"}, "status": {"phase": "Pending"}}));
    let mut pending = pod(json!({}));
    pending["spec"] = json!({"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]});
    pending["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."}]});
    assert_eq!(roots(&about("Pod", pending, &mut facts)), [Cause::StorageClassMissing]);
    let claim = |class: Value| json!({"metadata": {"name": "x", "namespace": "shop"}, "spec": {"storageClassName": class}, "status": {"phase": "Pending"}});
    assert_eq!(roots(&about("PersistentVolumeClaim", claim(Value::Null), &mut facts)), [Cause::NoDefaultStorageClass]);
    assert_eq!(roots(&about("PersistentVolumeClaim", claim(json!("")), &mut facts)), [Cause::NoVolumeFits]);
    facts.add_event(event("PersistentVolumeClaim", "x", "WaitForFirstConsumer", "waiting for first consumer"));
    assert_eq!(about("PersistentVolumeClaim", claim(json!("")), &mut facts).verdict, Verdict::Progressing);
}

#[test]
fn a_deployment_leads_through_its_newest_replica_set_to_the_container_and_to_what_changed() {
    let mut facts = facts();
    let owned = |kind: &str, uid: &str| json!([{"kind": kind, "uid": uid}]);
    for (revision, image, replicas) in [("1", "web:1", 2), ("2", "web:2", 1)] {
        facts.add("ReplicaSet", json!({
            "metadata": {"name": format!("web-{revision}"), "namespace": "shop", "uid": format!("rs{revision}"), "ownerReferences": owned("Deployment", "d"),
                "annotations": {"deployment.kubernetes.io/revision": revision}, "creationTimestamp": "2026-11-26T11:50:00Z"},
            "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"name": "c", "image": image, "env": [{"name": "A", "value": revision}]}]}}},
            "status": {"replicas": replicas, "readyReplicas": 0, "availableReplicas": 0},
        }));
    }
    let mut broken = waiting("ImagePullBackOff", "manifest unknown");
    broken["metadata"]["ownerReferences"] = owned("ReplicaSet", "rs2");
    facts.add("Pod", broken);
    let deployment = json!({"metadata": {"name": "web", "namespace": "shop", "uid": "d"}, "spec": {"replicas": 2}, "status": {"replicas": 3, "updatedReplicas": 1, "availableReplicas": 2}});
    let explanation = about("Deployment", deployment, &mut facts);
    assert_eq!((roots(&explanation), explanation.verdict), (vec![Cause::ImageNotFound], Verdict::Broken));
    let change = explanation.findings[0].evidence.iter().find(|evidence| evidence.source == "change").unwrap();
    assert!(change.text.contains("containers[0].image from web:1 to web:2"), "{}", change.text);
    assert!(!change.text.contains("from 1 to 2"), "values of the environment stay private: {}", change.text);
    assert!(explanation.findings[0].next.iter().any(|next| next.contains("rollout undo deployment/web -n shop")));
}

#[test]
fn pods_that_cannot_be_created_say_who_forbids_it() {
    for (message, cause) in [
        (
            "pods \"x\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2",
            Cause::QuotaExceeded,
        ),
        ("pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": privileged", Cause::ForbiddenByPolicy),
        (
            "pods \"x\" is forbidden: error looking up service account shop/robot: serviceaccount \"robot\" not found",
            Cause::ServiceAccountMissing,
        ),
        ("admission webhook \"w\" denied the request: no", Cause::ForbiddenByPolicy),
    ] {
        let set = json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "rs"}, "spec": {"replicas": 2},
            "status": {"replicas": 0, "conditions": [{"type": "ReplicaFailure", "status": "True", "message": message}]},
        });
        assert_eq!(roots(&about("ReplicaSet", set, &mut facts())), [cause], "{message}");
    }
}

#[test]
fn a_service_that_leads_nowhere_says_whether_the_selector_the_port_or_the_pods_are_wrong() {
    let service = |selector: Value, port: Value| json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"selector": selector, "ports": [{"port": 80, "targetPort": port}]}});
    let mut facts = facts();
    let mut ready = pod(json!({"ready": true, "state": {"running": {}}}));
    ready["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    facts.add("Pod", ready);
    assert_eq!(about("Service", service(json!({"app": "web"}), json!(8000)), &mut facts).verdict, Verdict::Fine);
    assert_eq!(about("Service", service(json!({"app": "web"}), json!("http")), &mut facts).verdict, Verdict::Fine);
    assert_eq!(
        roots(&about("Service", service(json!({"app": "wbe"}), json!(8000)), &mut facts)),
        [Cause::SelectsNothing]
    );
    assert_eq!(
        roots(&about("Service", service(json!({"app": "web"}), json!(8080)), &mut facts)),
        [Cause::PortMismatch]
    );
    assert_eq!(
        roots(&about("Service", service(json!({"app": "web"}), json!("htp")), &mut facts)),
        [Cause::PortMismatch]
    );
    facts.add("Pod", waiting("CrashLoopBackOff", ""));
    let explanation = about("Service", service(json!({"app": "web"}), json!(8000)), &mut facts);
    assert_eq!(explanation.findings[0].cause, Cause::NoReadyEndpoints);
    let ingress = json!({"metadata": {"name": "i", "namespace": "shop"}, "spec": {"defaultBackend": {"service": {"name": "nobody", "port": {"number": 80}}}}});
    assert_eq!(roots(&about("Ingress", ingress, &mut facts)), [Cause::BackendMissing]);
}

#[test]
fn deletions_that_hang_name_what_holds_them() {
    let mut facts = facts();
    let held = json!({"metadata": {"name": "cm", "namespace": "shop", "deletionTimestamp": "2026-11-26T11:00:00Z", "finalizers": ["example.com/hold"]}});
    assert_eq!(roots(&about("ConfigMap", held, &mut facts)), [Cause::Finalizer]);
    let mut going = pod(json!({"state": {"running": {}}}));
    going["metadata"]["deletionTimestamp"] = json!("2026-11-26T12:00:20Z");
    assert_eq!(about("Pod", going.clone(), &mut facts).verdict, Verdict::Progressing);
    going["metadata"]["deletionTimestamp"] = json!("2026-11-26T11:00:00Z");
    assert_eq!(roots(&about("Pod", going, &mut facts)), [Cause::StuckTerminating]);
    let namespace = json!({"metadata": {"name": "shop", "deletionTimestamp": "2026-11-26T11:00:00Z"}, "status": {"conditions": [
        {"type": "NamespaceContentRemaining", "status": "True", "message": "Some resources are remaining: pods. has 1 resource instances"}]}});
    let explanation = about("Namespace", namespace, &mut facts);
    assert!(explanation.findings[0].evidence[0].text.contains("pods. has 1"), "{explanation:?}");
}

#[test]
fn jobs_nodes_and_the_rest_are_told_by_their_conditions() {
    let mut facts = facts();
    let status = |kind: &str, reason: &str| json!({"failed": 7, "conditions": [{"type": kind, "status": "True", "reason": reason, "message": "m"}]});
    let job = |status: Value, suspend: bool| json!({"metadata": {"name": "j", "namespace": "shop", "uid": "j"}, "spec": {"backoffLimit": 6, "suspend": suspend}, "status": status});
    assert_eq!(
        roots(&about("Job", job(status("Failed", "BackoffLimitExceeded"), false), &mut facts)),
        [Cause::BackoffLimit]
    );
    assert_eq!(
        roots(&about("Job", job(status("Failed", "DeadlineExceeded"), false), &mut facts)),
        [Cause::DeadlineExceeded]
    );
    assert_eq!(about("Job", job(status("Complete", ""), false), &mut facts).verdict, Verdict::Fine);
    assert_eq!(about("Job", job(json!({}), true), &mut facts).verdict, Verdict::Progressing);
    let node =
        |conditions: Value| json!({"metadata": {"name": "n2"}, "spec": {}, "status": {"conditions": conditions}});
    let silent = json!([{"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."}]);
    assert_eq!(roots(&about("Node", node(silent), &mut facts)), [Cause::NodeSilent]);
    let full = json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]);
    assert_eq!(roots(&about("Node", node(full), &mut facts)), [Cause::DiskPressure]);
    let quota = json!({"metadata": {"name": "q", "namespace": "shop"}, "status": {"hard": {"pods": "2"}, "used": {"pods": "2"}}});
    assert_eq!(roots(&about("ResourceQuota", quota, &mut facts)), [Cause::QuotaFull]);
    let budget = json!({"metadata": {"name": "b", "namespace": "shop"}, "status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}});
    assert_eq!(roots(&about("PodDisruptionBudget", budget, &mut facts)), [Cause::NoDisruptionAllowed]);
    let scaler = json!({"metadata": {"name": "h", "namespace": "shop"}, "spec": {"maxReplicas": 3}, "status": {"conditions": [{"type": "ScalingActive", "status": "False", "message": "no metrics"}]}});
    assert_eq!(roots(&about("HorizontalPodAutoscaler", scaler, &mut facts)), [Cause::MetricsMissing]);
}

#[test]
fn a_pod_that_failed_for_good_says_how() {
    let failed = |status: Value| {
        let mut pod = pod(json!({}));
        pod["status"] = status;
        pod
    };
    for (status, cause) in [
        (json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}), Cause::Evicted),
        (json!({"phase": "Failed", "reason": "DeadlineExceeded"}), Cause::DeadlineExceeded),
        (
            json!({"phase": "Failed", "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 3}}}]}),
            Cause::CrashLoop,
        ),
    ] {
        assert_eq!(roots(&about("Pod", failed(status), &mut facts())), [cause]);
    }
    assert_eq!(about("Pod", failed(json!({"phase": "Succeeded"})), &mut facts()).verdict, Verdict::Fine);
}

#[test]
fn containers_of_the_docker_half_are_explained_too() {
    let tail = Tail { lines: vec!["boom".into()] };
    for (state, cause, verdict) in [
        (json!({"Status": "exited", "ExitCode": 1}), Cause::ExitedWithError, Verdict::Broken),
        (json!({"Status": "exited", "ExitCode": 137, "OOMKilled": true}), Cause::OutOfMemory, Verdict::Broken),
        (
            json!({"Status": "exited", "ExitCode": 137, "OOMKilled": false}),
            Cause::ExitedByRequest,
            Verdict::Progressing,
        ),
        (json!({"Status": "exited", "ExitCode": 139}), Cause::KilledBySignal, Verdict::Broken),
        (json!({"Status": "exited", "ExitCode": 127, "Error": "no such file"}), Cause::StartFailed, Verdict::Broken),
        (json!({"Status": "created"}), Cause::NeverStarted, Verdict::Progressing),
        (json!({"Status": "restarting", "ExitCode": 1}), Cause::Restarting, Verdict::Broken),
        (json!({"Status": "paused"}), Cause::Paused, Verdict::Progressing),
        (
            json!({"Status": "running", "Health": {"Status": "unhealthy", "FailingStreak": 3, "Log": [{"ExitCode": 1, "Output": "refused"}]}}),
            Cause::Unhealthy,
            Verdict::Broken,
        ),
    ] {
        let explanation = explain_container(&json!({"Name": "/web", "State": state}), &tail);
        assert_eq!((explanation.findings[0].cause, explanation.verdict), (cause, verdict), "{state}");
    }
    assert_eq!(
        explain_container(&json!({"Name": "/web", "State": {"Status": "running"}}), &tail).verdict,
        Verdict::Fine
    );
}

#[test]
fn nonsense_is_explained_without_harm() {
    for object in [
        json!({}),
        json!({"metadata": 1, "spec": [], "status": "x"}),
        json!({"metadata": {"name": "p"}, "status": {"containerStatuses": {}}}),
    ] {
        for kind in [
            "Pod",
            "Deployment",
            "ReplicaSet",
            "StatefulSet",
            "DaemonSet",
            "Job",
            "CronJob",
            "Service",
            "Ingress",
            "PersistentVolumeClaim",
            "Node",
            "Widget",
        ] {
            let mut facts = Facts::at(now());
            let name = ObjectName::of(kind, &object);
            facts.add(kind, object.clone());
            explain(&name, &facts);
        }
    }
}
