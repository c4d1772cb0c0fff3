//! What a build tells while it runs; `docker-api` draws the classic text from it, BuildKit's progress is made of it too.
//!
//! Stages run at the same time, so every event says which step it belongs to; who wants one text of it puts them in order.

use tokio::sync::mpsc;

use crate::BuildError;

/// Which of a step's streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    Stdout,
    Stderr,
}

/// A step's place: its stage in the file, and its place in that stage (0 is FROM). Triggers of ONBUILD come after FROM
/// and count on from [`StepId::TRIGGERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId {
    pub stage: usize,
    pub index: usize,
}

impl StepId {
    /// Index of the first trigger.
    pub const TRIGGERS: usize = 1 << 20;
    /// What concerns the whole build.
    pub const WHOLE: Self = Self { stage: usize::MAX, index: 0 };
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildEvent {
    /// `Step 2/7 : RUN …`; `text` is the instruction as it stands after joining continued lines.
    Step {
        number: usize,
        total: usize,
        text: String,
        /// `[stage 2/3] RUN …`, for steps that do something to the files; others are silent in BuildKit's display.
        vertex: Option<String>,
    },
    /// A base image's ONBUILD triggers are about to run.
    Triggers { count: usize },
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
    /// The step failed; the build ends with this, in BuildKit's words.
    Failed { message: String },
    /// All of the stage is done.
    StageDone,
    /// Something the user should know that stops nothing.
    Warning { text: String },
    /// A complaint of the build checks.
    Check(crate::Check),
    /// A line of progress that a pull of a base image produced, as the Docker API words it (one JSON object).
    Progress { json: String },
    /// The image is made.
    Built { id: String },
    /// The image has this name now.
    Tagged { name: String },
}

/// Where a step tells what happens to it.
#[derive(Debug, Clone)]
pub struct Events {
    sender: mpsc::Sender<(StepId, BuildEvent)>,
    step: StepId,
}

impl Events {
    /// A bounded channel: a slow reader slows the build down, and one that is gone ends it.
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<(StepId, BuildEvent)>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self { sender, step: StepId::WHOLE }, receiver)
    }

    /// The same channel, for another step.
    pub fn at(&self, step: StepId) -> Self {
        Self { sender: self.sender.clone(), step }
    }

    /// Tells, and learns that nobody listens any more.
    pub async fn tell(&self, event: BuildEvent) -> Result<(), BuildError> {
        self.sender.send((self.step, event)).await.map_err(|_| BuildError::Cancelled)
    }

    /// Tells what may be lost when the reader is behind: a progress line, never a result.
    pub fn hint(&self, event: BuildEvent) {
        let _ = self.sender.try_send((self.step, event));
    }
}
