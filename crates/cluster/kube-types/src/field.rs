//! One thing that is wrong with one field of an object, worded as Kubernetes words it.
//!
//! Made by [`crate::validate`] and by the API server's admission; turned into a `Status` by
//! [`crate::status::invalid`]. The text is parsed by people and by tools, so it follows
//! `k8s.io/apimachinery/pkg/util/validation/field` to the letter.

use serde_json::Value;
use std::fmt;

/// Why a field is refused. The name of each variant's wire form is [`Reason::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl Reason {
    /// The `reason` of a `StatusCause`.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NotFound => "FieldValueNotFound",
            Reason::Required => "FieldValueRequired",
            Reason::Duplicate => "FieldValueDuplicate",
            Reason::Invalid => "FieldValueInvalid",
            Reason::NotSupported => "FieldValueNotSupported",
            Reason::Forbidden => "FieldValueForbidden",
            Reason::TooLong => "FieldValueTooLong",
            Reason::TooMany => "FieldValueTooMany",
            Reason::Internal => "InternalError",
            Reason::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Reason::NotFound => "Not found",
            Reason::Required => "Required value",
            Reason::Duplicate => "Duplicate value",
            Reason::Invalid => "Invalid value",
            Reason::NotSupported => "Unsupported value",
            Reason::Forbidden => "Forbidden",
            Reason::TooLong => "Too long",
            Reason::TooMany => "Too many",
            Reason::Internal => "Internal error",
            Reason::TypeInvalid => "Invalid value",
        }
    }
}

/// One refused field. `Display` gives Kubernetes' own text, path first.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub reason: Reason,
    /// Path with dots and brackets: `spec.containers[0].image`.
    pub path: String,
    /// What the client sent; not shown for required, forbidden and too-long fields.
    pub value: Option<Value>,
    pub detail: String,
}

impl FieldError {
    fn new(reason: Reason, path: impl Into<String>, value: Option<Value>, detail: impl Into<String>) -> Self {
        Self { reason, path: path.into(), value, detail: detail.into() }
    }

    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Reason::Required, path, None, detail)
    }

    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(Reason::Invalid, path, Some(value.into()), detail)
    }

    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(Reason::Duplicate, path, Some(value.into()), "")
    }

    pub fn not_found(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(Reason::NotFound, path, Some(value.into()), "")
    }

    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Reason::Forbidden, path, None, detail)
    }

    /// `Unsupported value: "X": supported values: "A", "B"`. The values are listed sorted, as Kubernetes does.
    pub fn not_supported(path: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let mut quoted: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        quoted.sort();
        let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        Self::new(Reason::NotSupported, path, Some(value.into()), detail)
    }

    pub fn too_long(path: impl Into<String>, max: usize) -> Self {
        Self::new(Reason::TooLong, path, None, format!("may not be more than {max} bytes"))
    }

    pub fn too_many(path: impl Into<String>, actual: usize, max: usize) -> Self {
        Self::new(Reason::TooMany, path, Some(actual.into()), format!("must have at most {max} items"))
    }

    /// The text without the path: the `message` of a `StatusCause`.
    pub fn body(&self) -> String {
        let title = self.reason.title();
        let shown = match (self.reason, &self.value) {
            (Reason::Required | Reason::Forbidden | Reason::TooLong | Reason::Internal, _) | (_, None) => {
                title.to_owned()
            }
            (_, Some(value)) => format!("{title}: {}", show(value)),
        };
        if self.detail.is_empty() { shown } else { format!("{shown}: {}", self.detail) }
    }
}

/// Strings are quoted as Go's `%q` would, objects shown as JSON.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

impl std::error::Error for FieldError {}
