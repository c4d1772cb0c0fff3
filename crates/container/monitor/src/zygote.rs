//! The zygote: a small single-threaded process that forks monitors on request.

use crate::{Created, Error, Launch};

/// The engine's end of the zygote. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Zygote {}

impl Zygote {
    /// Call before any thread exists (before tokio).
    pub fn spawn() -> Result<Zygote, Error> {
        todo!()
    }

    /// Forks a monitor, which makes the container; returns when its init waits at the gate.
    pub async fn create(&self, _launch: &Launch) -> Result<Created, Error> {
        todo!()
    }
}

/// Call first in main(): runs the zygote role, and never returns, if this process was started as one.
pub fn run_role_if_asked() {
    todo!()
}
