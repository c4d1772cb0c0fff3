//! Events about a pod, in Kubernetes' words.
//!
//! Made by actions, outcomes and passes; recorded by the node agent. Invariant: reason and message are what
//! people grep for. Counting and rate limits are the recorder's.

/// `type` of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Expected.
    Normal,
    /// Worth a look.
    Warning,
}

impl EventKind {
    /// The wire word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEvent {
    /// Normal or Warning.
    pub kind: EventKind,
    /// For example `Pulled`.
    pub reason: &'static str,
    /// One line.
    pub message: String,
    /// Container name; becomes `involvedObject.fieldPath`.
    pub container: Option<String>,
}

impl PodEvent {
    /// An event about the whole pod.
    pub fn of_pod(kind: EventKind, reason: &'static str, message: String) -> Self {
        Self { kind, reason, message, container: None }
    }

    /// An event about one container.
    pub fn of_container(kind: EventKind, reason: &'static str, message: String, container: &str) -> Self {
        Self { kind, reason, message, container: Some(container.to_owned()) }
    }
}
