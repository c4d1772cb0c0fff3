//! Events of a runtime that has none: its lists, compared once a second.
//!
//! Used by `RemoteCri` alone, as a kubelet does with such runtimes. Invariant: an event names its pod, so the
//! node agent looks at that pod and no other; nothing runs once the stream is dropped.

use std::{collections::BTreeMap, collections::HashMap, time::Duration};

use futures_util::{StreamExt, stream};

use crate::{Cri, EventStream, RemoteCri, Result, v1};

const PERIOD: Duration = Duration::from_secs(1);
const POD_UID: &str = "io.kubernetes.pod.uid";

/// State and pod of one container or sandbox.
type Seen = BTreeMap<String, (i32, String)>;

async fn look(cri: &RemoteCri) -> Result<Seen> {
    let uid = |labels: &HashMap<String, String>| labels.get(POD_UID).cloned().unwrap_or_default();
    let containers = cri.list_containers(None).await?;
    let sandboxes = cri.list_pod_sandbox(None).await?;
    let containers = containers.into_iter().map(|one| (one.id, (one.state, uid(&one.labels))));
    // Sandbox states are numbered apart from those of containers.
    let sandboxes = sandboxes.into_iter().map(|one| (one.id, (100 + one.state, uid(&one.labels))));
    Ok(containers.chain(sandboxes).collect())
}

/// What became different, in the order of the identifiers.
fn changes(before: &Seen, after: &Seen) -> Vec<v1::ContainerEventResponse> {
    let kind = |state: i32| match state {
        0 | 100 => v1::ContainerEventType::ContainerCreatedEvent,
        1 => v1::ContainerEventType::ContainerStartedEvent,
        _ => v1::ContainerEventType::ContainerStoppedEvent,
    };
    let event = |id: &str, uid: &str, kind: v1::ContainerEventType| {
        let metadata = v1::PodSandboxMetadata { uid: uid.to_owned(), ..Default::default() };
        v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            pod_sandbox_status: Some(v1::PodSandboxStatus { metadata: Some(metadata), ..Default::default() }),
            ..Default::default()
        }
    };
    let changed = after
        .iter()
        .filter(|(id, (state, _))| before.get(*id).is_none_or(|(old, _)| old != state))
        .map(|(id, (state, uid))| event(id, uid, kind(*state)));
    let gone = before
        .iter()
        .filter(|(id, _)| !after.contains_key(*id))
        .map(|(id, (_, uid))| event(id, uid, v1::ContainerEventType::ContainerDeletedEvent));
    changed.chain(gone).collect()
}

pub(crate) fn events(cri: RemoteCri) -> EventStream {
    let start: (RemoteCri, Option<Seen>) = (cri, None);
    let lists = stream::unfold(Some(start), |state| async move {
        let (cri, before) = state?;
        if before.is_some() {
            tokio::time::sleep(PERIOD).await;
        }
        match look(&cri).await {
            Ok(after) => {
                let events = before.as_ref().map(|before| changes(before, &after)).unwrap_or_default();
                Some((events.into_iter().map(Ok).collect::<Vec<_>>(), Some((cri, Some(after)))))
            }
            // The reader subscribes anew, and looks at everything.
            Err(error) => Some((vec![Err(error)], None)),
        }
    });
    lists.flat_map(stream::iter).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lists_differ_by_what_was_made_what_changed_and_what_is_gone() {
        let seen = |list: &[(&str, i32)]| -> Seen {
            list.iter().map(|(id, state)| ((*id).to_owned(), (*state, format!("pod-{id}")))).collect()
        };
        let before = seen(&[("a", 1), ("b", 1), ("s", 100)]);
        let after = seen(&[("a", 2), ("c", 0), ("s", 100)]);
        let told: Vec<(String, i32)> =
            changes(&before, &after).into_iter().map(|one| (one.container_id, one.container_event_type)).collect();
        let kind = |kind: v1::ContainerEventType| i32::from(kind);
        assert_eq!(
            told,
            [
                ("a".to_owned(), kind(v1::ContainerEventType::ContainerStoppedEvent)),
                ("c".to_owned(), kind(v1::ContainerEventType::ContainerCreatedEvent)),
                ("b".to_owned(), kind(v1::ContainerEventType::ContainerDeletedEvent)),
            ]
        );
        assert!(changes(&after, &after).is_empty());
    }
}
