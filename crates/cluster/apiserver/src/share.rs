//! Each client's share of the server: so many requests of one user are worked on at once, more of them wait their turn.
//!
//! Used by the listener. Invariant: whatever one user sends, there is room for the others; nobody waits longer than
//! [`PATIENCE`] before being told to try again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests of all users together.
const ALL: usize = 600;
/// Requests of one user.
const ONE: usize = 200;
const PATIENCE: Duration = Duration::from_secs(15);
/// Users that are remembered before those without requests are forgotten.
const REMEMBERED: usize = 1024;

pub(crate) struct Shares {
    all: Arc<Semaphore>,
    users: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// The place of one request; given back when it is dropped.
pub(crate) struct Place {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    _user: Arc<Semaphore>,
}

impl Shares {
    pub(crate) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(ALL)), users: Mutex::default() }
    }

    fn of(&self, user: &str) -> Arc<Semaphore> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = users.get(user).and_then(Weak::upgrade) {
            return known;
        }
        if users.len() >= REMEMBERED {
            users.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(ONE));
        users.insert(user.to_owned(), Arc::downgrade(&share));
        share
    }

    /// `None` when the user's other requests did not make room in time, or everything is taken.
    pub(crate) async fn enter(&self, user: &str) -> Option<Place> {
        let share = self.of(user);
        let own = tokio::time::timeout(PATIENCE, Arc::clone(&share).acquire_owned()).await.ok()?.ok()?;
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Place { _all: all, _own: own, _user: share })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_user_cannot_take_the_places_of_the_others() {
        let shares = Shares::new();
        let mut held = Vec::new();
        for _ in 0..ONE {
            held.push(shares.enter("greedy").await.expect("a place"));
        }
        assert!(shares.enter("greedy").await.is_none(), "after waiting in vain");
        assert!(shares.enter("modest").await.is_some());
        let (waited, ()) = tokio::join!(shares.enter("greedy"), async { held.truncate(1) });
        assert!(waited.is_some(), "a place that came free is handed on");
    }
}
