//! The parts that run for as long as the instance does: named, owned, and missed when they end.

use std::future::Future;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

/// All long-running parts. Dropping it ends them.
#[derive(Default)]
pub(crate) struct Tasks {
    running: JoinSet<anyhow::Error>,
}

impl Tasks {
    /// Starts a part that is not expected to end; its end is an error that stops the instance.
    pub(crate) fn spawn<E>(&mut self, name: &'static str, part: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<anyhow::Error> + Send + 'static,
    {
        self.running.spawn(async move {
            match part.await {
                Ok(()) => anyhow::anyhow!("the {name} ended"),
                Err(error) => error.into().context(format!("the {name} failed")),
            }
        });
    }

    /// The first part that ended, whenever that is.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match self.running.join_next().await {
            Some(Ok(error)) => error,
            Some(Err(panic)) => Err::<(), _>(panic).context("a part panicked").unwrap_err(),
            None => std::future::pending().await,
        }
    }

    pub(crate) async fn stop(mut self) {
        self.running.shutdown().await;
    }
}
