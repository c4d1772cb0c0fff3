//! The labels and annotations by which CRI objects are recognised.
//!
//! Written when a sandbox or container is made, read when it is observed. Invariant: they are kubelet's own,
//! so tools that know a kubelet's containers know these, and the agent finds everything again after a restart.

use cri::v1;

pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub(crate) const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub(crate) const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";

/// Which pod a CRI event is about; `None` when it does not say.
pub(crate) fn pod_of(event: &v1::ContainerEventResponse) -> Option<String> {
    let sandbox = event
        .pod_sandbox_status
        .as_ref()
        .and_then(|status| status.metadata.as_ref())
        .map(|metadata| metadata.uid.clone());
    let container = || event.containers_statuses.iter().find_map(|status| status.labels.get(POD_UID).cloned());
    sandbox.filter(|uid| !uid.is_empty()).or_else(container)
}
