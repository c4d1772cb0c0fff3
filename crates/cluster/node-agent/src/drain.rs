//! The pause between "this pod is leaving" and its SIGTERM.
//!
//! A stop first waits until no new connection can reach the pod. The binary hands in what knows that
//! (the service proxy); [`DrainFor`] is a fixed wait for wirings that have nothing better. Invariant:
//! the wait is bounded and lies within the pod's grace period, so it can delay a stop but never prevent it.

use std::time::Duration;

use async_trait::async_trait;

/// The longest wait, whatever a [`Drain`] would like.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Knows when a leaving pod gets no new connections any more.
#[async_trait]
pub trait Drain: Send + Sync + 'static {
    /// Completes when no service sends connections to these addresses.
    async fn drained(&self, pod_ips: &[String]);
}

/// Waits a fixed time.
#[derive(Debug, Clone, Copy)]
pub struct DrainFor(pub Duration);

#[async_trait]
impl Drain for DrainFor {
    async fn drained(&self, _pod_ips: &[String]) {
        tokio::time::sleep(self.0).await;
    }
}
