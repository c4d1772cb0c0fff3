//! What a build tells while it runs; `docker-api` draws the classic text from it, other front ends their own.

/// Which of a step's streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    Stdout,
    Stderr,
}

/// One thing that happened, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildEvent {
    /// `Step 2/7 : RUN …`; `text` is the instruction as it stands after joining continued lines.
    Step { number: usize, total: usize, text: String },
    /// The step's result was in the cache.
    UsingCache,
    /// A RUN step's process was started under this container ID.
    RunningIn { container: String },
    /// The RUN step's container is gone again.
    Removed { container: String },
    /// What a step printed, as it came.
    Output { stream: OutputStream, bytes: Vec<u8> },
    /// The image ID (or, between steps, the cache key's digest) that a step ended with, 64 hexadecimal digits.
    Result { id: String },
    /// Something the user should know that stops nothing.
    Warning { text: String },
    /// A line of progress that a pull of a base image produced, as the Docker API words it (one JSON object).
    Progress { json: String },
    /// The image is made.
    Built { id: String },
    /// The image has this name now.
    Tagged { name: String },
}
