use super::*;
use crate::registry::{all, find_by_gvr};
use serde_json::json;

const NOW: &str = "2026-11-22T21:10:00Z";

fn cells(group: &str, version: &str, plural: &str, mut object: Value) -> Vec<Value> {
    object["metadata"]["creationTimestamp"] = "2026-11-22T21:00:00Z".into();
    let table =
        render(find_by_gvr(group, version, plural).unwrap(), &[&object], NOW.parse().unwrap(), IncludeObject::None);
    let cells = table["rows"][0]["cells"].as_array().unwrap().clone();
    assert_eq!(cells.len(), table["columnDefinitions"].as_array().unwrap().len());
    cells
}

fn pod_cells(status: Value) -> Vec<Value> {
    let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}], "nodeName": "n"});
    cells("", "v1", "pods", json!({"metadata": {"name": "p"}, "spec": spec, "status": status}))
}

#[test]
fn every_resource_renders_an_object_of_which_nothing_is_known() {
    for resource in all() {
        for object in [json!({}), json!({"metadata": {"name": "x"}, "spec": 1, "status": []})] {
            let table = render(resource, &[&object], NOW.parse().unwrap(), IncludeObject::Metadata);
            let columns = table["columnDefinitions"].as_array().unwrap().len();
            assert_eq!(table["rows"][0]["cells"].as_array().unwrap().len(), columns, "{}", resource.kind);
            assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        }
    }
}

#[test]
fn a_deployment_shows_ready_of_wanted() {
    let deployment = json!({"metadata": {"name": "nginx-deployment"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "nginx"}}, "template": {"spec": {"containers": [{"name": "nginx", "image": "nginx:latest"}]}}},
        "status": {"readyReplicas": 2, "updatedReplicas": 2, "availableReplicas": 2}});
    assert_eq!(
        cells("apps", "v1", "deployments", deployment),
        vec![
            json!("nginx-deployment"),
            json!("2/2"),
            json!(2),
            json!(2),
            json!("10m"),
            json!("nginx"),
            json!("nginx:latest"),
            json!("app=nginx"),
        ]
    );
}

#[test]
fn a_service_shows_its_external_address_or_that_it_waits_for_one() {
    let mut service = json!({"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "clusterIP": "10.43.0.7", "selector": {"app": "nginx"},
        "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}});
    assert_eq!(cells("", "v1", "services", service.clone())[3], "<pending>");
    service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "10.44.0.1"}]}});
    assert_eq!(
        cells("", "v1", "services", service),
        vec![
            json!("s"),
            json!("LoadBalancer"),
            json!("10.43.0.7"),
            json!("10.44.0.1"),
            json!("80:30080/TCP,53/UDP"),
            json!("10m"),
            json!("app=nginx"),
        ]
    );
}

#[test]
fn a_pods_status_says_what_matters_most() {
    let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
    let sidecar = json!({"name": "s", "started": true, "ready": true, "state": {"running": {}}});
    let inits = json!([done, sidecar]);
    let running = json!({"name": "a", "ready": true, "state": {"running": {}}, "restartCount": 0});
    let crashing = json!({"name": "a", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"finishedAt": "2026-11-22T21:09:30Z"}}});
    for (status, ready, word, restarts) in [
        (json!({"phase": "Pending"}), "0/2", "Pending", "0"),
        (
            json!({"phase": "Running", "initContainerStatuses": inits, "containerStatuses": [running]}),
            "2/2",
            "Running",
            "0",
        ),
        (
            json!({"phase": "Running", "initContainerStatuses": inits, "containerStatuses": [crashing]}),
            "1/2",
            "CrashLoopBackOff",
            "3 (30s ago)",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
            "0/2",
            "Init:0/2",
            "0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
            "0/2",
            "Init:Error",
            "0",
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), "0/2", "Evicted", "0"),
        (
            json!({"phase": "Succeeded", "initContainerStatuses": [done], "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
            "0/2",
            "Completed",
            "0",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 3}}}]}),
            "0/2",
            "ExitCode:3",
            "0",
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            "0/2",
            "SchedulingGated",
            "0",
        ),
    ] {
        let cells = pod_cells(status.clone());
        assert_eq!((&cells[1], &cells[2], &cells[3]), (&json!(ready), &json!(word), &json!(restarts)), "{status}");
    }
    let going = json!({"metadata": {"name": "p", "deletionTimestamp": NOW}, "status": {"phase": "Running"}});
    assert_eq!(cells("", "v1", "pods", going)[2], "Terminating");
}

#[test]
fn a_node_shows_readiness_and_roles() {
    let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.0"}}});
    assert_eq!(
        cells("", "v1", "nodes", node)[1..5],
        [json!("Ready,SchedulingDisabled"), json!("control-plane"), json!("10m"), json!("v1.36.0")]
    );
}

#[test]
fn events_show_their_last_time_and_object() {
    let event = json!({"metadata": {"name": "e"}, "type": "Warning", "reason": "BackOff", "message": "again\n", "count": 4,
        "involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": "2026-11-22T21:00:00Z", "lastTimestamp": "2026-11-22T21:09:00Z"});
    assert_eq!(
        cells("", "v1", "events", event),
        vec![
            json!("60s"),
            json!("Warning"),
            json!("BackOff"),
            json!("pod/p"),
            json!(""),
            json!("kubelet, n"),
            json!("again"),
            json!("10m"),
            json!(4),
            json!("e"),
        ]
    );
}
