//! The Node object and its Lease.
//!
//! The agent registers the node, keeps its status true and renews its lease. Invariants: what others put on the
//! node (labels, taints, cordons) stays, and a node that could not be registered is tried again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo},
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time},
    },
};
use kube_client::ClientError;
use serde_json::json;

use crate::agent::Shared;

const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
const REPORT_EVERY: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(1);
const MAX_PODS: i64 = 110;

fn quantity(value: impl ToString) -> Quantity {
    Quantity(value.to_string())
}

fn resources(shared: &Shared) -> BTreeMap<String, Quantity> {
    let machine = &shared.node.machine;
    [
        ("cpu", quantity(machine.millicpu / 1000)),
        ("memory", quantity(format!("{}Ki", machine.memory_bytes / 1024))),
        ("ephemeral-storage", quantity(format!("{}Ki", machine.disk_bytes / 1024))),
        ("pods", quantity(MAX_PODS)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn labels(shared: &Shared) -> BTreeMap<String, String> {
    let name = shared.node.facts.name.clone();
    let architecture = shared.node.machine.architecture.to_owned();
    [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux".to_owned()),
        ("kubernetes.io/arch", architecture.clone()),
        ("beta.kubernetes.io/os", "linux".to_owned()),
        ("beta.kubernetes.io/arch", architecture),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn condition(before: Option<&NodeStatus>, kind: &str, holds: bool, reason: &str, message: &str) -> NodeCondition {
    let now = Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default());
    let status = if holds { "True" } else { "False" };
    let known = before
        .and_then(|status| status.conditions.as_ref())
        .and_then(|all| all.iter().find(|one| one.type_ == kind && one.status == status));
    NodeCondition {
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: known.and_then(|one| one.last_transition_time.clone()).or(Some(now)),
        message: Some(message.to_owned()),
        reason: Some(reason.to_owned()),
        status: status.to_owned(),
        type_: kind.to_owned(),
    }
}

fn status(shared: &Shared, before: Option<&NodeStatus>, runtime: Result<(), String>) -> NodeStatus {
    let machine = &shared.node.machine;
    let ready = match &runtime {
        Ok(()) => condition(before, "Ready", true, "KubeletReady", "kubelet is posting ready status"),
        Err(why) => condition(before, "Ready", false, "KubeletNotReady", why),
    };
    let fine = |kind, reason, message| condition(before, kind, false, reason, message);
    let address = |kind: &str, address: &str| NodeAddress { address: address.to_owned(), type_: kind.to_owned() };
    let mut addresses: Vec<_> = shared.node.facts.host_ips.iter().map(|ip| address("InternalIP", ip)).collect();
    addresses.push(address("Hostname", &shared.node.facts.name));
    NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(resources(shared)),
        capacity: Some(resources(shared)),
        conditions: Some(vec![
            fine("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            fine("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            fine("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ready,
        ]),
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.to_owned(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: shared.node.runtime_version.clone(),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: "v1.36.0".to_owned(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.machine_id.clone(),
            ..NodeSystemInfo::default()
        }),
        ..before.cloned().unwrap_or_default()
    }
}

async fn runtime_ready(shared: &Shared) -> Result<(), String> {
    let answer = shared.config.cri.status().await.map_err(|error| error.to_string())?;
    let conditions = answer.status.unwrap_or_default().conditions;
    match conditions.iter().find(|one| !one.status) {
        None => Ok(()),
        Some(one) => Err(format!("container runtime: {} is false: {}", one.r#type, one.message)),
    }
}

/// Makes or updates the Node; idempotent.
async fn register(shared: &Shared) -> Result<(), ClientError> {
    let api = shared.config.client.api::<Node>();
    let name = &shared.node.facts.name;
    let existing = match api.get_opt(name).await? {
        Some(node) => node,
        None => {
            let node = Node {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some(labels(shared)),
                    ..ObjectMeta::default()
                },
                spec: Some(NodeSpec {
                    pod_cidr: Some(shared.config.pod_cidr.clone()),
                    pod_cidrs: Some(vec![shared.config.pod_cidr.clone()]),
                    ..NodeSpec::default()
                }),
                status: Some(status(shared, None, runtime_ready(shared).await)),
            };
            match api.create(&node).await {
                Ok(node) => node,
                Err(error) if error.is_already_exists() => api.get(name).await?,
                Err(error) => return Err(error),
            }
        }
    };
    let known = existing.metadata.labels.clone().unwrap_or_default();
    if labels(shared).iter().any(|(key, value)| known.get(key) != Some(value)) {
        let body = json!({"metadata": {"labels": labels(shared)}});
        api.patch(name, kube_client::PatchKind::Merge, &body).await?;
    }
    report(shared).await
}

async fn report(shared: &Shared) -> Result<(), ClientError> {
    let api = shared.config.client.api::<Node>();
    let mut node = api.get(&shared.node.facts.name).await?;
    node.status = Some(status(shared, node.status.as_ref(), runtime_ready(shared).await));
    api.update_status(&node).await.map(drop)
}

async fn renew_lease(shared: &Shared) -> Result<(), ClientError> {
    let name = &shared.node.facts.name;
    let api = shared.config.client.api::<Lease>().namespace(LEASE_NAMESPACE);
    let spec = LeaseSpec {
        holder_identity: Some(name.clone()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    if let Some(mut lease) = api.get_opt(name).await? {
        lease.spec = Some(spec);
        return api.update(&lease).await.map(drop);
    }
    let node = shared.config.client.api::<Node>().get(name).await?;
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.clone(),
        uid: node.metadata.uid.unwrap_or_default(),
        ..OwnerReference::default()
    };
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(LEASE_NAMESPACE.to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
    };
    api.create(&lease).await.map(drop)
}

/// Registers the node, then keeps lease and status fresh for as long as it is polled.
pub(crate) async fn keep(shared: Arc<Shared>) {
    while let Err(error) = register(&shared).await {
        tracing::warn!(node = %shared.node.facts.name, %error, "node not registered");
        tokio::time::sleep(RETRY).await;
    }
    tracing::info!(node = %shared.node.facts.name, "node registered");
    let mut reported = tokio::time::Instant::now();
    let mut ready = runtime_ready(&shared).await.is_ok();
    loop {
        let renewed = renew_lease(&shared).await;
        if let Err(error) = &renewed {
            tracing::warn!(%error, "lease not renewed");
        }
        tokio::time::sleep(if renewed.is_ok() { RENEW_EVERY } else { RETRY }).await;
        let is_ready = runtime_ready(&shared).await.is_ok();
        if is_ready != ready || reported.elapsed() >= REPORT_EVERY {
            match report(&shared).await {
                Ok(()) => (reported, ready) = (tokio::time::Instant::now(), is_ready),
                // Somebody deleted the node: it is made again.
                Err(error) if error.is_not_found() => drop(register(&shared).await),
                Err(error) => tracing::warn!(%error, "node status not written"),
            }
        }
    }
}
