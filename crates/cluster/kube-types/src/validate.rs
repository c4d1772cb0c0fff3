//! Validation.
use crate::field::FieldError;
use crate::lifecycle::Subresource;
use crate::registry::Resource;
use serde_json::Value;

impl Resource {
    /// Everything wrong with a defaulted new object; empty when it may be stored. metadata.name must be there by now (see [`crate::names::generate`]).
    pub fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let _ = object;
        todo!()
    }

    /// Everything wrong with replacing `old` by `new`.
    pub fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        subresource: Subresource<'_>,
    ) -> Vec<FieldError> {
        let _ = (new, old, subresource);
        todo!()
    }
}
