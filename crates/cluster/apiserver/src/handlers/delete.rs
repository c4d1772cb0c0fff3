//! DELETE: at once, after a grace period, or when the last finalizer is gone.
//!
//! Only pods have a grace period: the API server marks the pod, its node agent stops the containers and deletes it with
//! grace 0. Finalizers hold any object; `propagationPolicy` is two of them (`foregroundDeletion`, `orphan`).

use http::StatusCode;
use jiff::{Timestamp, ToSpan as _};
use kube_types::{meta, status};
use serde_json::{Value, json};

use super::list;
use super::present::ListMeta;
use crate::call::{Call, Target, WriteOptions};
use crate::error::ApiResult;
use crate::extension::{admit, convert, definitions};
use crate::metadata;
use crate::object::{self, Encoded, text};
use crate::respond::{self, Reply};
use crate::write::{self, Outcome, Written};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
const ATTEMPTS: usize = 32;

/// Kinds whose deletion answers with the object instead of a `Status`, as in Kubernetes.
const ANSWERED_WITH_OBJECT: [&str; 7] = [
    "pods",
    "services",
    "serviceaccounts",
    "persistentvolumes",
    "persistentvolumeclaims",
    "podtemplates",
    "resourcequotas",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// A `DeleteOptions`, from body and query.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    grace_seconds: Option<i64>,
    uid: String,
    resource_version: String,
    propagation: Option<Propagation>,
    dry_run: bool,
}

impl Options {
    fn parse(call: &Call) -> ApiResult<Self> {
        let body = call.loose_body()?;
        let mut options = Self::from_body(call, &body)?;
        if options.grace_seconds.is_none() {
            options.grace_seconds = call.query.number("gracePeriodSeconds");
        }
        if options.propagation.is_none() {
            options.propagation = call.query.text("propagationPolicy").map(propagation).transpose()?;
        }
        if options.grace_seconds.is_some_and(|seconds| seconds < 0) {
            // Kubernetes takes any negative grace for one second.
            options.grace_seconds = Some(1);
        }
        Ok(options)
    }

    /// From the `DeleteOptions` of a request or of an eviction.
    pub(crate) fn from_body(call: &Call, body: &Value) -> ApiResult<Self> {
        let orphan = body.get("orphanDependents").and_then(Value::as_bool);
        let propagation = match (text(body, "/propagationPolicy"), orphan) {
            ("", None) => None,
            ("", Some(true)) => Some(Propagation::Orphan),
            ("", Some(false)) => Some(Propagation::Background),
            (policy, _) => Some(propagation(policy)?),
        };
        Ok(Self {
            grace_seconds: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            uid: text(body, "/preconditions/uid").to_owned(),
            resource_version: text(body, "/preconditions/resourceVersion").to_owned(),
            propagation,
            dry_run: call.write_options_with(body)?.dry_run,
        })
    }

    fn check(&self, target: &Target, object: &Value) -> ApiResult<()> {
        let preconditions = [
            ("UID", &self.uid, meta::uid(object)),
            ("ResourceVersion", &self.resource_version, meta::resource_version(object)),
        ];
        for (what, wanted, found) in preconditions {
            if !wanted.is_empty() && wanted != found {
                let text =
                    format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
                return Err(status::conflict(&target.resource, &target.name, &text).into());
            }
        }
        Ok(())
    }
}

fn propagation(policy: &str) -> ApiResult<Propagation> {
    match policy {
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        "Orphan" => Ok(Propagation::Orphan),
        other => {
            let text = format!(
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: {other:?}: must be one of \"Foreground\", \"Background\", \"Orphan\" or nil"
            );
            Err(status::bad_request(text).into())
        }
    }
}

pub(crate) async fn serve(call: &Call, target: &Target) -> ApiResult<Reply> {
    let options = Options::parse(call)?;
    let written = delete(call, target, &options).await?;
    let with_object =
        target.resource.group.is_empty() && ANSWERED_WITH_OBJECT.contains(&target.resource.plural.as_ref());
    if written.outcome == Outcome::Deleted && !with_object {
        let uid = object::decode(&written.stored);
        return Ok(respond::json(
            StatusCode::OK,
            &status::Status::success(&target.resource, &target.name, meta::uid(&uid)),
        ));
    }
    super::one(call, target, StatusCode::OK, &written.stored).await
}

pub(crate) async fn serve_collection(call: &Call, target: &Target) -> ApiResult<Reply> {
    let options = Options::parse(call)?;
    let mut items = Vec::new();
    for item in list::names(call, target)? {
        let object = object::decode(&item.value);
        let one = Target { namespace: meta::namespace(&object).to_owned(), ..target.named(meta::name(&object)) };
        match delete(call, &one, &options).await {
            Ok(written) => items.push(written.stored),
            // Somebody else was faster.
            Err(error) if error.0.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let items = convert::to_client(call, &target.resource, items).await?;
    let meta = ListMeta { revision: call.server.store.revision(), continue_token: None, remaining: None };
    super::present::many(call, &target.resource, &items, &meta)
}

/// What a deletion does to an object as it now is.
enum Step {
    /// It goes now.
    Remove,
    /// It stays for a while, marked.
    Mark(Value),
    /// It is marked already, and nothing new is asked.
    Nothing,
}

pub(crate) async fn delete(call: &Call, target: &Target, options: &Options) -> ApiResult<Written> {
    for _ in 0..ATTEMPTS {
        let found = super::get::find(call, target)?;
        let object = object::decode(&found.value);
        options.check(target, &object)?;
        crate::admission::on_delete(call, target, &object)?;
        let write = WriteOptions { dry_run: options.dry_run, manager: String::new() };
        Box::pin(admit::on_delete(call, target, &object, &write)).await?;
        match decide(target, &object, options, Timestamp::now()) {
            Step::Nothing => {
                return Ok(Written { stored: found.value, outcome: Outcome::Updated });
            }
            Step::Remove if options.dry_run => {
                return Ok(Written { stored: found.value, outcome: Outcome::Deleted });
            }
            Step::Remove => {
                if let Some(stored) = write::remove(call, target, &found).await? {
                    definitions::settle(call, target, object::revision(&stored)).await;
                    return Ok(Written { stored, outcome: Outcome::Deleted });
                }
            }
            Step::Mark(marked) if options.dry_run => {
                return Ok(Written { stored: Encoded::new(&marked).at(found.mod_revision), outcome: Outcome::Updated });
            }
            Step::Mark(marked) => {
                if let Some(stored) = write::replace(call, target, &found, &marked).await? {
                    return Ok(Written { stored, outcome: Outcome::Updated });
                }
            }
        }
    }
    Err(status::modified(&target.resource, &target.name).into())
}

fn decide(target: &Target, object: &Value, options: &Options, now: Timestamp) -> Step {
    let mut new = object.clone();
    set_finalizers(&mut new, options.propagation);
    let grace = grace_seconds(target, object, options);
    let running = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    match (meta::is_being_deleted(object), running) {
        // A second deletion can only shorten the grace.
        (true, Some(running)) if grace < running => mark(&mut new, meta::deletion(object), grace, running, now),
        (true, _) => {}
        (false, _) => {
            mark(&mut new, None, grace, 0, now);
            let generation = meta::generation(&new);
            if generation > 0 {
                meta::set_generation(&mut new, generation + 1);
            }
        }
    }
    if target.is("", "namespaces") {
        new["status"]["phase"] = "Terminating".into();
    }
    if metadata::may_vanish(target, &new) {
        Step::Remove
    } else if new == *object {
        Step::Nothing
    } else {
        Step::Mark(new)
    }
}

fn mark(object: &mut Value, since: Option<Timestamp>, grace: i64, previous: i64, now: Timestamp) {
    // The moment counts from the first deletion when there was one.
    let from = since.and_then(|at| at.checked_sub(previous.seconds()).ok()).unwrap_or(now);
    let at = from.checked_add(grace.seconds()).unwrap_or(now);
    meta::set_deletion(object, at, grace);
}

fn grace_seconds(target: &Target, object: &Value, options: &Options) -> i64 {
    if !target.is("", "pods") {
        return 0;
    }
    let finished = matches!(text(object, "/status/phase"), "Succeeded" | "Failed");
    if text(object, "/spec/nodeName").is_empty() || finished {
        return 0;
    }
    let default = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
    options.grace_seconds.unwrap_or(default).clamp(0, i64::from(u32::MAX))
}

fn set_finalizers(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else {
        return;
    };
    let mut finalizers: Vec<String> =
        meta::finalizers(object).filter(|own| *own != FOREGROUND && *own != ORPHAN).map(str::to_owned).collect();
    match propagation {
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
        Propagation::Background => {}
    }
    meta::set(object, "finalizers", (!finalizers.is_empty()).then(|| json!(finalizers)));
}
