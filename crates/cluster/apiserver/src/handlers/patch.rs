//! PATCH in its four forms: JSON patch, merge patch, strategic merge patch, server-side apply.

use http::StatusCode;
use jiff::Timestamp;
use kube_types::lifecycle::Subresource;
use kube_types::{managed, meta, patch, status, strict};
use serde_json::Value;

use crate::call::{Call, Target};
use crate::error::{ApiError, ApiResult};
use crate::negotiate;
use crate::respond::Reply;
use crate::write::{self, Change, Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Merge,
    Strategic,
    Apply,
}

const ACCEPTED: [&str; 5] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
];

/// An applied object may be deleted or created by others while it is looked at; so often that is taken up again.
const ATTEMPTS: usize = 8;

/// Most operations in a JSON patch, as in Kubernetes.
const MAX_OPERATIONS: usize = 10_000;

impl Form {
    pub(crate) fn of(call: &Call) -> ApiResult<Self> {
        match negotiate::content_type(&call.headers) {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => Err(status::unsupported_media_type(&ACCEPTED[..4]).into()),
        }
    }
}

pub(crate) async fn serve(call: &Call, target: &Target) -> ApiResult<Reply> {
    let form = Form::of(call)?;
    if form == Form::Apply {
        return apply(call, target).await;
    }
    if form == Form::Strategic && target.resource.custom().is_some() {
        // Custom resources have no merge keys.
        return Err(status::unsupported_media_type(&[ACCEPTED[0], ACCEPTED[1], ACCEPTED[3]]).into());
    }
    let document = parse(call)?;
    let options = call.write_options()?;
    let resource = &target.resource;
    let subresource = Subresource::from_path(&target.subresource);
    let change = |old: &Value| {
        let mut new = patched(target, form, old, &document)?;
        let complaints = strict::prune(resource, &mut new).map_err(|error| unprocessable(error.to_string()))?;
        call.judge_fields(resource, complaints)?;
        check_identity(target, old, &new)?;
        // A patch that does not name a version is against whatever is there, and is made again if that changes.
        if !names_version(form, &document) {
            meta::set(&mut new, "resourceVersion", None);
        }
        Ok(new)
    };
    let change = Change { subresource, record_manager: true, change: &change };
    let written = write::update(call, target, &options, &change).await?;
    super::one(call, target, StatusCode::OK, &written.stored).await
}

pub(crate) fn parse(call: &Call) -> ApiResult<Value> {
    // kubectl --patch-file may send YAML under a JSON type; Kubernetes accepts that as well.
    let document: Value = serde_json::from_slice(&call.body)
        .map_err(|error| ApiError::from(status::bad_request(format!("error decoding patch: {error}"))))?;
    if document.as_array().is_some_and(|operations| operations.len() > MAX_OPERATIONS) {
        let text = format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}");
        return Err(status::too_large(text).into());
    }
    Ok(document)
}

pub(crate) fn patched(target: &Target, form: Form, old: &Value, document: &Value) -> ApiResult<Value> {
    Ok(match form {
        Form::Json => patch::json(old, document)?,
        Form::Merge => patch::merge(old, document)?,
        Form::Strategic | Form::Apply => patch::strategic(&target.resource, old, document)?,
    })
}

fn names_version(form: Form, document: &Value) -> bool {
    match form {
        Form::Json => document
            .as_array()
            .into_iter()
            .flatten()
            .any(|operation| operation["op"] != "test" && operation["path"] == "/metadata/resourceVersion"),
        Form::Merge | Form::Strategic | Form::Apply => document.pointer("/metadata/resourceVersion").is_some(),
    }
}

fn check_identity(target: &Target, old: &Value, new: &Value) -> ApiResult<()> {
    if meta::kind(old) != meta::kind(new) {
        let text = format!(
            "{} in version {:?} cannot be handled as a {}",
            meta::kind(new),
            meta::api_version(new),
            meta::kind(old)
        );
        return Err(status::bad_request(text).into());
    }
    if meta::name(new) != target.name {
        let error = kube_types::FieldError::invalid("metadata.name", meta::name(new), "field is immutable");
        return Err(status::invalid(&target.resource, &target.name, &[error]).into());
    }
    Ok(())
}

fn unprocessable(text: String) -> ApiError {
    let mut status = status::bad_request(text);
    status.code = 422;
    status.reason = "Invalid";
    status.into()
}

/// Server-side apply: creates what is not there yet.
async fn apply(call: &Call, target: &Target) -> ApiResult<Reply> {
    let resource = &target.resource;
    let mut options = call.write_options()?;
    options.manager = call.query.text("fieldManager").map(str::to_owned).ok_or_else(|| {
        status::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        )
    })?;
    let (config, complaints) = strict::decode_yaml(resource, &call.body)?;
    call.judge_fields(resource, complaints)?;
    check_config(target, &config)?;
    let force = call.query.flag("force");
    let subresource = Subresource::from_path(&target.subresource);
    for _ in 0..ATTEMPTS {
        if call.server.store.get(&target.key()).is_none() {
            if !target.subresource.is_empty() {
                return Err(status::not_found(resource, &target.name).into());
            }
            if !meta::uid(&config).is_empty() {
                let text = format!(
                    "uid mismatch: the provided object specified uid {}, and no existing object was found",
                    meta::uid(&config)
                );
                return Err(status::conflict(resource, &target.name, &text).into());
            }
            crate::authz::authorize_verb(call, target, "create")?;
            let new = managed::apply(resource, None, &config, &options.manager, force, subresource, Timestamp::now())?;
            match write::create(call, target, &new, &options, true).await {
                Err(error) if error.0.reason == "AlreadyExists" => continue,
                result => return super::one(call, target, StatusCode::CREATED, &result?.stored).await,
            }
        }
        let change = |old: &Value| {
            managed::apply(resource, Some(old), &config, &options.manager, force, subresource, Timestamp::now())
                .map_err(ApiError::from)
        };
        let change = Change { subresource, record_manager: false, change: &change };
        match write::update(call, target, &options, &change).await {
            Err(error) if error.0.code == 404 => {}
            result => {
                let written = result?;
                debug_assert!(written.outcome != Outcome::Created);
                return super::one(call, target, StatusCode::OK, &written.stored).await;
            }
        }
    }
    Err(status::modified(resource, &target.name).into())
}

fn check_config(target: &Target, config: &Value) -> ApiResult<()> {
    crate::metadata::check_path(target, config)?;
    if config.pointer("/metadata/managedFields").and_then(Value::as_array).is_some_and(|fields| !fields.is_empty()) {
        return Err(status::bad_request("metadata.managedFields must be nil").into());
    }
    let (api_version, expected) = (meta::api_version(config), target.resource.api_version());
    if api_version != expected || meta::kind(config) != target.resource.kind {
        let text = format!(
            "Incorrect version specified in apply patch. Specified patch version: {api_version}, expected: {expected}"
        );
        return Err(status::bad_request(text).into());
    }
    Ok(())
}
