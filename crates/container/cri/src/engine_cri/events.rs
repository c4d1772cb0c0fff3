//! The engine's events as CRI's.
//!
//! Invariant: only containers of sandboxes; a reader that is too slow is told by the stream's end, and then
//! lists anew.

use engine::{Event, Subject};
use futures_util::{StreamExt, stream};
use tokio::sync::broadcast::error::RecvError;

use super::{EngineCri, containers, nanos, sandboxes};
use crate::{CriError, EventStream, v1};

impl EngineCri {
    pub(super) fn event_stream(&self) -> EventStream {
        let live = self.engine.subscribe(None).live;
        let state = (self.clone(), Some(live));
        stream::unfold(state, |(cri, mut live)| async move {
            let receiver = live.as_mut()?;
            loop {
                match receiver.recv().await {
                    Ok(event) => {
                        if let Some(event) = cri.event(&event) {
                            return Some((Ok(event), (cri, live)));
                        }
                    }
                    Err(RecvError::Closed) => return None,
                    Err(RecvError::Lagged(missed)) => {
                        let text = format!("{missed} container events were lost; list again");
                        return Some((Err(CriError::Unavailable(text)), (cri, None)));
                    }
                }
            }
        })
        .boxed()
    }

    fn event(&self, event: &Event) -> Option<v1::ContainerEventResponse> {
        let kind = match (event.subject, event.action.as_str()) {
            (Subject::Container | Subject::Sandbox, "create") => v1::ContainerEventType::ContainerCreatedEvent,
            (Subject::Container, "start") => v1::ContainerEventType::ContainerStartedEvent,
            (Subject::Container, "die") | (Subject::Sandbox, "stop") => v1::ContainerEventType::ContainerStoppedEvent,
            (Subject::Container | Subject::Sandbox, "destroy") => v1::ContainerEventType::ContainerDeletedEvent,
            _ => return None,
        };
        let container = self.pod_container(&event.id).ok();
        let sandbox_id = container
            .as_ref()
            .and_then(|one| one.record.pod.as_ref())
            .map_or(event.id.as_str(), |pod| pod.sandbox.as_str());
        let mut sandbox = self.engine.sandbox(sandbox_id).ok().map(sandboxes::status);
        // Of what is gone, the name that it was given here still says whose it was.
        if let (None, Some(uid)) = (&sandbox, event.attributes.get("name").and_then(|name| pod_of_name(name))) {
            let metadata = v1::PodSandboxMetadata { uid: uid.to_owned(), ..Default::default() };
            sandbox = Some(v1::PodSandboxStatus { metadata: Some(metadata), ..Default::default() });
        }
        sandbox.as_ref()?;
        Some(v1::ContainerEventResponse {
            container_id: event.id.clone(),
            container_event_type: kind.into(),
            created_at: nanos(event.time),
            pod_sandbox_status: sandbox,
            containers_statuses: container.map(containers::status).into_iter().collect(),
        })
    }
}

/// The pod's UID in `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`; no part of it has an underscore.
fn pod_of_name(name: &str) -> Option<&str> {
    let mut parts = name.trim_start_matches('/').strip_prefix("k8s_")?.split('_');
    parts.nth(3).filter(|uid| !uid.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_name_says_whose_it_was() {
        assert_eq!(pod_of_name("k8s_c_web_default_u-1_0"), Some("u-1"));
        assert_eq!(pod_of_name("web"), None);
        assert_eq!(pod_of_name("k8s_c_web"), None);
    }
}
