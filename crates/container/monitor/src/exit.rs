//! The exit record of a container, and the teardown of what a container leaves behind.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;

/// How a container (or an exec) ended. `code` is what a shell would show: 128 + signal for a killed process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    pub code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    pub finished_at: jiff::Timestamp,
}

/// The exit of the container in `dir`, `None` while it runs (or was never made).
pub fn exit_status(_dir: &Path) -> Result<Option<ExitStatus>, Error> {
    todo!()
}

/// Kill what is left in the cgroup, remove it, and remove the monitor's files. Goes on after a failure and collects every error. Idempotent.
pub fn delete(_dir: &Path, _cgroup: &str) -> Result<(), Vec<Error>> {
    todo!()
}
