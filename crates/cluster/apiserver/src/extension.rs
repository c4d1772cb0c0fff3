//! How the API grows: custom resources, webhooks, admission policies and aggregated servers.
//!
//! `definitions` follows CustomResourceDefinitions and says what is served; `convert` moves objects between the stored and the
//! served version, `rules` runs the CEL rules of schemas. `admit` asks webhooks (`hooks`) and policies (`policies`, `mutating`) about a
//! write (`attempt`). `aggregation` passes on what another server answers for. The handlers ask this module at the few places where a custom resource differs.

pub(crate) mod admit;
pub(crate) mod aggregation;
mod attempt;
pub(crate) mod convert;
pub(crate) mod definitions;
mod expressions;
mod hooks;
mod mutating;
mod outbound;
mod policies;
pub(crate) mod rules;
pub(crate) mod typecheck;
