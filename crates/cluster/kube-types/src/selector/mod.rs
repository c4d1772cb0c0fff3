//! Label and field selectors: the query syntax, the typed form, and matching.
//!
//! Used by list and watch, by controllers and by services. Printing a parsed selector and parsing it again gives the same
//! selector.

mod field;
mod label;

pub use field::FieldSelector;
pub use label::{LabelSelector, Operator, Requirement};

/// The selector cannot be read; the text is the message of a BadRequest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct SelectorError(pub String);
