//! The Dockerfile language: text → typed instructions with their line numbers. Pure; expands nothing, runs nothing.

mod instruction;
mod lines;
mod mount;
mod parse;
mod words;

pub use instruction::{Command, Copy, CopySource, Healthcheck, Instruction, Run, Statement};
pub use lines::{Directives, Heredoc, MAX_BYTES};
pub use mount::{Mount, MountType, Sharing};
pub use parse::{parse, parse_onbuild};

/// A parsed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The name that errors show.
    pub name: String,
    pub directives: Directives,
    pub statements: Vec<Statement>,
}
