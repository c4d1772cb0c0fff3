//! Waiting longer after each failure.
//!
//! Used for container restarts, image pulls and everything that is retried. Invariant: the first retry
//! of a container is immediate, later ones wait 10 s doubling to 5 min, and ten quiet minutes forget the
//! past: the rules of Kubernetes' kubelet.

use jiff::{SignedDuration, Timestamp};

/// First wait, greatest wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// First wait.
    pub initial: SignedDuration,
    /// Greatest wait.
    pub max: SignedDuration,
}

impl BackoffPolicy {
    /// Restarts and image pulls.
    pub const RESTART: Self = Self { initial: SignedDuration::from_secs(10), max: SignedDuration::from_secs(300) };
    /// The node's own work: sandboxes, volumes.
    pub const NODE_WORK: Self = Self { initial: SignedDuration::from_secs(1), max: SignedDuration::from_secs(60) };

    /// The wait after `failures` failures (1-based).
    pub fn after(self, failures: u32) -> SignedDuration {
        let doublings = failures.saturating_sub(1).min(16);
        (self.initial * (1_i32 << doublings)).min(self.max)
    }
}

/// What is remembered about one thing that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// How often it failed since it was last forgotten.
    pub failures: u32,
    /// The last failure.
    pub since: Timestamp,
}

impl Backoff {
    /// One more failure at `at`; quiet for twice the greatest wait means a new count.
    pub fn next(previous: Option<Self>, at: Timestamp, policy: BackoffPolicy) -> Self {
        let failures = match previous {
            Some(before) if at.duration_since(before.since) <= policy.max * 2 => before.failures.saturating_add(1),
            Some(_) | None => 1,
        };
        Self { failures, since: at }
    }

    /// When a wait that began at `from` is over.
    pub fn until(self, from: Timestamp, policy: BackoffPolicy) -> Timestamp {
        from.saturating_add(policy.after(self.failures)).unwrap_or(Timestamp::MAX)
    }
}
