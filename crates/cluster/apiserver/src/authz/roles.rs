//! The roles and bindings that every cluster starts with. Read by `bootstrap` alone.

use serde_json::{Value, json};

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

fn paths(urls: &[&str]) -> Value {
    json!({"nonResourceURLs": urls, "verbs": ["get"]})
}

/// The workload resources that `view` reads and `edit` writes: API group, resources.
const WORKLOADS: [(&str, &[&str]); 6] = [
    (
        "",
        &[
            "configmaps",
            "endpoints",
            "persistentvolumeclaims",
            "pods",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "serviceaccounts",
            "services",
        ],
    ),
    (
        "apps",
        &[
            "daemonsets",
            "deployments",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
            "controllerrevisions",
        ],
    ),
    ("batch", &["cronjobs", "jobs"]),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
];

fn view_rules() -> Vec<Value> {
    let mut rules: Vec<Value> = WORKLOADS.iter().map(|(group, resources)| rule(&[group], resources, &READ)).collect();
    rules.push(rule(
        &[""],
        &[
            "bindings",
            "events",
            "limitranges",
            "namespaces",
            "namespaces/status",
            "persistentvolumeclaims/status",
            "pods/log",
            "pods/status",
            "replicationcontrollers/status",
            "resourcequotas",
            "resourcequotas/status",
            "services/status",
        ],
        &READ,
    ));
    rules.push(rule(
        &["apps"],
        &["daemonsets/status", "deployments/status", "replicasets/status", "statefulsets/status"],
        &READ,
    ));
    rules.push(rule(&["discovery.k8s.io"], &["endpointslices"], &READ));
    rules.push(rule(&["batch"], &["cronjobs/status", "jobs/status"], &READ));
    rules.push(rule(&["metrics.k8s.io"], &["pods", "nodes"], &READ));
    rules
}

fn edit_rules() -> Vec<Value> {
    let mut rules: Vec<Value> = WORKLOADS.iter().map(|(group, resources)| rule(&[group], resources, &WRITE)).collect();
    rules.push(rule(&[""], &["secrets"], &READ));
    rules.push(rule(&[""], &["secrets"], &WRITE));
    rules.push(rule(
        &[""],
        &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy"],
        &["get", "list", "watch"],
    ));
    rules.push(rule(&[""], &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy"], &WRITE));
    rules.push(rule(&[""], &["pods/eviction", "serviceaccounts/token"], &["create"]));
    rules.push(rule(&[""], &["serviceaccounts"], &["impersonate"]));
    rules.push(rule(&["apps"], &["deployments/rollback"], &WRITE));
    rules.push(rule(
        &["coordination.k8s.io"],
        &["leases"],
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    ));
    rules
}

fn admin_rules() -> Vec<Value> {
    let all = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    vec![
        rule(&["rbac.authorization.k8s.io"], &["rolebindings", "roles"], &all),
        rule(&["authorization.k8s.io"], &["localsubjectaccessreviews"], &["create"]),
    ]
}

fn role(name: &str, labels: &[&str], rules: Vec<Value>) -> Value {
    let mut all = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    for label in labels {
        all[format!("rbac.authorization.k8s.io/aggregate-to-{label}")] = "true".into();
    }
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {
            "name": name, "labels": all,
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
        "rules": rules,
    })
}

/// A role that is the sum of those with its label; the rules are there already as well, for those who read them.
fn aggregated(name: &str, labels: &[&str], rules: Vec<Value>) -> Value {
    let mut role = role(name, labels, rules);
    let label = format!("rbac.authorization.k8s.io/aggregate-to-{name}");
    role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    role
}

pub(crate) fn cluster_roles() -> Vec<Value> {
    let (view, edit, admin) = (view_rules(), edit_rules(), admin_rules());
    let sum = |parts: &[&Vec<Value>]| parts.iter().flat_map(|part| part.iter().cloned()).collect::<Vec<_>>();
    let everything = vec![rule(&["*"], &["*"], &["*"]), json!({"nonResourceURLs": ["*"], "verbs": ["*"]})];
    let public = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    let discovery = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    vec![
        role("cluster-admin", &[], everything),
        aggregated("admin", &[], sum(&[&admin, &edit, &view])),
        aggregated("edit", &["admin"], sum(&[&edit, &view])),
        aggregated("view", &["edit"], view.clone()),
        role("system:aggregate-to-admin", &["admin"], admin),
        role("system:aggregate-to-edit", &["edit"], edit),
        role("system:aggregate-to-view", &["view"], view),
        role("system:discovery", &[], vec![paths(&discovery)]),
        role("system:public-info-viewer", &[], vec![paths(&public)]),
        role(
            "system:monitoring",
            &[],
            vec![paths(&[
                "/metrics",
                "/metrics/slis",
                "/livez",
                "/readyz",
                "/healthz",
                "/livez/*",
                "/readyz/*",
                "/healthz/*",
            ])],
        ),
        role(
            "system:service-account-issuer-discovery",
            &[],
            vec![paths(&[
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ])],
        ),
        role(
            "system:basic-user",
            &[],
            vec![
                rule(&["authorization.k8s.io"], &["selfsubjectaccessreviews", "selfsubjectrulesreviews"], &["create"]),
                rule(&["authentication.k8s.io"], &["selfsubjectreviews"], &["create"]),
            ],
        ),
        role(
            "system:auth-delegator",
            &[],
            vec![
                rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
                rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
            ],
        ),
        role(
            "system:node-proxier",
            &[],
            vec![
                rule(&[""], &["endpoints", "services"], &["list", "watch"]),
                rule(&[""], &["nodes"], &READ),
                rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]),
                rule(&["discovery.k8s.io"], &["endpointslices"], &["list", "watch"]),
            ],
        ),
        role("system:kube-dns", &[], vec![rule(&[""], &["endpoints", "services"], &["list", "watch"])]),
        role("system:kube-scheduler", &[], scheduler_rules()),
        // The node authoriser decides about nodes; the role is there because tools look for it.
        role("system:node", &[], vec![rule(&[""], &["services"], &READ)]),
    ]
}

fn scheduler_rules() -> Vec<Value> {
    vec![
        rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]),
        rule(&["coordination.k8s.io"], &["leases"], &["create", "get", "list", "update", "watch"]),
        rule(
            &[""],
            &[
                "nodes",
                "namespaces",
                "persistentvolumes",
                "persistentvolumeclaims",
                "replicationcontrollers",
                "services",
            ],
            &READ,
        ),
        rule(&[""], &["pods"], &["delete", "get", "list", "watch"]),
        rule(&[""], &["bindings", "pods/binding"], &["create"]),
        rule(&[""], &["pods/status"], &["patch", "update"]),
        rule(&["apps"], &["replicasets", "statefulsets"], &READ),
        rule(&["policy"], &["poddisruptionbudgets"], &READ),
        rule(&["storage.k8s.io"], &["csinodes", "storageclasses", "csidrivers", "csistoragecapacities"], &READ),
    ]
}

fn binding(name: &str, subjects: &[(&str, &str)]) -> Value {
    let subjects: Vec<Value> = subjects
        .iter()
        .map(|(kind, subject)| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": subject}))
        .collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {
            "name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": subjects,
    })
}

pub(crate) fn cluster_role_bindings() -> Vec<Value> {
    let authenticated = ("Group", "system:authenticated");
    vec![
        binding("cluster-admin", &[("Group", "system:masters")]),
        binding("system:discovery", &[authenticated]),
        binding("system:basic-user", &[authenticated]),
        binding("system:public-info-viewer", &[authenticated, ("Group", "system:unauthenticated")]),
        binding("system:monitoring", &[("Group", "system:monitoring")]),
        binding("system:service-account-issuer-discovery", &[("Group", "system:serviceaccounts")]),
        binding("system:node-proxier", &[("User", "system:kube-proxy")]),
        binding("system:kube-scheduler", &[("User", "system:kube-scheduler")]),
        binding("system:kube-dns", &[("User", "system:serviceaccount:kube-system:kube-dns")]),
        binding("system:node", &[]),
    ]
}
