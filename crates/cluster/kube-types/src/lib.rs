//! Everything about Kubernetes resources that needs no I/O: which resources there are, their schema,
//! defaulting, validation, patches, field management, printing, and the words of the API's errors.
//!
//! Callers: the API server first of all; controllers, scheduler and node agent use [`meta`], [`selector`],
//! [`quantity`] and [`time`]. Invariant: every function here is pure. The clock and the seed of every
//! random name come in as parameters. It does not know about HTTP, storage or authorisation.

pub mod custom;
pub mod defaults;
pub mod field;
pub mod fields;
pub mod lifecycle;
pub mod managed;
pub mod meta;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod pod_security;
pub mod quantity;
pub mod registry;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strict;
pub mod table;
pub mod time;
pub mod usage;
pub mod validate;

pub use field::FieldError;
pub use lifecycle::Subresource;
pub use registry::Resource;
