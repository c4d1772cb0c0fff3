//! Why a container (or an exec) could not be made or started, in the wording that Docker clients parse.

use std::io;

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

    pub fn invalid(message: impl Into<String>) -> Self {
        Failure { kind: FailureKind::Invalid, message: message.into() }
    }

    pub fn kernel(step: impl std::fmt::Display, source: &io::Error) -> Self {
        Failure { kind: FailureKind::Kernel, message: format!("{step}: {}", plain(source)) }
    }
}

/// The kernel's words without the number that Rust appends: `no such file or directory`, as Go and runc print them.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// Names the step that an I/O error happened in.
pub(crate) trait Step<T> {
    fn step(self, name: impl std::fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, name: impl std::fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::kernel(name, &error.into()))
    }
}
