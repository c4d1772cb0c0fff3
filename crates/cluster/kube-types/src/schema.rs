//! Types of every field.
use std::sync::Arc;

/// Where a resource's field types are described.
#[derive(Clone, Debug)]
pub enum ResourceSchema {
    /// A type of the embedded schema, by its OpenAPI name (`io.k8s.api.apps.v1.Deployment`).
    Builtin(&'static str),
    /// From a CRD's structural schema; see [`Schema::from_structural`].
    Custom(Arc<Schema>),
    /// Nothing is known beyond apiVersion, kind and metadata; all else is kept as it is.
    Open,
}

/// A set of types that refer to each other.
#[derive(Debug, Default)]
pub struct Schema {}
