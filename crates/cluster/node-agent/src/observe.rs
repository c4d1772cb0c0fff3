//! Reads a pod's reality from CRI.
//!
//! Called before every pass. Invariant: nothing is remembered between two calls, so a restart of the agent
//! sees the same as before; the termination message is read from the file that the container was given.

use std::path::Path;

use cri::{Cri, v1};
use jiff::Timestamp;
use pod_plan::{ContainerState, ObservedContainer, ObservedSandbox};

use crate::{error::Result, labels, layout::PodPaths};

/// Kubernetes' limit on a termination message.
const MESSAGE_LIMIT: u64 = 4096;

#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) sandboxes: Vec<ObservedSandbox>,
    pub(crate) containers: Vec<ObservedContainer>,
}

fn selector(uid: &str) -> std::collections::HashMap<String, String> {
    [(labels::POD_UID.to_owned(), uid.to_owned())].into()
}

pub(crate) fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(crate) async fn observe(cri: &dyn Cri, uid: &str, paths: &PodPaths) -> Result<Observed> {
    let mut observed = Observed::default();
    let filter = v1::PodSandboxFilter { label_selector: selector(uid), ..Default::default() };
    for sandbox in cri.list_pod_sandbox(Some(filter)).await? {
        match cri.pod_sandbox_status(&sandbox.id).await {
            Ok(status) => observed.sandboxes.push(self::sandbox(status)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let filter = v1::ContainerFilter { label_selector: selector(uid), ..Default::default() };
    for listed in cri.list_containers(Some(filter)).await? {
        match cri.container_status(&listed.id).await {
            Ok(status) => observed.containers.push(container(status, listed.pod_sandbox_id, paths)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(observed)
}

fn sandbox(status: v1::PodSandboxStatus) -> ObservedSandbox {
    let network = status.network.unwrap_or_default();
    let ips = std::iter::once(network.ip)
        .chain(network.additional_ips.into_iter().map(|one| one.ip))
        .filter(|ip| !ip.is_empty())
        .collect();
    ObservedSandbox {
        ready: status.state == i32::from(v1::PodSandboxState::SandboxReady),
        attempt: status.metadata.map_or(0, |metadata| metadata.attempt),
        created_at: time(status.created_at),
        id: status.id,
        ips,
    }
}

fn container(status: v1::ContainerStatus, sandbox_id: String, paths: &PodPaths) -> ObservedContainer {
    let attempt = status.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
    let name = status.labels.get(labels::CONTAINER_NAME).cloned();
    let name = name.or_else(|| status.metadata.as_ref().map(|metadata| metadata.name.clone())).unwrap_or_default();
    let started_at = (status.started_at > 0).then(|| time(status.started_at));
    let state = match v1::ContainerState::try_from(status.state) {
        Ok(v1::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(v1::ContainerState::ContainerRunning) => {
            ContainerState::Running { started_at: started_at.unwrap_or_else(|| time(status.created_at)) }
        }
        Ok(v1::ContainerState::ContainerExited | v1::ContainerState::ContainerUnknown) | Err(_) => {
            ContainerState::Exited {
                started_at,
                finished_at: time(status.finished_at),
                code: status.exit_code,
                reason: status.reason.clone(),
                message: termination_message(&status, &name, attempt, paths),
            }
        }
    };
    ObservedContainer {
        state,
        attempt,
        name,
        sandbox_id,
        created_at: time(status.created_at),
        image: status.image.map(|spec| spec.image).unwrap_or_default(),
        image_ref: status.image_ref,
        id: status.id,
    }
}

fn termination_message(status: &v1::ContainerStatus, name: &str, attempt: u32, paths: &PodPaths) -> String {
    let written = read_start(&paths.termination_log(name, attempt));
    let falls_back =
        status.annotations.get(labels::TERMINATION_POLICY).is_some_and(|policy| policy == "FallbackToLogsOnError");
    if written.is_empty() && falls_back && status.exit_code != 0 {
        let log = paths.logs.join(PodPaths::log_file(name, attempt));
        return crate::logs::last_lines(&log, 80, 2048);
    }
    if written.is_empty() { status.message.clone() } else { written }
}

fn read_start(path: &Path) -> String {
    use std::io::Read;
    // The container could have put a FIFO or device there; only a regular file is read.
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return String::new();
    };
    if !metadata.is_file() || metadata.len() == 0 {
        return String::new();
    }
    let mut text = Vec::new();
    match std::fs::File::open(path).map(|file| file.take(MESSAGE_LIMIT).read_to_end(&mut text)) {
        Ok(Ok(_)) => String::from_utf8_lossy(&text).into_owned(),
        Ok(Err(_)) | Err(_) => String::new(),
    }
}
