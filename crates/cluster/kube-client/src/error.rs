//! Why a call failed, with the questions that callers ask of a failure.
//!
//! Invariant: what the API server said stays intact in `Status`; everything else is about the way there.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered with a failure.
    #[error("{}", .0.message.as_deref().unwrap_or("the server gave no reason"))]
    Status(Box<Status>),
    #[error("{method} {uri}: {reason}")]
    Transport { method: String, uri: String, reason: String },
    #[error("cannot read the server's answer to {what}: {source}")]
    Decode {
        what: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot encode {what}: {source}")]
    Encode {
        what: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the answer is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("{0}")]
    InvalidRequest(String),
    #[error("kubeconfig {path}: {reason}")]
    Kubeconfig { path: String, reason: String },
}

impl ClientError {
    pub fn status(&self) -> Option<&Status> {
        match self {
            ClientError::Status(status) => Some(status),
            _ => None,
        }
    }

    fn has(&self, code: i32, reason: &str) -> bool {
        self.status().is_some_and(|s| match s.reason.as_deref() {
            Some(r) if !r.is_empty() => r == reason,
            _ => s.code == Some(code),
        })
    }

    pub fn is_not_found(&self) -> bool {
        self.has(404, "NotFound")
    }
    /// Someone else wrote in between (409, not "already exists").
    pub fn is_conflict(&self) -> bool {
        self.has(409, "Conflict")
    }
    pub fn is_already_exists(&self) -> bool {
        self.has(409, "AlreadyExists")
    }
    pub fn is_invalid(&self) -> bool {
        self.has(422, "Invalid")
    }
    pub fn is_forbidden(&self) -> bool {
        self.has(403, "Forbidden")
    }
    /// The revision to watch from is gone: list again.
    pub fn is_gone(&self) -> bool {
        self.has(410, "Expired") || self.has(410, "Gone")
    }
    /// A namespace that is being deleted takes no new objects.
    pub fn is_namespace_terminating(&self) -> bool {
        self.is_forbidden()
            && self
                .status()
                .and_then(|s| s.details.as_ref())
                .is_some_and(|d| d.causes.iter().flatten().any(|c| c.reason.as_deref() == Some("NamespaceTerminating")))
    }
}
