//! What every cluster starts with: the system namespaces, the default roles and bindings, the priority classes, and the
//! `kubernetes` service with its endpoints.
//!
//! Invariant: what is there already stays as it is, except the endpoints of the `kubernetes` service, which are always
//! this server's address.

use jiff::Timestamp;
use kube_types::lifecycle::Subresource;
use kube_types::{managed, meta};
use serde_json::{Value, json};
use store::{Compare, Op, Store, Txn, TxnOutcome};

use crate::authz::roles;
use crate::keys;
use crate::object::{self, Encoded};
use crate::served::Served;
use crate::server::{Config, StartError};

pub(crate) const SERVICE_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 43, 0, 1);
const MANAGER: &str = "kube-apiserver";

/// An object and whether it replaces one that is there.
struct Wanted {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    object: Value,
    always: bool,
}

impl Wanted {
    fn new(group: &'static str, plural: &'static str, object: Value) -> Self {
        Self { group, version: "v1", plural, object, always: false }
    }
}

pub(crate) async fn ensure(store: &Store, served: &Served, config: &Config) -> Result<(), StartError> {
    for wanted in wanted(config) {
        // A kind that the registry lacks cannot be served, so nobody could read the object either.
        if let Some(resource) = served.find(wanted.group, wanted.version, wanted.plural) {
            ensure_one(store, &resource, wanted).await?;
        }
    }
    Ok(())
}

fn wanted(config: &Config) -> Vec<Wanted> {
    let mut all: Vec<Wanted> = ["default", "kube-system", "kube-public", "kube-node-lease"]
        .into_iter()
        .map(|name| {
            let labels = json!({"kubernetes.io/metadata.name": name});
            Wanted::new(
                "",
                "namespaces",
                json!({
                    "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
                    "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
                }),
            )
        })
        .collect();
    let rbac = "rbac.authorization.k8s.io";
    all.extend(roles::cluster_roles().into_iter().map(|role| Wanted::new(rbac, "clusterroles", role)));
    all.extend(
        roles::cluster_role_bindings().into_iter().map(|binding| Wanted::new(rbac, "clusterrolebindings", binding)),
    );
    for (name, value, description) in [
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ] {
        all.push(Wanted::new(
            "scheduling.k8s.io",
            "priorityclasses",
            json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
                "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority",
            }),
        ));
    }
    all.extend(kubernetes_service(config));
    all
}

fn kubernetes_service(config: &Config) -> [Wanted; 3] {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let (address, port) = (config.advertise_address.to_string(), config.advertise_port);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP", "clusterIP": SERVICE_ADDRESS.to_string(), "clusterIPs": [SERVICE_ADDRESS.to_string()],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
        },
        "status": {"loadBalancer": {}},
    });
    let slice_labels = json!({"kubernetes.io/service-name": "kubernetes"});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": slice_labels},
        "addressType": if config.advertise_address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "protocol": "TCP", "port": port}],
    });
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    });
    let always = |wanted: Wanted| Wanted { always: true, ..wanted };
    [
        Wanted::new("", "services", service),
        always(Wanted::new("discovery.k8s.io", "endpointslices", slice)),
        always(Wanted::new("", "endpoints", endpoints)),
    ]
}

async fn ensure_one(store: &Store, resource: &kube_types::Resource, wanted: Wanted) -> Result<(), StartError> {
    let mut object = wanted.object;
    let key = keys::object(resource, meta::namespace(&object), meta::name(&object));
    resource.default(&mut object);
    let now = Timestamp::now();
    let existing = store.get(&key);
    if let Some(existing) = &existing {
        let old = object::decode(&existing.value);
        let same = ["subsets", "endpoints", "ports", "addressType"].iter().all(|field| old[field] == object[field]);
        if !wanted.always || same {
            return Ok(());
        }
        for field in ["uid", "creationTimestamp"] {
            meta::set(&mut object, field, old["metadata"].get(field).cloned());
        }
    } else {
        meta::set_uid(&mut object, &uuid::Uuid::new_v4().to_string());
        meta::set_creation(&mut object, now);
    }
    managed::record_update(resource, None, &mut object, MANAGER, Subresource::Main, now);
    let encoded = Encoded::new(&object);
    let mut compare = vec![Compare { key: key.clone(), mod_revision: existing.map_or(0, |found| found.mod_revision) }];
    let mut ops = vec![Op::PutWith { key: key.clone(), encode: Box::new(move |revision| encoded.at(revision)) }];
    if resource.group.is_empty() && resource.plural == "services" {
        let claim = keys::cluster_ip(SERVICE_ADDRESS.into());
        compare.push(Compare { key: claim.clone(), mod_revision: 0 });
        ops.push(Op::Put { key: claim, value: bytes::Bytes::from_static(b"default/kubernetes") });
    }
    let failed = |message: String| StartError::Bootstrap { key: String::from_utf8_lossy(&key).into_owned(), message };
    match store.txn(Txn { compare, ops }).await {
        Ok(TxnOutcome::Committed { .. }) => Ok(()),
        Ok(TxnOutcome::Conflict { .. }) => {
            Err(failed("somebody else writes to the store, or holds its address".to_owned()))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}
