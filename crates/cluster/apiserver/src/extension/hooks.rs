//! Mutating and validating webhooks: whether one is to be called, the call, and what its answer means.
//!
//! Called by [`super::admit`]. Every call is bounded by the webhook's own timeout (30 seconds at most). A webhook that cannot
//! be asked refuses the write or is passed over, as its failure policy says.

use std::time::Duration;

use base64::Engine as _;
use kube_types::patch as patches;
use kube_types::status::{self, Status};
use kube_types::{FieldError, meta};
use serde_json::{Value, json};

use super::attempt::{Attempt, Seen};
use super::convert;
use super::expressions::{self, Inputs, Named, Scope};
use super::outbound::Destination;
use crate::error::{ApiError, ApiResult};
use crate::object::text;

/// One webhook of a configuration.
pub(crate) struct Hook {
    /// Configuration and name: what tells it from all others.
    pub(crate) id: String,
    name: String,
    hook: Value,
    conditions: Vec<Named>,
    pub(crate) reinvoke: bool,
}

/// The webhooks of a stored configuration.
pub(crate) fn read(configuration: &Value) -> Vec<Hook> {
    let hooks = configuration["webhooks"].as_array();
    let environment = expressions::environment(false);
    let mut ignored = Vec::new();
    hooks
        .into_iter()
        .flatten()
        .map(|hook| Hook {
            id: format!("{}/{}", meta::name(configuration), text(hook, "/name")),
            name: text(hook, "/name").to_owned(),
            hook: hook.clone(),
            conditions: expressions::named(&hook["matchConditions"], &environment, "", &mut ignored),
            reinvoke: hook["reinvocationPolicy"] == "IfNeeded",
        })
        .collect()
}

/// What is wrong with a configuration's match conditions.
pub(crate) fn check(configuration: &Value, errors: &mut Vec<FieldError>) {
    let environment = expressions::environment(false);
    for (at, hook) in configuration["webhooks"].as_array().into_iter().flatten().enumerate() {
        let path = format!("webhooks[{at}].matchConditions");
        expressions::named(&hook["matchConditions"], &environment, &path, errors);
        if let Err(error) = Destination::of_client_config(&hook["clientConfig"])
            && hook["clientConfig"]["url"].is_string()
        {
            errors.push(FieldError::invalid(
                format!("webhooks[{at}].clientConfig.url"),
                hook["clientConfig"]["url"].clone(),
                error.to_string(),
            ));
        }
    }
}

fn answer_of(hook: &Hook, status: Option<&Value>) -> ApiError {
    let denied = format!("admission webhook {:?} denied the request", hook.name);
    let field = |key: &str| status.map_or("", |status| text(status, key));
    let message = match (field("/message"), field("/reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = status.and_then(|status| status["code"].as_u64()).and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
    let mut refusal = status::bad_request(message);
    refusal.code = if code < 400 { 400 } else { code };
    refusal.reason = reason_of(field("/reason"), refusal.code);
    refusal.into()
}

/// The reason that the webhook gave, if it is one of the API's own.
fn reason_of(given: &str, code: u16) -> &'static str {
    const REASONS: [&str; 14] = [
        "Unauthorized", "Forbidden", "NotFound", "AlreadyExists", "Conflict", "Gone", "Invalid", "Timeout", "BadRequest",
        "TooManyRequests", "MethodNotAllowed", "InternalError", "ServiceUnavailable", "RequestEntityTooLarge",
    ];
    REASONS.into_iter().find(|own| *own == given).unwrap_or(if code == 403 { "Forbidden" } else { "" })
}

/// Asks a validating webhook; its patches count for nothing.
pub(crate) async fn ask(attempt: &Attempt<'_>, hook: &Hook, new: Option<&Value>) -> ApiResult<()> {
    reviewed(attempt, hook, new).await.map(|_| ())
}

/// Asks a mutating webhook; the object as it is then, if it was asked at all.
pub(crate) async fn mutate(attempt: &Attempt<'_>, hook: &Hook, new: &Value) -> ApiResult<Option<Value>> {
    let Some((response, seen)) = reviewed(attempt, hook, Some(new)).await? else { return Ok(None) };
    let Some(patch) = response["patch"].as_str().filter(|patch| !patch.is_empty()) else { return Ok(None) };
    let failed = |words: String| ApiError::from(status::internal(words));
    let kind = text(&response, "/patchType");
    if kind != "JSONPatch" {
        return Err(failed(format!("webhook {:?}: webhook response.patchType must be JSONPatch, got {kind:?}", hook.name)));
    }
    let patch = base64::engine::general_purpose::STANDARD
        .decode(patch)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        .ok_or_else(|| failed(format!("webhook {:?}: the patch cannot be read", hook.name)))?;
    let shown = in_version(attempt, &seen, new).await?;
    let patched = patches::json(&shown, &patch).map_err(|error| failed(error.to_string()))?;
    let own = Seen { resource: attempt.target.resource.clone() };
    Ok(Some(in_version(attempt, &own, &patched).await?))
}

/// An object in the version in which a webhook wants to see it.
async fn in_version(attempt: &Attempt<'_>, seen: &Seen, object: &Value) -> ApiResult<Value> {
    let wanted = seen.resource.api_version();
    if meta::api_version(object) == wanted || attempt.target.subresource == "scale" {
        return Ok(object.clone());
    }
    convert::one(attempt.call, &attempt.target.resource, object.clone(), &wanted).await
}

/// The response of a webhook that allows the write; `None` if it is not to be asked, or could not be and may be passed over.
async fn reviewed(attempt: &Attempt<'_>, hook: &Hook, new: Option<&Value>) -> ApiResult<Option<(Value, Seen)>> {
    let rules = hook.hook["rules"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(seen) = attempt.seen_by(rules, hook.hook["matchPolicy"] != "Exact") else { return Ok(None) };
    if !attempt.selected(&hook.hook, new) {
        return Ok(None);
    }
    let ignore = hook.hook["failurePolicy"] == "Ignore";
    if !hook.conditions.is_empty() {
        let inputs = Inputs::new(attempt, &seen, new, None);
        match Scope::new(attempt, &seen, &inputs).conditions(&hook.conditions) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(_) if ignore => return Ok(None),
            Err(words) => return Err(refused(attempt, &format!("webhook {:?}: {words}", hook.name))),
        }
    }
    if attempt.dry_run && !matches!(hook.hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")) {
        let words = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(status::bad_request(words).into());
    }
    match review(attempt, hook, &seen, new).await {
        Ok(response) => judged(attempt, hook, response).map(|response| Some((response, seen))),
        Err(words) if ignore => {
            tracing::warn!(webhook = hook.name, error = words, "failed calling webhook, failing open");
            Ok(None)
        }
        Err(words) => {
            Err(status::internal(format!("failed calling webhook {:?}: {words}", hook.name)).into())
        }
    }
}

/// 403 as Kubernetes words the refusal of a request by admission.
pub(crate) fn refused(attempt: &Attempt<'_>, words: &str) -> ApiError {
    status::forbidden(&attempt.target.resource, &attempt.name, words).into()
}

fn judged(attempt: &Attempt<'_>, hook: &Hook, response: Value) -> ApiResult<Value> {
    for warning in response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        attempt.call.warn(warning.chars().take(256).collect::<String>());
    }
    for (key, value) in response["auditAnnotations"].as_object().into_iter().flatten() {
        attempt.call.annotate(format!("{}/{key}", hook.name), value.as_str().unwrap_or_default());
    }
    if response["allowed"] == true {
        return Ok(response);
    }
    Err(answer_of(hook, response.get("status").filter(|status| status.is_object())))
}

/// Sends the review and reads its response; the error is what is said of the call.
async fn review(attempt: &Attempt<'_>, hook: &Hook, seen: &Seen, new: Option<&Value>) -> Result<Value, String> {
    let versions = hook.hook["admissionReviewVersions"].as_array().map_or(&[][..], Vec::as_slice);
    let version = versions.iter().filter_map(Value::as_str).find(|version| matches!(*version, "v1" | "v1beta1"));
    let version = format!("admission.k8s.io/{}", version.unwrap_or("v1"));
    let uid = uuid::Uuid::new_v4().to_string();
    let mut request = attempt.request(seen);
    request["uid"] = uid.as_str().into();
    let words = |error: ApiError| error.0.message.clone();
    request["object"] = match new {
        Some(new) => in_version(attempt, seen, new).await.map_err(words)?,
        None => Value::Null,
    };
    request["oldObject"] = match &attempt.old {
        Some(old) => in_version(attempt, seen, old).await.map_err(words)?,
        None => Value::Null,
    };
    let body = json!({"kind": "AdmissionReview", "apiVersion": version, "request": request});
    let seconds = hook.hook["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30);
    let destination = Destination::of_client_config(&hook.hook["clientConfig"]).map_err(|error| error.to_string())?;
    let query = format!("timeout={seconds}s");
    let store = &attempt.call.server.store;
    let answer = destination.post(store, &query, &body, Duration::from_secs(seconds)).await;
    let answer = answer.map_err(|error| {
        format!("failed to call webhook: Post \"{}?{query}\": {error}", destination.url())
    })?;
    let answer: Value = serde_json::from_slice(&answer)
        .map_err(|error| format!("converting (v1.AdmissionReview) to (v1.AdmissionReview): {error}"))?;
    if answer["kind"] != "AdmissionReview" || answer["apiVersion"] != version {
        return Err(format!("received invalid webhook response: expected webhook response of {version}, Kind=AdmissionReview, got {}, Kind={}", text(&answer, "/apiVersion"), text(&answer, "/kind")));
    }
    match answer.get("response").filter(|response| response.is_object()) {
        None => Err("webhook response was absent".to_owned()),
        Some(response) if response["uid"] != uid.as_str() => {
            Err(format!("received invalid webhook response: expected response.uid={uid:?}, got {:?}", text(response, "/uid")))
        }
        Some(response) => Ok(response.clone()),
    }
}

/// The status of a refusal for a reason of the API's own.
pub(crate) fn with_reason(mut refusal: Status, reason: &str) -> Status {
    let (reason, code) = match reason {
        "Unauthorized" => ("Unauthorized", 401),
        "Forbidden" => ("Forbidden", 403),
        "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
        _ => ("Invalid", 422),
    };
    refusal.reason = reason;
    refusal.code = code;
    refusal
}
