//! The life of a container, one module a topic. `create` → `start` → `finish` (its end) → `remove`; `adopt`
//! finds all of it again after a restart of the engine.

mod adopt;
mod archive;
mod attach;
mod changes;
mod create;
mod deaf;
mod files;
mod finish;
mod health;
mod launch;
mod links;
mod log_options;
mod logs;
mod network;
mod remove;
mod resources;
mod spec;
mod start;
mod stop;
mod view;

pub use archive::PathStat;
pub use changes::CommitOptions;
pub use logs::{LogEntry, LogOptions};
pub use remove::{Pruned, RemoveOptions};
pub use resources::{ContainerStats, Limits, Top};
pub use stop::WaitCondition;

pub(crate) use attach::direct as attach_streams;
pub(crate) use files::{extra_hosts, render_resolv_conf, resolve_user, resolve_user_of_running};
pub(crate) use launch::{overlay, start_error};
pub(crate) use network::wire as network_error;
pub use network::{shown_networks, wanted_networks};
pub(crate) use spec::exec_process;
