//! One pod on one node: what to do next, what to report, when to look again (pure).
//!
//! The node agent's worker assembles a [`View`], calls [`decide`], applies the [`Decision`] and feeds what
//! came of it back with [`Memory::record`]. Invariants, held whatever is observed: never two running
//! instances of one container, no restart that the restart policy forbids, init containers in order, and
//! a pod object is only finished off once nothing of it is left on the node.
//!
//! Deliberately not here: clocks, randomness, I/O, the building of container configs (mounts, env), and
//! everything that concerns more than one pod.

mod action;
mod backoff;
mod conditions;
mod container_status;
mod decide;
mod event;
pub mod evict;
mod known;
mod memory;
mod probe;
mod qos;
pub mod quantity;
mod resize;
mod start;
mod status;
mod stop;
mod view;

#[cfg(test)]
mod tests;

pub use action::{Action, ActionKey, Outcome, ProbeOutcome, StartFailure, StopReason};
pub use backoff::{Backoff, BackoffPolicy};
pub use decide::{Decision, decide};
pub use event::{EventKind, PodEvent};
pub use known::{ContainerKind, PodContainer, pod_containers};
pub use memory::{ImageState, Memory, VolumeState};
pub use probe::{ProbeKind, ProbeResult, ProbeState, probe_timeout};
pub use qos::qos_class;
pub use resize::Room;
pub use start::{ImageChoice, PullPolicy, choose_image, effective_pull_policy};
pub use view::{ContainerState, NodeFacts, ObservedContainer, ObservedSandbox, Presence, View};
