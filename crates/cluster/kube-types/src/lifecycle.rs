//! What the server does to an object before it is stored: drop what the client may not set, count generations.
//!
//! Called by the API server between decode and validate.

use crate::registry::Resource;
use serde_json::Value;

/// Which part of an object a request writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource<'a> {
    /// The object itself, everything but status.
    Main,
    /// `…/status`: only status (and metadata that the status writer may touch).
    Status,
    /// Any other: `scale`, `resize`, `ephemeralcontainers`, `approval`, `finalize`, …
    Named(&'a str),
}

impl<'a> Subresource<'a> {
    /// From the path segment; empty means the object itself.
    pub fn from_path(segment: &'a str) -> Self {
        match segment {
            "" => Self::Main,
            "status" => Self::Status,
            other => Self::Named(other),
        }
    }

    pub fn as_str(self) -> &'a str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Named(name) => name,
        }
    }
}

impl Resource {
    /// Drops what a client may not set on create (status), sets generation 1 where the kind counts generations.
    pub fn prepare_create(&self, object: &mut Value) {
        let _ = object;
        todo!()
    }

    /// Keeps the parts of `old` that a write to this subresource may not change, and bumps the generation when the spec changed.
    pub fn prepare_update(&self, old: &Value, new: &mut Value, subresource: Subresource<'_>) {
        let _ = (old, new, subresource);
        todo!()
    }
}
