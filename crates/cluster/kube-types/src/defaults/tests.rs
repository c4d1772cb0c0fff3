use super::*;
use crate::registry::{all, find_by_gvr};
use serde_json::json;

fn defaulted(group: &str, version: &str, plural: &str, mut object: Value) -> Value {
    find_by_gvr(group, version, plural).unwrap().default(&mut object);
    object
}

#[test]
fn defaulting_twice_is_defaulting_once_for_every_kind() {
    for resource in all() {
        let mut once = json!({"metadata": {"name": "x"}, "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        resource.default(&mut once);
        let mut twice = once.clone();
        resource.default(&mut twice);
        assert_eq!(once, twice, "{}", resource.kind);
        assert_eq!(once["kind"], resource.kind.as_ref());
    }
}

#[test]
fn the_articles_deployment_gets_what_kubernetes_gives_it() {
    let deployment = defaulted(
        "apps",
        "v1",
        "deployments",
        json!({
            "metadata": {"name": "nginx-deployment"},
            "spec": {"selector": {"matchLabels": {"app": "nginx"}}, "template": {"metadata": {"labels": {"app": "nginx"}},
                "spec": {"containers": [{"name": "nginx", "image": "nginx:latest", "ports": [{"containerPort": 80}]}]}}},
        }),
    );
    assert_eq!(
        deployment,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "nginx-deployment"},
            "spec": {
                "progressDeadlineSeconds": 600, "replicas": 1, "revisionHistoryLimit": 10,
                "selector": {"matchLabels": {"app": "nginx"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": {"metadata": {"labels": {"app": "nginx"}}, "spec": {
                    "containers": [{"name": "nginx", "image": "nginx:latest", "imagePullPolicy": "Always", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                        "resources": {}, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                    "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                    "securityContext": {}, "terminationGracePeriodSeconds": 30,
                }},
            },
        })
    );
}

#[test]
fn a_load_balancer_service_gets_its_policies_and_target_ports() {
    let service = defaulted(
        "",
        "v1",
        "services",
        json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 80}, {"port": 1, "targetPort": "web"}]}}),
    );
    assert_eq!(
        service["spec"],
        json!({
            "type": "LoadBalancer", "sessionAffinity": "None", "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
            "allocateLoadBalancerNodePorts": true,
            "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}, {"port": 1, "targetPort": "web", "protocol": "TCP"}],
        })
    );
}

#[test]
fn a_pods_requests_follow_its_limits_but_a_templates_do_not() {
    let container = json!({"name": "c", "image": "i:1", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}});
    let pod = defaulted("", "v1", "pods", json!({"spec": {"containers": [container]}}));
    assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
    let set =
        defaulted("apps", "v1", "replicasets", json!({"spec": {"template": {"spec": {"containers": [container]}}}}));
    assert_eq!(set["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "500m"}));
    assert!(set["spec"]["template"]["spec"].get("enableServiceLinks").is_none());
}

#[test]
fn probes_and_volumes_are_filled() {
    let pod = defaulted(
        "",
        "v1",
        "pods",
        json!({"spec": {
            "volumes": [{"name": "a"}, {"name": "b", "secret": {"secretName": "s"}}],
            "containers": [{"name": "c", "readinessProbe": {"httpGet": {"port": 8000}, "periodSeconds": 1}}],
        }}),
    );
    assert_eq!(
        pod["spec"]["containers"][0]["readinessProbe"],
        json!({
            "httpGet": {"port": 8000, "path": "/", "scheme": "HTTP"}, "periodSeconds": 1, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3,
        })
    );
    assert_eq!(
        pod["spec"]["volumes"],
        json!([{"name": "a", "emptyDir": {}}, {"name": "b", "secret": {"secretName": "s", "defaultMode": 420}}])
    );
}

#[test]
fn a_secrets_text_becomes_data_and_is_not_kept() {
    let secret =
        defaulted("", "v1", "secrets", json!({"data": {"a": "b2xk", "b": "eA=="}, "stringData": {"a": "new"}}));
    assert_eq!(secret["data"], json!({"a": "bmV3", "b": "eA=="}));
    assert!(secret.get("stringData").is_none());
    assert_eq!(secret["type"], "Opaque");
}

#[test]
fn jobs_complete_once_unless_they_are_work_queues() {
    let spec = |spec: Value| defaulted("batch", "v1", "jobs", json!({"spec": spec}))["spec"].clone();
    assert_eq!(spec(json!({}))["completions"], 1);
    assert!(spec(json!({"parallelism": 3})).get("completions").is_none());
    assert_eq!(spec(json!({"completions": 3}))["parallelism"], 1);
    assert_eq!(spec(json!({}))["backoffLimit"], 6);
}

#[test]
fn quality_of_service_follows_requests_and_limits() {
    let class = |resources: Value| qos_class(&json!({"spec": {"containers": [{"resources": resources}]}}));
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    assert_eq!(
        class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}})),
        "Burstable"
    );
}
