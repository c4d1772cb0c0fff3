//! Teardowns that go on after their answer was given.
//!
//! Stops and removals answer as soon as the intent is on disk. What such a container held (a port, an address, an endpoint of a
//! network) is on its way back, so whoever finds it taken waits for the teardowns under way before it believes that.

use std::time::Duration;

use tokio::sync::watch;

use crate::error::Result;

/// A teardown that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Cleanups(watch::Sender<usize>);

/// One teardown; over when dropped.
#[derive(Debug)]
pub(crate) struct Cleaning(watch::Sender<usize>);

impl Drop for Cleaning {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Cleanups {
    pub(crate) fn begin(&self) -> Cleaning {
        self.0.send_modify(|count| *count += 1);
        Cleaning(self.0.clone())
    }

    /// Tries; when that fails while teardowns are under way, waits for them and tries once more.
    pub(crate) async fn or_after<T, F: Future<Output = Result<T>>>(&self, attempt: impl Fn() -> F) -> Result<T> {
        let outcome = attempt().await;
        if outcome.is_ok() || *self.0.borrow() == 0 {
            return outcome;
        }
        let mut pending = self.0.subscribe();
        // Late is no reason to give up: the second attempt says what is wrong.
        let _ = tokio::time::timeout(PATIENCE, pending.wait_for(|count| *count == 0)).await;
        attempt().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn what_is_taken_is_asked_for_again_once_the_teardowns_are_over() {
        let (cleanups, attempts) = (Cleanups::default(), AtomicUsize::new(0));
        let attempt = || async {
            if attempts.fetch_add(1, Ordering::Relaxed) == 0 { Err(Error::Conflict("taken".into())) } else { Ok(()) }
        };
        assert!(cleanups.or_after(attempt).await.is_err(), "nothing is under way: taken is taken");
        attempts.store(0, Ordering::Relaxed);
        let cleaning = cleanups.begin();
        let (asked, ()) = tokio::join!(cleanups.or_after(attempt), async {
            tokio::task::yield_now().await;
            drop(cleaning);
        });
        assert!(asked.is_ok());
    }
}
