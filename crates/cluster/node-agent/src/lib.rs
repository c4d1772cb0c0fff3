//! The node agent: pods → containers on this node.
//!
//! The binary starts it beside an engine (or any CRI runtime) and an API server. It watches the pods bound to
//! its node, gives each a worker that runs `pod_plan::decide` and applies the answer through [`cri`], and
//! reports back. Invariants: it keeps nothing that cannot be read back from CRI and the API, so it may be
//! killed at any time; and it decides nothing itself, which is `pod_plan`'s business.
//!
//! Deliberately not here: persistent volumes and CSI, image garbage collection, eviction by node pressure.

mod act;
mod agent;
mod container_config;
mod dial;
mod drain;
mod env;
mod error;
mod fields;
mod gateway;
mod hooks;
mod hosts;
mod labels;
mod layout;
pub mod local_volumes;
mod logs;
mod machine;
mod node;
mod observe;
mod probes;
mod pull;
mod references;
mod resources;
mod sandbox_config;
mod security;
mod volumes;
mod worker;

pub use agent::{NodeAgent, NodeAgentConfig};
pub use drain::{Drain, DrainFor};
pub use error::AgentError;
pub use machine::{Machine, primary_address};
