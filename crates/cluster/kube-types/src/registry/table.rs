//! The table of built-in resources, one line each.
//!
//! Columns: group, version, kind, plural, scope, short names, categories, subresources (`name` or `name:what`), schema package.

use super::{Resource, SubresourceInfo, Text};
use crate::schema::ResourceSchema;
use std::collections::BTreeMap;

const ALL_VERBS: &str = "create delete deletecollection get list patch update watch";

/// One line of the table. `subresources` names entries of [`subresource`].
struct Row {
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
    short: &'static str,
    categories: &'static str,
    subresources: &'static str,
    verbs: &'static str,
}

const fn ns(
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    categories: &'static str,
    subresources: &'static str,
) -> Row {
    Row { kind, plural, namespaced: true, short, categories, subresources, verbs: ALL_VERBS }
}

const fn cluster(
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    categories: &'static str,
    subresources: &'static str,
) -> Row {
    Row { kind, plural, namespaced: false, short, categories, subresources, verbs: ALL_VERBS }
}

const fn create_only(kind: &'static str, plural: &'static str, namespaced: bool) -> Row {
    Row { kind, plural, namespaced, short: "", categories: "", subresources: "", verbs: "create" }
}

struct Group {
    name: &'static str,
    version: &'static str,
    /// Prefix of the types' OpenAPI names.
    package: &'static str,
    rows: &'static [Row],
}

static GROUPS: &[Group] = &[
    Group {
        name: "",
        version: "v1",
        package: "io.k8s.api.core.v1",
        rows: &[
            create_only("Binding", "bindings", true),
            Row { verbs: "get list", ..cluster("ComponentStatus", "componentstatuses", "cs", "", "") },
            ns("ConfigMap", "configmaps", "cm", "", ""),
            ns("Endpoints", "endpoints", "ep", "", ""),
            ns("Event", "events", "ev", "", ""),
            ns("LimitRange", "limitranges", "limits", "", ""),
            Row {
                verbs: "create delete get list patch update watch",
                ..cluster("Namespace", "namespaces", "ns", "", "finalize status")
            },
            cluster("Node", "nodes", "no", "", "proxy status"),
            ns("PersistentVolumeClaim", "persistentvolumeclaims", "pvc", "", "status"),
            cluster("PersistentVolume", "persistentvolumes", "pv", "", "status"),
            ns(
                "Pod",
                "pods",
                "po",
                "all",
                "attach binding ephemeralcontainers eviction exec log portforward proxy resize status",
            ),
            ns("PodTemplate", "podtemplates", "", "", ""),
            ns("ReplicationController", "replicationcontrollers", "rc", "all", "scale status"),
            ns("ResourceQuota", "resourcequotas", "quota", "", "status"),
            ns("Secret", "secrets", "", "", ""),
            ns("ServiceAccount", "serviceaccounts", "sa", "", "token"),
            ns("Service", "services", "svc", "all", "proxy status"),
        ],
    },
    Group {
        name: "apiregistration.k8s.io",
        version: "v1",
        package: "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1",
        rows: &[cluster("APIService", "apiservices", "", "api-extensions", "status")],
    },
    Group {
        name: "apps",
        version: "v1",
        package: "io.k8s.api.apps.v1",
        rows: &[
            ns("ControllerRevision", "controllerrevisions", "", "", ""),
            ns("DaemonSet", "daemonsets", "ds", "all", "status"),
            ns("Deployment", "deployments", "deploy", "all", "scale status"),
            ns("ReplicaSet", "replicasets", "rs", "all", "scale status"),
            ns("StatefulSet", "statefulsets", "sts", "all", "scale status"),
        ],
    },
    Group {
        name: "events.k8s.io",
        version: "v1",
        package: "io.k8s.api.events.v1",
        rows: &[ns("Event", "events", "ev", "", "")],
    },
    Group {
        name: "authentication.k8s.io",
        version: "v1",
        package: "io.k8s.api.authentication.v1",
        rows: &[
            create_only("SelfSubjectReview", "selfsubjectreviews", false),
            create_only("TokenReview", "tokenreviews", false),
        ],
    },
    Group {
        name: "authorization.k8s.io",
        version: "v1",
        package: "io.k8s.api.authorization.v1",
        rows: &[
            create_only("LocalSubjectAccessReview", "localsubjectaccessreviews", true),
            create_only("SelfSubjectAccessReview", "selfsubjectaccessreviews", false),
            create_only("SelfSubjectRulesReview", "selfsubjectrulesreviews", false),
            create_only("SubjectAccessReview", "subjectaccessreviews", false),
        ],
    },
    // The preferred version of a group comes first.
    Group {
        name: "autoscaling",
        version: "v2",
        package: "io.k8s.api.autoscaling.v2",
        rows: &[ns("HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", "all", "status")],
    },
    Group {
        name: "autoscaling",
        version: "v1",
        package: "io.k8s.api.autoscaling.v1",
        rows: &[ns("HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", "all", "status")],
    },
    Group {
        name: "batch",
        version: "v1",
        package: "io.k8s.api.batch.v1",
        rows: &[ns("CronJob", "cronjobs", "cj", "all", "status"), ns("Job", "jobs", "", "all", "status")],
    },
    Group {
        name: "certificates.k8s.io",
        version: "v1",
        package: "io.k8s.api.certificates.v1",
        rows: &[cluster("CertificateSigningRequest", "certificatesigningrequests", "csr", "", "approval status")],
    },
    Group {
        name: "networking.k8s.io",
        version: "v1",
        package: "io.k8s.api.networking.v1",
        rows: &[
            cluster("IngressClass", "ingressclasses", "", "", ""),
            ns("Ingress", "ingresses", "ing", "", "status"),
            cluster("IPAddress", "ipaddresses", "ip", "", ""),
            ns("NetworkPolicy", "networkpolicies", "netpol", "", ""),
            cluster("ServiceCIDR", "servicecidrs", "", "", "status"),
        ],
    },
    Group {
        name: "policy",
        version: "v1",
        package: "io.k8s.api.policy.v1",
        rows: &[ns("PodDisruptionBudget", "poddisruptionbudgets", "pdb", "", "status")],
    },
    Group {
        name: "rbac.authorization.k8s.io",
        version: "v1",
        package: "io.k8s.api.rbac.v1",
        rows: &[
            cluster("ClusterRoleBinding", "clusterrolebindings", "", "", ""),
            cluster("ClusterRole", "clusterroles", "", "", ""),
            ns("RoleBinding", "rolebindings", "", "", ""),
            ns("Role", "roles", "", "", ""),
        ],
    },
    Group {
        name: "storage.k8s.io",
        version: "v1",
        package: "io.k8s.api.storage.v1",
        rows: &[
            cluster("CSIDriver", "csidrivers", "", "", ""),
            cluster("CSINode", "csinodes", "", "", ""),
            ns("CSIStorageCapacity", "csistoragecapacities", "", "", ""),
            cluster("StorageClass", "storageclasses", "sc", "", ""),
            cluster("VolumeAttachment", "volumeattachments", "", "", "status"),
            cluster("VolumeAttributesClass", "volumeattributesclasses", "vac", "", ""),
        ],
    },
    Group {
        name: "admissionregistration.k8s.io",
        version: "v1",
        package: "io.k8s.api.admissionregistration.v1",
        rows: &[
            cluster("MutatingAdmissionPolicy", "mutatingadmissionpolicies", "", "api-extensions", ""),
            cluster("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "", "api-extensions", ""),
            cluster("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "", "api-extensions", ""),
            cluster("ValidatingAdmissionPolicy", "validatingadmissionpolicies", "", "api-extensions", "status"),
            cluster("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "", "api-extensions", ""),
            cluster("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "", "api-extensions", ""),
        ],
    },
    Group {
        name: "apiextensions.k8s.io",
        version: "v1",
        package: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
        rows: &[cluster(
            "CustomResourceDefinition",
            "customresourcedefinitions",
            "crd crds",
            "api-extensions",
            "status",
        )],
    },
    Group {
        name: "scheduling.k8s.io",
        version: "v1",
        package: "io.k8s.api.scheduling.v1",
        rows: &[cluster("PriorityClass", "priorityclasses", "pc", "", "")],
    },
    Group {
        name: "coordination.k8s.io",
        version: "v1",
        package: "io.k8s.api.coordination.v1",
        rows: &[ns("Lease", "leases", "", "", "")],
    },
    Group {
        name: "node.k8s.io",
        version: "v1",
        package: "io.k8s.api.node.v1",
        rows: &[cluster("RuntimeClass", "runtimeclasses", "", "", "")],
    },
    Group {
        name: "discovery.k8s.io",
        version: "v1",
        package: "io.k8s.api.discovery.v1",
        rows: &[ns("EndpointSlice", "endpointslices", "", "", "")],
    },
    Group {
        name: "flowcontrol.apiserver.k8s.io",
        version: "v1",
        package: "io.k8s.api.flowcontrol.v1",
        rows: &[
            cluster("FlowSchema", "flowschemas", "", "", "status"),
            cluster("PriorityLevelConfiguration", "prioritylevelconfigurations", "", "", "status"),
        ],
    },
    Group {
        name: "resource.k8s.io",
        version: "v1",
        package: "io.k8s.api.resource.v1",
        rows: &[
            cluster("DeviceClass", "deviceclasses", "", "", ""),
            ns("ResourceClaim", "resourceclaims", "", "", "status"),
            ns("ResourceClaimTemplate", "resourceclaimtemplates", "", "", ""),
            cluster("ResourceSlice", "resourceslices", "", "", ""),
        ],
    },
    // Not stored: answered from what the nodes measure.
    Group {
        name: "metrics.k8s.io",
        version: "v1beta1",
        package: "io.k8s.metrics.pkg.apis.metrics.v1beta1",
        rows: &[
            Row { verbs: "get list", ..cluster("NodeMetrics", "nodes", "", "", "") },
            Row { verbs: "get list", ..ns("PodMetrics", "pods", "", "", "") },
        ],
    },
];

pub(super) fn resources() -> Vec<Resource> {
    let names = schema_names();
    let mut found = Vec::new();
    for group in GROUPS {
        for row in group.rows {
            found.push(resource(group, row, &names));
        }
    }
    found
}

/// (package, kind) → the embedded type's name, which is static text.
fn schema_names() -> BTreeMap<(&'static str, &'static str), &'static str> {
    let types = crate::schema::builtin().types().iter();
    types
        .filter_map(|t| match &t.name {
            Text::Borrowed(name) => name.rsplit_once('.').map(|split| (split, *name)),
            Text::Owned(_) => None,
        })
        .collect()
}

fn resource(group: &Group, row: &Row, names: &BTreeMap<(&'static str, &'static str), &'static str>) -> Resource {
    Resource {
        group: group.name.into(),
        version: group.version.into(),
        kind: row.kind.into(),
        list_kind: if row.verbs == "create" { "".into() } else { format!("{}List", row.kind).into() },
        plural: row.plural.into(),
        singular: row.kind.to_lowercase().into(),
        short_names: words(row.short),
        categories: words(row.categories),
        namespaced: row.namespaced,
        verbs: words(row.verbs),
        subresources: row.subresources.split_whitespace().map(|name| subresource(row.kind, name)).collect(),
        schema: names
            .get(&(group.package, row.kind))
            .map_or(ResourceSchema::Open, |name| ResourceSchema::Builtin(name)),
    }
}

fn words(text: &'static str) -> Vec<Text> {
    text.split_whitespace().map(Into::into).collect()
}

fn subresource(kind: &'static str, name: &'static str) -> SubresourceInfo {
    let (body, group_version, verbs) = match name {
        "scale" => ("Scale", Some(("autoscaling", "v1")), "get patch update"),
        "eviction" => ("Eviction", Some(("policy", "v1")), "create"),
        "binding" => ("Binding", None, "create"),
        "token" => ("TokenRequest", Some(("authentication.k8s.io", "v1")), "create"),
        "log" => (kind, None, "get"),
        "attach" => ("PodAttachOptions", None, "create get"),
        "exec" => ("PodExecOptions", None, "create get"),
        "portforward" => ("PodPortForwardOptions", None, "create get"),
        "finalize" => (kind, None, "update"),
        "proxy" => (proxy_kind(kind), None, "create delete get patch update"),
        _ => (kind, None, "get patch update"),
    };
    SubresourceInfo {
        name: name.into(),
        kind: body.into(),
        group_version: group_version.map(|(group, version)| (group.into(), version.into())),
        verbs: words(verbs),
    }
}

fn proxy_kind(kind: &str) -> &'static str {
    match kind {
        "Node" => "NodeProxyOptions",
        "Service" => "ServiceProxyOptions",
        _ => "PodProxyOptions",
    }
}
