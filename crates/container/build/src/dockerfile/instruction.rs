//! The instructions of the language as types. Variables in them are not expanded yet.

use super::lines::Heredoc;
use super::mount::Mount;

/// One instruction at its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub line: usize,
    /// The logical line, for progress, history and errors.
    pub text: String,
    pub instruction: Instruction,
}

/// A command in shell form or exec form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Shell(String),
    Exec(Vec<String>),
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub command: Command,
    pub heredocs: Vec<Heredoc>,
    /// `--network=default|none|host`.
    pub network: Option<String>,
    /// `--security=insecure`.
    pub insecure: bool,
    pub mounts: Vec<Mount>,
}

/// A source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    Path(String),
    /// A file whose content stands in the Dockerfile.
    Inline(Heredoc),
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// ADD, which also unpacks local archives.
    pub is_add: bool,
    pub from: Option<String>,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    pub exclude: Vec<String>,
    pub parents: bool,
    /// The layer does not depend on those below it.
    pub link: bool,
    /// `--checksum` of a file from the network.
    pub checksum: Option<String>,
    /// ADD from Git keeps the `.git` folder.
    pub keep_git_dir: bool,
    pub sources: Vec<CopySource>,
    pub destination: String,
}

impl Copy {
    /// The word that the instruction begins with.
    pub fn name(&self) -> &'static str {
        if self.is_add { "ADD" } else { "COPY" }
    }
}

/// HEALTHCHECK. Durations are nanoseconds, as the image configuration stores them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// `NONE`, `CMD …` or `CMD-SHELL …`, as the image configuration stores it.
    pub test: Vec<String>,
    pub interval_ns: i64,
    pub timeout_ns: i64,
    pub start_period_ns: i64,
    pub start_interval_ns: i64,
    pub retries: i64,
}

/// Every instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    From {
        image: String,
        platform: Option<String>,
        name: Option<String>,
    },
    Run(Run),
    Copy(Copy),
    Cmd(Command),
    Entrypoint(Command),
    Shell(Vec<String>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Arg(Vec<(String, Option<String>)>),
    Expose(Vec<String>),
    User(String),
    Workdir(String),
    Volume(Vec<String>),
    StopSignal(String),
    Healthcheck(Healthcheck),
    /// The instruction's text, run by the image that is built from this one.
    Onbuild(String),
    Maintainer(String),
}
