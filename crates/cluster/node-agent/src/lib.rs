//! The node agent: pods → containers on this node.
//!
//! The binary starts it beside an engine (or any CRI runtime) and an API server. It watches the pods bound to
//! its node, gives each a worker that runs `pod_plan::decide` and applies the answer through [`cri`], and
//! reports back. Invariants: it keeps nothing that cannot be read back from CRI and the API, so it may be
//! killed at any time; and it decides nothing itself, which is `pod_plan`'s business.
//!
//! Deliberately not here: CSI, devices, and everything that concerns more than this node.

mod act;
mod agent;
mod clean_up;
mod container_config;
mod dial;
mod drain;
mod env;
mod error;
mod fields;
mod gateway;
mod hooks;
mod hosts;
mod housekeeping;
mod kubelet;
mod labels;
mod layout;
pub mod local_volumes;
mod logs;
mod machine;
mod meter;
mod node;
mod observe;
mod pressure;
mod probes;
mod pull;
mod readings;
mod references;
mod resources;
mod rotate;
mod sandbox_config;
mod security;
mod static_pods;
mod volumes;
mod worker;

pub use agent::{NodeAgent, NodeAgentConfig};
pub use drain::{Drain, DrainFor};
pub use error::AgentError;
pub use kubelet::{KubeletServer, serve as serve_kubelet};
pub use machine::{Machine, primary_address};
