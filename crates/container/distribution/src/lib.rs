//! How images travel: pull and push (`client`), our own registry (`registry`), and archives (`archive`).
//!
//! Called by the engine, the node agent's image service (through the engine) and `gantry registry`. Whatever arrives is
//! verified by size and digest before it becomes visible, and bounded before it is read. Nothing here decides *whether*
//! to pull: policies are the caller's.

pub mod archive;
pub mod client;
mod error;
pub mod registry;

pub use error::{Error, Result};
