//! All that one pass over a pod may know.
//!
//! Assembled by the node agent from its informer cache (the pod), from CRI (sandboxes, containers) and from
//! the pod's own [`Memory`]; read by `decide`. Invariant: a view is one moment; it is never amended.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::Memory;

/// Whether the API server still has the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It does; a deletion, if any, is in the object's metadata.
    Known,
    /// The object is gone (forced deletion): what is left here must go at once.
    Gone,
}

/// What the status of every pod says about its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Name of the node.
    pub name: String,
    /// Its addresses, the primary one first.
    pub host_ips: Vec<String>,
    /// The scheme of container ids in statuses, for example `gantry`.
    pub runtime_scheme: String,
}

/// One sandbox as CRI shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedSandbox {
    /// CRI id.
    pub id: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// Usable.
    pub ready: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Pod addresses; empty with host network.
    pub ips: Vec<String>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, never started.
    Created,
    /// Has a process.
    Running {
        /// Start of the process.
        started_at: Timestamp,
    },
    /// Had a process.
    Exited {
        /// Start of the process, if it ever started.
        started_at: Option<Timestamp>,
        /// Its end.
        finished_at: Timestamp,
        /// Exit code; 128 + signal when killed.
        code: i32,
        /// `OOMKilled`, or empty for the usual `Completed`/`Error`.
        reason: String,
        /// Termination message.
        message: String,
    },
}

/// One container as CRI shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedContainer {
    /// CRI id.
    pub id: String,
    /// Name in the pod spec.
    pub name: String,
    /// The restart count it was made with.
    pub attempt: u32,
    /// Sandbox that it lives in.
    pub sandbox_id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Where it is.
    pub state: ContainerState,
    /// Image as asked for.
    pub image: String,
    /// Image as resolved.
    pub image_ref: String,
}

impl ObservedContainer {
    /// Whether a process is there.
    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }
}

/// Input of `decide`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The object, its last reported status included.
    pub pod: &'a Pod,
    /// Whether the API server still has it.
    pub presence: Presence,
    /// Sandboxes of this pod.
    pub sandboxes: &'a [ObservedSandbox],
    /// Containers of this pod, in any sandbox.
    pub containers: &'a [ObservedContainer],
    /// What earlier passes left.
    pub memory: &'a Memory,
    /// The node.
    pub node: &'a NodeFacts,
    /// What the node has for the pod; unknown means that nothing is in the way of a resize.
    pub room: Option<crate::Room>,
    /// The time of this pass.
    pub now: Timestamp,
}
