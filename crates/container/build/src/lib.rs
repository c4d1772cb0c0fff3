//! Dockerfile to image: parse → graph (pure) → execute, step by step, against one layer cache.
//!
//! `docker-api` calls [`Builder::build`] with an unpacked context; the engine lends the two hands that this
//! crate does not have: [`StepRunner`] (a process in a build root) and [`ImageSource`] (an image by its name).
//! Invariants: nothing outside the build root or the context is read or written, whatever the Dockerfile or the
//! context hold; a killed build leaves no half-made layer in the cache (a record is written after its layer).
//! It does not speak HTTP and draws no progress: it emits [`BuildEvent`]s.

mod cache;
mod config;
mod context;
mod copy;
pub mod dockerfile;
mod error;
mod events;
mod execute;
mod expand;
mod glob;
mod graph;
mod layer;
mod request;
mod runner;
mod stage;
mod step;

pub use cache::Cache;
pub use error::BuildError;
pub use events::{BuildEvent, OutputStream};
pub use execute::Builder;
pub use graph::{BuildGraph, Stage, StageBase};
pub use request::BuildRequest;
pub use runner::{ImageSource, RunStep, StepLimits, StepRunner};
