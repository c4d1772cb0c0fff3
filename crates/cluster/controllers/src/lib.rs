//! One module a controller: pure decisions.
//!
//! Each takes a view (what is wanted, what is there, what time it is) and says what to do; `controller-manager` feeds
//! them from caches and applies what they say. Invariants: no clock, no randomness, no I/O; the same view gives the
//! same decision; a second pass over the outcome of the first does nothing.

pub mod autoscaler;
pub mod certificates;
pub mod cron_job;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod garbage;
pub mod job;
pub mod load_balancer;
pub mod mirroring;
pub mod namespace;
pub mod node;
pub mod owners;
pub mod pod_gc;
pub mod pods;
pub mod portion;
pub mod quota;
pub mod replicaset;
pub mod replication;
pub mod revisions;
pub mod role_aggregation;
pub mod selection;
pub mod statefulset;
pub mod storage;
