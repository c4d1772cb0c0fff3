//! The errors of CRI, and the one place where they become gRPC codes and are read back from them.
//!
//! The server uses [`From<CriError> for Status`], the client the way back; the node agent branches on
//! the variants (a missing container is success when it wants it gone). Invariant: the round trip through
//! gRPC keeps variant and message. It deliberately carries text, not sources: a peer sees only text.

use tonic::{Code, Status};

/// Why a CRI call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CriError {
    /// No such sandbox, container or image.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken.
    #[error("{0}")]
    AlreadyExists(String),
    /// The request makes no sense; asking again will not help.
    #[error("{0}")]
    InvalidArgument(String),
    /// The object is not in the state that the call needs.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The deadline of the call passed (for example an exec's timeout).
    #[error("{0}")]
    DeadlineExceeded(String),
    /// The runtime cannot be reached.
    #[error("{0}")]
    Unavailable(String),
    /// The runtime does not offer this call.
    #[error("{0}")]
    Unimplemented(String),
    /// Anything else.
    #[error("{0}")]
    Internal(String),
}

impl CriError {
    /// Whether the object simply is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

impl From<CriError> for Status {
    fn from(error: CriError) -> Self {
        let code = match &error {
            CriError::NotFound(_) => Code::NotFound,
            CriError::AlreadyExists(_) => Code::AlreadyExists,
            CriError::InvalidArgument(_) => Code::InvalidArgument,
            CriError::FailedPrecondition(_) => Code::FailedPrecondition,
            CriError::DeadlineExceeded(_) => Code::DeadlineExceeded,
            CriError::Unavailable(_) => Code::Unavailable,
            CriError::Unimplemented(_) => Code::Unimplemented,
            CriError::Internal(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<Status> for CriError {
    fn from(status: Status) -> Self {
        let text = status.message().to_owned();
        match status.code() {
            Code::NotFound => Self::NotFound(text),
            Code::AlreadyExists => Self::AlreadyExists(text),
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidArgument(text),
            Code::FailedPrecondition => Self::FailedPrecondition(text),
            Code::DeadlineExceeded => Self::DeadlineExceeded(text),
            Code::Unavailable => Self::Unavailable(text),
            Code::Unimplemented => Self::Unimplemented(text),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::ResourceExhausted
            | Code::PermissionDenied
            | Code::Aborted
            | Code::Internal
            | Code::DataLoss
            | Code::Unauthenticated => Self::Internal(text),
        }
    }
}
