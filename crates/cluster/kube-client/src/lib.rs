//! Client and informer cache over an exchangeable transport; the words that cluster parts share.
//!
//! Cluster parts meet each other only here: they read through [`informer::Cache`], write through [`Api`], and
//! reach a node through [`node::NodeGateway`]. Two transports exist: in-process (made by the binary's wiring) and
//! HTTPS (`Client::from_kubeconfig`).
//! Invariant: a cached object is never changed in place; it is replaced by what the server sent.

mod api;
mod body;
mod client;
mod error;
mod https;
pub mod informer;
mod kubeconfig;
pub mod node;
mod partial;
pub mod queue;
pub mod recorder;
mod subscription;
mod watch;

pub use api::{Api, DeleteOptions, ListOptions, Object, PatchKind, Propagation, WatchOptions};
pub use body::Body;
pub use client::{Client, Transport};
pub use error::ClientError;
pub use partial::Partial;
pub use watch::WatchEvent;
