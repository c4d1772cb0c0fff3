//! Why a container (or an exec) could not be made or started, in the wording that Docker clients parse.

use serde::{Deserialize, Serialize};

/// The kind decides the exit code that Docker reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// `executable file not found in $PATH`, `no such file or directory`: exit code 127.
    NotFound,
    /// `permission denied`, `is a directory`, `exec format error`: exit code 126.
    NotExecutable,
    /// The spec asks for what is refused (a working directory outside of the root, a bad sysctl…).
    Invalid,
    /// Anything else: the kernel refused a step.
    Kernel,
}

/// One line in runc's wording, such as `exec: "nosuch": executable file not found in $PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

impl Failure {
    /// The exit code that Docker gives a container that failed so.
    pub fn exit_code(&self) -> i32 {
        match self.kind {
            FailureKind::NotFound => 127,
            FailureKind::NotExecutable => 126,
            FailureKind::Invalid | FailureKind::Kernel => 128,
        }
    }
}
