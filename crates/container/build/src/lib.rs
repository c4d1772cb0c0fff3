//! Dockerfile to image: parse → graph (pure) → execute, step by step, against one layer cache.
//!
//! `docker-api` calls [`Builder::build`] with a [`Client`] that has the contexts, `buildkit` with one that is a session;
//! the engine lends the two hands that this crate does not have: [`StepRunner`] (a process in a build root) and
//! [`ImageSource`] (an image by its name).
//! Invariants: nothing outside the build root or the context is read or written, whatever the Dockerfile or the
//! context hold; a killed build leaves no half-made layer in the cache (a record is written after its layer).
//! It does not speak HTTP and draws no progress: it emits [`BuildEvent`]s.

mod cache;
mod check;
mod chmod;
mod config;
mod context;
mod copy;
mod copy_plan;
mod copying;
pub mod dockerfile;
mod error;
mod events;
mod execute;
mod expand;
mod glob;
mod graph;
mod ignore;
mod layer;
mod mounts;
pub mod remote;
mod request;
mod run;
mod runner;
mod session;
mod space;
mod stage;
mod step;
mod stubs;

pub use cache::{Cache, CacheEntry};
pub use check::Check;
pub use error::BuildError;
pub use events::{BuildEvent, Events, OutputStream, StepId};
pub use execute::{Builder, Built, MountedResult, Pruned};
pub use graph::{BuildGraph, Stage, StageBase};
pub use ignore::{Ignore, filter_context, read_context_file, remove_context_file};
pub use request::BuildRequest;
pub use runner::{
    BoxFuture, Client, Context, Credentials, DirectoryClient, Guard, ImageSource, RunStep, StepLimits, StepMount,
    StepRunner, StepSource,
};
pub use space::{Space, TempSpace};
