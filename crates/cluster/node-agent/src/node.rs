//! The Node object and its Lease.
//!
//! The agent registers the node, keeps its status true and renews its lease. Invariants: what others put on the
//! node (labels, taints, cordons) stays, and a node that could not be registered is tried again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{
            ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
            NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSwapStatus, NodeSystemInfo,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time},
    },
};
use kube_client::ClientError;
use serde_json::json;

use crate::{agent::Shared, pressure};

const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
const REPORT_EVERY: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(1);
pub(crate) const MAX_PODS: i64 = 110;
/// `nodeStatusMaxImages`.
const MAX_IMAGES: usize = 50;
/// Where the kubelet's API listens.
const KUBELET_PORT: i32 = 10250;

fn quantity(value: impl ToString) -> Quantity {
    Quantity(value.to_string())
}

/// Thousandths of processors and bytes of memory that pods can have.
pub(crate) fn allocatable(shared: &Shared) -> (i64, i64) {
    let machine = &shared.node.machine;
    let (memory, _) = pressure::reserved(machine.disk_bytes);
    (machine.millicpu, machine.memory_bytes.saturating_sub(memory))
}

fn resources(shared: &Shared, for_pods: bool) -> BTreeMap<String, Quantity> {
    let machine = &shared.node.machine;
    let (memory, disk) = if for_pods { pressure::reserved(machine.disk_bytes) } else { (0, 0) };
    let mut out: BTreeMap<String, Quantity> = [
        ("cpu", quantity(machine.millicpu / 1000)),
        ("memory", quantity(format!("{}Ki", machine.memory_bytes.saturating_sub(memory) / 1024))),
        ("ephemeral-storage", quantity(format!("{}Ki", machine.disk_bytes.saturating_sub(disk) / 1024))),
        ("pods", quantity(MAX_PODS)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    // Pages of each size that the kernel has; pods cannot ask for any yet, so none is set aside.
    for size in &machine.huge_pages {
        out.insert(format!("hugepages-{size}"), quantity(0));
    }
    out
}

/// Images of the node, the largest first, as the scheduler wants to know them.
async fn images(shared: &Shared) -> Vec<ContainerImage> {
    let mut images = shared.config.cri.list_images().await.unwrap_or_default();
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    images
        .into_iter()
        .filter(|image| !(image.repo_digests.is_empty() && image.repo_tags.is_empty()))
        .take(MAX_IMAGES)
        .map(|image| ContainerImage {
            names: Some(image.repo_digests.into_iter().chain(image.repo_tags).take(5).collect()),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect()
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

async fn status(shared: &Shared, before: Option<&NodeStatus>, runtime: Result<(), String>) -> NodeStatus {
    let machine = &shared.node.machine;
    let ready = match &runtime {
        Ok(()) => condition(before, "Ready", true, "KubeletReady", "kubelet is posting ready status"),
        Err(why) => condition(before, "Ready", false, "KubeletNotReady", why),
    };
    let pressure = |kind: &str, [bad_reason, bad]: [&str; 2], [good_reason, good]: [&str; 2]| {
        let holds = shared.pressure.holds(kind);
        let (reason, message) = if holds { (bad_reason, bad) } else { (good_reason, good) };
        condition(before, kind, holds, reason, message)
    };
    let address = |kind: &str, address: &str| NodeAddress { address: address.to_owned(), type_: kind.to_owned() };
    let mut addresses: Vec<_> = shared.node.facts.host_ips.iter().map(|ip| address("InternalIP", ip)).collect();
    addresses.push(address("Hostname", &shared.node.facts.name));
    NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(resources(shared, true)),
        capacity: Some(resources(shared, false)),
        conditions: Some(vec![
            pressure(
                "MemoryPressure",
                ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
                ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
            ),
            pressure(
                "DiskPressure",
                ["KubeletHasDiskPressure", "kubelet has disk pressure"],
                ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
            ),
            pressure(
                "PIDPressure",
                ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
                ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
            ),
            ready,
        ]),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: KUBELET_PORT }) }),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(false) }),
        images: Some(images(shared).await),
        runtime_handlers: Some(runtime_handlers()),
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
            swap: Some(NodeSwapStatus { capacity: Some(machine.swap_bytes) }),
            system_uuid: machine.system_uuid.clone(),
        }),
        ..before.cloned().unwrap_or_default()
    }
}

/// The handlers that a RuntimeClass may name: the default one, and its usual name.
fn runtime_handlers() -> Vec<NodeRuntimeHandler> {
    let features = NodeRuntimeHandlerFeatures { recursive_read_only_mounts: Some(false), user_namespaces: Some(false) };
    ["", "runc"].map(|name| NodeRuntimeHandler { features: Some(features.clone()), name: Some(name.to_owned()) }).into()
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
                status: Some(status(shared, None, runtime_ready(shared).await).await),
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
    node.status = Some(status(shared, node.status.as_ref(), runtime_ready(shared).await).await);
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

/// What of the status is told at once when it changes.
async fn changing(shared: &Shared) -> (bool, [bool; 3], Vec<ContainerImage>) {
    let pressures = ["MemoryPressure", "DiskPressure", "PIDPressure"].map(|kind| shared.pressure.holds(kind));
    (runtime_ready(shared).await.is_ok(), pressures, images(shared).await)
}

/// Registers the node, then keeps lease and status fresh for as long as it is polled.
pub(crate) async fn keep(shared: Arc<Shared>) {
    while let Err(error) = register(&shared).await {
        tracing::warn!(node = %shared.node.facts.name, %error, "node not registered");
        tokio::time::sleep(RETRY).await;
    }
    tracing::info!(node = %shared.node.facts.name, "node registered");
    let mut reported = tokio::time::Instant::now();
    let mut told = changing(&shared).await;
    loop {
        let renewed = renew_lease(&shared).await;
        if let Err(error) = &renewed {
            tracing::warn!(%error, "lease not renewed");
        }
        tokio::time::sleep(if renewed.is_ok() { RENEW_EVERY } else { RETRY }).await;
        let now = changing(&shared).await;
        if now != told || reported.elapsed() >= REPORT_EVERY {
            match report(&shared).await {
                Ok(()) => (reported, told) = (tokio::time::Instant::now(), now),
                // Somebody deleted the node: it is made again.
                Err(error) if error.is_not_found() => drop(register(&shared).await),
                Err(error) => tracing::warn!(%error, "node status not written"),
            }
        }
    }
}
