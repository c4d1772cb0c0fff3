//! metav1.Status, worded as Kubernetes words it.
use crate::field::FieldError;
use crate::managed::Conflicts;
use crate::registry::Resource;
use serde::Serialize;

/// A failed request's body; its `code` is the HTTP status.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub kind: &'static str,
    pub api_version: &'static str,
    pub metadata: Empty,
    pub status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    pub code: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Empty {}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Status {
    fn failure(code: u16, reason: &'static str, message: String, details: Option<Details>) -> Self {
        Self {
            kind: "Status",
            api_version: "v1",
            metadata: Empty {},
            status: "Failure",
            message,
            reason,
            details,
            code,
        }
    }

    /// `{"status":"Success"}`, the answer to a delete; `details` name the object.
    pub fn success(resource: &Resource, name: &str, uid: &str) -> Self {
        let details = Details { uid: uid.to_owned(), ..named(resource, name) };
        Self { status: "Success", ..Self::failure(200, "", String::new(), Some(details)) }
    }
}

fn named(resource: &Resource, name: &str) -> Details {
    Details {
        name: name.to_owned(),
        group: resource.group.to_string(),
        kind: resource.plural.to_string(),
        ..Details::default()
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

pub fn not_found(resource: &Resource, name: &str) -> Status {
    Status::failure(
        404,
        "NotFound",
        format!("{} {name:?} not found", resource.group_resource()),
        Some(named(resource, name)),
    )
}

/// No such path at all (`the server could not find the requested resource`).
pub fn path_not_found() -> Status {
    Status::failure(
        404,
        "NotFound",
        "the server could not find the requested resource".into(),
        Some(Details::default()),
    )
}

pub fn already_exists(resource: &Resource, name: &str) -> Status {
    Status::failure(
        409,
        "AlreadyExists",
        format!("{} {name:?} already exists", resource.group_resource()),
        Some(named(resource, name)),
    )
}

pub fn conflict(resource: &Resource, name: &str, detail: &str) -> Status {
    let message = format!("Operation cannot be fulfilled on {} {name:?}: {detail}", resource.group_resource());
    Status::failure(409, "Conflict", message, Some(named(resource, name)))
}

/// A resourceVersion precondition that no longer holds.
pub fn modified(resource: &Resource, name: &str) -> Status {
    conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )
}

/// A failed server-side apply.
pub fn apply_conflict(conflicts: &Conflicts) -> Status {
    let causes = conflicts
        .0
        .iter()
        .map(|c| Cause { reason: "FieldManagerConflict".into(), message: c.message.clone(), field: c.field.clone() })
        .collect();
    Status::failure(409, "Conflict", conflicts.to_string(), Some(Details { causes, ..Details::default() }))
}

/// `Deployment.apps "web" is invalid: spec.x: …`, or `[a, b]` for several errors.
pub fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Status {
    let kind = if resource.group.is_empty() {
        resource.kind.to_string()
    } else {
        format!("{}.{}", resource.kind, resource.group)
    };
    let causes = errors
        .iter()
        .map(|e| Cause { reason: e.reason.as_str().into(), message: e.body(), field: e.path.clone() })
        .collect();
    let details = Details {
        name: name.to_owned(),
        group: resource.group.to_string(),
        kind: resource.kind.to_string(),
        causes,
        ..Details::default()
    };
    let message = match errors {
        [] => format!("{kind} {name:?} is invalid"),
        errors => format!("{kind} {name:?} is invalid: {}", aggregate(errors)),
    };
    Status::failure(422, "Invalid", message, Some(details))
}

/// One error as it is; several distinct ones in brackets.
fn aggregate(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for text in errors.iter().map(ToString::to_string) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if let [only] = texts.as_slice() { only.clone() } else { format!("[{}]", texts.join(", ")) }
}

/// 403; `detail` is what follows the colon.
pub fn forbidden(resource: &Resource, name: &str, detail: &str) -> Status {
    let what = resource.group_resource();
    let message = match name {
        "" => format!("{what} is forbidden: {detail}"),
        name => format!("{what} {name:?} is forbidden: {detail}"),
    };
    Status::failure(403, "Forbidden", message, Some(named(resource, name)))
}

/// 403 on a path that is no resource.
pub fn forbidden_path(user: &str, verb: &str, path: &str) -> Status {
    let message = format!("forbidden: User {user:?} cannot {verb} path {path:?}");
    Status::failure(403, "Forbidden", message, Some(Details::default()))
}

pub fn unauthorized() -> Status {
    Status::failure(401, "Unauthorized", "Unauthorized".into(), None)
}

pub fn bad_request(message: impl Into<String>) -> Status {
    Status::failure(400, "BadRequest", message.into(), None)
}

/// 410 with reason Gone: a continue token that was compacted away.
pub fn gone(message: impl Into<String>) -> Status {
    Status::failure(410, "Gone", message.into(), None)
}

/// 410 with reason Expired: a resourceVersion that is too old to list or watch from.
pub fn expired(message: impl Into<String>) -> Status {
    Status::failure(410, "Expired", message.into(), None)
}

pub fn method_not_supported(resource: &Resource, verb: &str) -> Status {
    let message = format!("{verb} is not supported on resources of kind {:?}", resource.group_resource());
    Status::failure(405, "MethodNotAllowed", message, Some(Details { name: String::new(), ..named(resource, "") }))
}

pub fn method_not_allowed() -> Status {
    Status::failure(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource".into(),
        Some(Details::default()),
    )
}

pub fn unsupported_media_type(accepted: &[&str]) -> Status {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    );
    Status::failure(415, "UnsupportedMediaType", message, None)
}

pub fn not_acceptable(accepted: &[&str]) -> Status {
    let message = format!("only the following media types are accepted: {}", accepted.join(", "));
    Status::failure(406, "NotAcceptable", message, None)
}

pub fn too_large(message: impl Into<String>) -> Status {
    Status::failure(413, "RequestEntityTooLarge", message.into(), None)
}

pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Status {
    Status::failure(429, "TooManyRequests", message.into(), Some(Details { retry_after_seconds, ..Details::default() }))
}

pub fn internal(message: impl std::fmt::Display) -> Status {
    let text = message.to_string();
    let causes = vec![Cause { reason: String::new(), message: text.clone(), field: String::new() }];
    Status::failure(
        500,
        "InternalError",
        format!("Internal error occurred: {text}"),
        Some(Details { causes, ..Details::default() }),
    )
}

pub fn service_unavailable(message: impl Into<String>) -> Status {
    Status::failure(503, "ServiceUnavailable", message.into(), None)
}

pub fn timeout(message: impl std::fmt::Display, retry_after_seconds: u32) -> Status {
    Status::failure(
        504,
        "Timeout",
        format!("Timeout: {message}"),
        Some(Details { retry_after_seconds, ..Details::default() }),
    )
}
