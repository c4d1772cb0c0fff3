use super::*;
use crate::registry::{all, find_by_gvr};
use serde_json::json;

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn created(group: &str, version: &str, plural: &str, mut object: Value) -> Vec<String> {
    let resource = find_by_gvr(group, version, plural).unwrap();
    if object["metadata"]["name"].is_null() {
        object["metadata"]["name"] = "x".into();
    }
    if resource.namespaced {
        object["metadata"]["namespace"] = "default".into();
    }
    resource.default(&mut object);
    texts(&resource.validate_create(&object))
}

fn deployment(change: impl Fn(&mut Value)) -> Vec<String> {
    let mut object = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "nginx"}]}}}});
    change(&mut object);
    created("apps", "v1", "deployments", object)
}

fn container(container: Value) -> Vec<String> {
    created("", "v1", "pods", json!({"spec": {"containers": [container]}}))
}

#[test]
fn a_right_deployment_has_no_errors() {
    assert_eq!(deployment(|_| {}), Vec::<String>::new());
}

#[test]
fn what_users_get_wrong_in_deployments_is_said_as_kubernetes_says_it() {
    type Change = fn(&mut Value);
    let table: [(Change, &str); 8] = [
        (
            |d| d["spec"]["template"]["spec"]["containers"][0]["image"] = "".into(),
            "spec.template.spec.containers[0].image: Required value",
        ),
        (
            |d| d["spec"]["replicas"] = (-1).into(),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            |d| d["spec"]["template"]["metadata"]["labels"] = json!({"app": "db"}),
            r#"spec.template.metadata.labels: Invalid value: {"app":"db"}: `selector` does not match template `labels`"#,
        ),
        (|d| d["spec"]["selector"] = Value::Null, "spec.selector: Required value"),
        (
            |d| d["metadata"]["name"] = "Web_1".into(),
            r#"metadata.name: Invalid value: "Web_1": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
        ),
        (
            |d| {
                d["spec"]["strategy"] =
                    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}})
            },
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            |d| d["spec"]["strategy"] = json!({"type": "Rolling"}),
            r#"spec.strategy.type: Unsupported value: "Rolling": supported values: "Recreate", "RollingUpdate""#,
        ),
        (
            |d| d["spec"]["template"]["spec"]["restartPolicy"] = "Never".into(),
            r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#,
        ),
    ];
    for (change, expected) in table {
        assert_eq!(deployment(change), [expected]);
    }
}

#[test]
fn what_users_get_wrong_in_containers_is_said_as_kubernetes_says_it() {
    for (wrong, expected) in [
        (
            json!({"name": "a", "image": "i", "ports": [{"containerPort": 70000}]}),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
            r#"spec.containers[0].volumeMounts[0].name: Not found: "v""#,
        ),
        (
            json!({"name": "a", "image": "i", "env": [{"name": "A=B"}]}),
            r#"spec.containers[0].env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of printable ASCII characters other than '='"#,
        ),
        (
            json!({"name": "a", "image": "i", "readinessProbe": {}}),
            "spec.containers[0].readinessProbe: Required value: must specify a handler type",
        ),
        (
            json!({"name": "a", "image": "i", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}),
            r#"spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#,
        ),
        (
            json!({"name": "a", "image": "i", "imagePullPolicy": "Sometimes"}),
            r#"spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never""#,
        ),
        (
            json!({"name": "a", "image": "i", "livenessProbe": {"tcpSocket": {"port": "8000"}}}),
            "spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: \"8000\": must contain at least one letter (a-z)",
        ),
    ] {
        assert_eq!(container(wrong), [expected]);
    }
    assert_eq!(created("", "v1", "pods", json!({"spec": {"containers": []}})), ["spec.containers: Required value"]);
}

#[test]
fn services_need_ports_with_names_when_there_are_several() {
    let service = |spec: Value| created("", "v1", "services", json!({"spec": spec}));
    assert_eq!(service(json!({"ports": [{"port": 80}]})), Vec::<String>::new());
    assert_eq!(service(json!({})), ["spec.ports: Required value"]);
    assert_eq!(
        service(json!({"ports": [{"port": 80}, {"port": 81, "name": "b"}]})),
        ["spec.ports[0].name: Required value"]
    );
    assert_eq!(
        service(json!({"type": "Load", "ports": [{"port": 80}]})),
        [
            r#"spec.type: Unsupported value: "Load": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort""#
        ]
    );
    assert_eq!(
        service(json!({"ports": [{"port": 0}]}))[0],
        "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"
    );
}

#[test]
fn immutable_fields_are_refused_in_updates() {
    let deployments = find_by_gvr("apps", "v1", "deployments").unwrap();
    let old = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "replicas": 1,
        "template": {"metadata": {"labels": {"a": "b", "c": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let mut old = old;
    deployments.default(&mut old);
    let mut new = old.clone();
    new["spec"]["selector"]["matchLabels"] = json!({"c": "d"});
    assert_eq!(
        texts(&deployments.validate_update(&new, &old, Subresource::Main)),
        [r#"spec.selector: Invalid value: {"matchLabels":{"c":"d"}}: field is immutable"#]
    );
    let bindings = find_by_gvr("rbac.authorization.k8s.io", "v1", "clusterrolebindings").unwrap();
    let old = json!({"metadata": {"name": "a"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "x"}});
    let mut new = old.clone();
    new["roleRef"]["name"] = "y".into();
    assert!(texts(&bindings.validate_update(&new, &old, Subresource::Main))[0].ends_with("cannot change roleRef"));
}

#[test]
fn a_pods_image_may_change_and_its_command_may_not() {
    let pods = find_by_gvr("", "v1", "pods").unwrap();
    let mut old =
        json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    pods.default(&mut old);
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = "i:2".into();
    assert_eq!(texts(&pods.validate_update(&new, &old, Subresource::Main)), Vec::<String>::new());
    new["spec"]["containers"][0]["command"] = json!(["x"]);
    assert!(
        texts(&pods.validate_update(&new, &old, Subresource::Main))[0]
            .starts_with("spec: Forbidden: pod updates may not change fields other than")
    );
}

#[test]
fn configuration_keys_and_secret_types_are_checked() {
    assert_eq!(
        created("", "v1", "configmaps", json!({"data": {"a b": "x"}}))[0].split(": a valid").next(),
        Some(r#"data[a b]: Invalid value: "a b""#)
    );
    assert_eq!(
        created("", "v1", "secrets", json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "eA=="}})),
        ["data[tls.key]: Required value"]
    );
    assert_eq!(
        created("", "v1", "configmaps", json!({"data": {"big": "x".repeat(1 << 20), "one": "y"}})),
        [": Too long: may not be more than 1048576 bytes"]
    );
}

#[test]
fn jobs_and_cron_jobs_need_pods_that_end() {
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(
        created("batch", "v1", "jobs", json!({"spec": {"template": template}})),
        [r#"spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never""#]
    );
    let errors = created(
        "batch",
        "v1",
        "cronjobs",
        json!({"spec": {"schedule": "* * *", "jobTemplate": {"spec": {"template": template}}}}),
    );
    assert_eq!(errors[0], r#"spec.schedule: Invalid value: "* * *": expected exactly 5 fields, found 3: [* * *]"#);
}

#[test]
fn metadata_is_checked_for_every_kind() {
    for resource in all().iter().filter(|r| r.is_stored()) {
        let errors = texts(&resource.validate_create(&json!({"metadata": {"labels": {"-": "x"}}})));
        assert!(
            errors.iter().any(|e| e == "metadata.name: Required value: name or generateName is required"),
            "{}",
            resource.kind
        );
        assert!(
            errors.iter().any(|e| e.starts_with(r#"metadata.labels: Invalid value: "-": name part must consist"#)),
            "{}: {errors:?}",
            resource.kind
        );
    }
    let errors = created("", "v1", "namespaces", json!({"metadata": {"name": "a.b"}}));
    assert!(errors[0].contains("a lowercase RFC 1123 label"), "{errors:?}");
}

#[test]
fn objects_of_the_wrong_shape_end_in_errors_not_panics() {
    for resource in all() {
        for object in [
            json!({}),
            json!({"spec": [], "metadata": 1}),
            json!({"spec": {"template": 1, "containers": {}, "ports": [1, null]}, "subsets": [[]], "rules": 7}),
        ] {
            let _ = resource.validate_create(&object);
            let _ = resource.validate_update(&object, &json!({"spec": 1}), Subresource::Main);
        }
    }
}

#[test]
fn what_administrators_get_wrong_is_said_as_kubernetes_says_it() {
    for (group, version, plural, object, expected) in [
        (
            "",
            "v1",
            "limitranges",
            json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}}),
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
        ),
        (
            "",
            "v1",
            "limitranges",
            json!({"spec": {"limits": [{"type": "Pod", "default": {"cpu": "1"}}]}}),
            "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
        ),
        (
            "certificates.k8s.io",
            "v1",
            "certificatesigningrequests",
            json!({"spec": {"request": "QQ==", "signerName": "mine", "usages": ["client auth"]}}),
            "spec.signerName: Invalid value: \"mine\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
        (
            "certificates.k8s.io",
            "v1",
            "certificatesigningrequests",
            json!({"spec": {"request": "QQ==", "signerName": "a.io/b", "usages": []}}),
            "spec.usages: Required value: usages is required",
        ),
        (
            "networking.k8s.io",
            "v1",
            "ingressclasses",
            json!({"spec": {"controller": "nothing"}}),
            "spec.controller: Invalid value: \"nothing\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        ),
        (
            "networking.k8s.io",
            "v1",
            "servicecidrs",
            json!({"spec": {"cidrs": ["10.0.0.0/40"]}}),
            "spec.cidrs[0]: Invalid value: \"10.0.0.0/40\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ),
        (
            "storage.k8s.io",
            "v1",
            "volumeattachments",
            json!({"spec": {"attacher": "x", "nodeName": "n", "source": {}}}),
            "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        ),
    ] {
        let resource = crate::registry::find_by_gvr(group, version, plural).unwrap();
        let mut object = object;
        object["metadata"] = json!({"name": "x", "namespace": "default"});
        if !resource.namespaced {
            object["metadata"] = json!({"name": "x"});
        }
        let said: Vec<String> = resource.validate_create(&object).iter().map(ToString::to_string).collect();
        assert!(said.contains(&expected.to_owned()), "{plural}: {said:?}");
    }
}

#[test]
fn classes_and_revisions_do_not_change_what_they_are() {
    for (group, version, plural, field, one, other) in [
        ("networking.k8s.io", "v1", "ingressclasses", "spec", json!({"controller": "a.io/x"}), json!({"controller": "a.io/y"})),
        ("apps", "v1", "controllerrevisions", "data", json!({"a": 1}), json!({"a": 2})),
        ("storage.k8s.io", "v1", "csidrivers", "spec", json!({"attachRequired": true}), json!({"attachRequired": false})),
        ("", "v1", "resourcequotas", "spec", json!({"scopes": ["BestEffort"]}), json!({"scopes": ["Terminating"]})),
    ] {
        let resource = crate::registry::find_by_gvr(group, version, plural).unwrap();
        let made = |value: &serde_json::Value| json!({"metadata": {"name": "x", "namespace": "default", "uid": "u", "resourceVersion": "1"}, field: value});
        let errors = resource.validate_update(&made(&other), &made(&one), crate::Subresource::Main);
        assert!(errors.iter().any(|error| error.to_string().contains("field is immutable")), "{plural}: {errors:?}");
    }
}
