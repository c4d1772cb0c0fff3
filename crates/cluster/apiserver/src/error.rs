//! The one error of this crate's handlers: a `Status` as Kubernetes words it. Lower errors are turned into one here.

use kube_types::status::{self, Status};
use store::{ReadError, StoreError};

/// A refused request. Boxed, because a `Status` is large and most requests succeed.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) Box<Status>);

pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        Self(Box::new(status))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::ValueSize { .. } => status::too_large("etcdserver: request is too large").into(),
            StoreError::KeySize { .. } => status::bad_request(error.to_string()).into(),
            StoreError::Closed => status::service_unavailable("the server is shutting down").into(),
            other => {
                tracing::error!(error = %other, "storage failed");
                status::internal(other).into()
            }
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Compacted(_) => status::expired(CONTINUE_EXPIRED).into(),
            ReadError::Future { requested, current } => too_large_version(requested, current),
            ReadError::Store(error) => error.into(),
        }
    }
}

const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start \
                                a new list without the continue parameter.";

/// A read that must be at least as new as a revision that this store has not reached; clients retry it.
pub(crate) fn too_large_version(requested: u64, current: u64) -> ApiError {
    let mut status = status::timeout(format!("Too large resource version: {requested}, current: {current}"), 1);
    if let Some(details) = &mut status.details {
        details.causes.push(status::Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        });
    }
    status.into()
}

impl From<kube_types::patch::PatchError> for ApiError {
    fn from(error: kube_types::patch::PatchError) -> Self {
        use kube_types::patch::PatchError;
        let text = error.to_string();
        match error {
            PatchError::Malformed(_) => status::bad_request(text).into(),
            PatchError::TooLarge(_) => status::too_large(text).into(),
            PatchError::Unprocessable(_) => {
                let mut status = status::bad_request(text);
                status.code = 422;
                status.reason = "Invalid";
                status.into()
            }
        }
    }
}

impl From<kube_types::managed::ApplyError> for ApiError {
    fn from(error: kube_types::managed::ApplyError) -> Self {
        use kube_types::managed::ApplyError;
        match error {
            ApplyError::Conflicts(conflicts) => status::apply_conflict(&conflicts).into(),
            ApplyError::Invalid(text) => status::bad_request(text).into(),
        }
    }
}

impl From<kube_types::strict::DecodeError> for ApiError {
    fn from(error: kube_types::strict::DecodeError) -> Self {
        status::bad_request(error.to_string()).into()
    }
}

impl From<crate::protobuf::ProtobufError> for ApiError {
    fn from(error: crate::protobuf::ProtobufError) -> Self {
        status::bad_request(error.to_string()).into()
    }
}
