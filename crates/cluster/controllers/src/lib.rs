//! One module a controller: pure decisions.
//!
//! Each takes a view (what is wanted, what is there, what time it is) and says what to do; `controller-manager` feeds
//! them from caches and applies what they say. Invariants: no clock, no randomness, no I/O; the same view gives the
//! same decision; a second pass over the outcome of the first does nothing.

pub mod cron_job;
pub mod deployment;
pub mod endpoints;
pub mod garbage;
pub mod job;
pub mod load_balancer;
pub mod namespace;
pub mod node;
pub mod owners;
pub mod pods;
pub mod replicaset;
pub mod selection;
