//! The write path: change → default → admit → validate → encode once → one transaction.
//!
//! Invariant: what is stored went through all of it, and the transaction holds only if nothing that the decision was
//! made from has changed in between (the object itself, its namespace, the addresses it takes). Otherwise everything is
//! decided again from the present state.

use bytes::Bytes;
use jiff::Timestamp;
use kube_types::lifecycle::Subresource;
use kube_types::{managed, meta, names, status};
use serde_json::Value;
use store::{Compare, KeyValue, Op, Txn, TxnOutcome};

use crate::admission::{self, Effects};
use crate::call::{Call, Target, WriteOptions};
use crate::error::{ApiError, ApiResult};
use crate::extension::{admit, convert, definitions};
use crate::object::{self, Encoded};
use crate::{keys, metadata};

/// So many times a write that lost a race is decided again before the client is told.
const ATTEMPTS: usize = 32;

/// What a write left behind.
pub(crate) struct Written {
    /// The object as it is stored (as it would be, in a dry run; as it last was, after a deletion).
    pub(crate) stored: Bytes,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Created,
    Updated,
    Deleted,
}

/// Stores a new object. `applied` says that its managedFields are there already.
pub(crate) async fn create(
    call: &Call,
    target: &Target,
    object: &Value,
    options: &WriteOptions,
    applied: bool,
) -> ApiResult<Written> {
    let resource = &target.resource;
    definitions::check_create(call, target)?;
    for _ in 0..ATTEMPTS {
        let mut new = object.clone();
        let now = Timestamp::now();
        let generated = name_new(target, &mut new)?;
        // What is derived from the uid (a Job's selector) needs it first.
        metadata::stamp_new(target, &mut new, now);
        resource.prepare_create(&mut new);
        resource.default(&mut new);
        let mut effects = admission::on_create(call, target, &mut new)?;
        Box::pin(admit::mutate(call, target, None, &mut new, options)).await?;
        if !applied {
            managed::record_update(resource, None, &mut new, &options.manager, Subresource::Main, now);
        }
        let name = meta::name(&new).to_owned();
        let mut errors = resource.validate_create(&new);
        if errors.is_empty() {
            errors = definitions::validate(call, target, &new, None);
        }
        if !errors.is_empty() {
            return Err(status::invalid(resource, &name, &errors).into());
        }
        if !keys::is_segment(&name) {
            return Err(status::bad_request(format!("invalid name {name:?}")).into());
        }
        Box::pin(admit::validate(call, target, None, &new, options)).await?;
        admission::judge(call, target, None, &new, Subresource::Main, &mut effects)?;
        let key = target.named(&name).key();
        if options.dry_run {
            if call.server.store.get(&key).is_some() {
                return Err(status::already_exists(resource, &name).into());
            }
            return Ok(Written { stored: without_revision(&new), outcome: Outcome::Created });
        }
        match commit(call, target, key, 0, &new, effects).await? {
            Commit::Done(stored) => {
                definitions::settle(call, target, object::revision(&stored)).await;
                return Ok(Written { stored, outcome: Outcome::Created });
            }
            Commit::Lost(Some(_)) if !generated => {
                return Err(status::already_exists(resource, &name).into());
            }
            Commit::Lost(_) => {}
        }
    }
    Err(busy(target))
}

/// Gives the object its name; true if the server made it up.
fn name_new(target: &Target, object: &mut Value) -> ApiResult<bool> {
    if !meta::resource_version(object).is_empty() {
        return Err(status::bad_request("resourceVersion should not be set on objects to be created").into());
    }
    if !meta::name(object).is_empty() {
        return Ok(false);
    }
    let base = meta::generate_name(object).to_owned();
    if base.is_empty() {
        let error = kube_types::FieldError::required("metadata.name", "name or generateName is required");
        return Err(status::invalid(&target.resource, "", &[error]).into());
    }
    meta::set_name(object, &names::generate(&base, rand::random()));
    Ok(true)
}

/// One change of an existing object.
pub(crate) struct Change<'a> {
    pub(crate) subresource: Subresource<'a>,
    /// False if `change` writes managedFields itself (server-side apply).
    pub(crate) record_manager: bool,
    /// From the stored object to the wanted one. Called again when the write lost a race.
    pub(crate) change: &'a (dyn Fn(&Value) -> ApiResult<Value> + Sync),
}

/// Changes an existing object; removes it when its last finalizer went.
pub(crate) async fn update(
    call: &Call,
    target: &Target,
    options: &WriteOptions,
    change: &Change<'_>,
) -> ApiResult<Written> {
    for _ in 0..ATTEMPTS {
        let found = crate::handlers::get::find(call, target)?;
        let old = convert::from_store(call, &target.resource, &found.value).await?;
        let (new, effects) = Box::pin(decide_update(call, target, options, change, &old)).await?;
        if metadata::may_vanish(target, &new) && meta::is_being_deleted(&old) {
            if options.dry_run {
                return Ok(Written { stored: without_revision(&new), outcome: Outcome::Deleted });
            }
            if let Some(stored) = remove(call, target, &found).await? {
                // The client sees what it wrote, as in Kubernetes.
                let stored = Encoded::new(&new).at(crate::object::revision(&stored));
                return Ok(Written { stored, outcome: Outcome::Deleted });
            }
            continue;
        }
        // An update that changes nothing still moves an object to a new storage version.
        if metadata::is_same(&old, &new) && convert::is_current(call, &target.resource, &found.value) {
            return Ok(Written { stored: found.value, outcome: Outcome::Updated });
        }
        if options.dry_run {
            return Ok(Written { stored: Encoded::new(&new).at(found.mod_revision), outcome: Outcome::Updated });
        }
        match commit(call, target, target.key(), found.mod_revision, &new, effects).await? {
            Commit::Done(stored) => {
                definitions::settle(call, target, object::revision(&stored)).await;
                return Ok(Written { stored, outcome: Outcome::Updated });
            }
            Commit::Lost(_) => {}
        }
    }
    Err(busy(target))
}

async fn decide_update(
    call: &Call,
    target: &Target,
    options: &WriteOptions,
    change: &Change<'_>,
    old: &Value,
) -> ApiResult<(Value, Effects)> {
    let resource = &target.resource;
    let mut new = (change.change)(old)?;
    metadata::check_same_object(target, old, &new)?;
    metadata::keep_system_fields(old, &mut new);
    resource.prepare_update(old, &mut new, change.subresource);
    resource.default(&mut new);
    let mut effects = admission::on_update(call, target, old, &mut new, change.subresource)?;
    admit::mutate(call, target, Some(old), &mut new, options).await?;
    if change.record_manager {
        managed::record_update(resource, Some(old), &mut new, &options.manager, change.subresource, Timestamp::now());
    }
    let mut errors = resource.validate_update(&new, old, change.subresource);
    if errors.is_empty() {
        errors = definitions::validate(call, target, &new, Some(old));
    }
    if !errors.is_empty() {
        return Err(status::invalid(resource, &target.name, &errors).into());
    }
    admit::validate(call, target, Some(old), &new, options).await?;
    admission::judge(call, target, Some(old), &new, change.subresource, &mut effects)?;
    Ok((new, effects))
}

/// Writes a changed object without admission, for the server's own bookkeeping (deletion marks, bindings).
pub(crate) async fn replace(call: &Call, target: &Target, found: &KeyValue, new: &Value) -> ApiResult<Option<Bytes>> {
    match commit(call, target, target.key(), found.mod_revision, new, Effects::default()).await? {
        Commit::Done(stored) => Ok(Some(stored)),
        Commit::Lost(_) => Ok(None),
    }
}

/// Removes the object for good. `None`: it changed meanwhile.
pub(crate) async fn remove(call: &Call, target: &Target, found: &KeyValue) -> ApiResult<Option<Bytes>> {
    let effects = admission::on_remove(target, &found.value);
    let mut ops = vec![Op::Delete { key: found.key.clone() }];
    ops.extend(effects.ops);
    let compare = vec![Compare { key: found.key.clone(), mod_revision: found.mod_revision }];
    match call.server.store.txn(Txn { compare, ops }).await? {
        TxnOutcome::Committed { revision, .. } => Ok(Some(object::with_revision(&found.value, revision))),
        TxnOutcome::Conflict { .. } => Ok(None),
    }
}

enum Commit {
    Done(Bytes),
    /// A guard failed; what stands at the object's key now.
    Lost(Option<KeyValue>),
}

async fn commit(
    call: &Call,
    target: &Target,
    key: Bytes,
    expected: u64,
    new: &Value,
    effects: Effects,
) -> ApiResult<Commit> {
    let encoded = convert::to_store(call, &target.resource, new).await?;
    let at_commit = encoded.clone();
    let mut compare = vec![Compare { key: key.clone(), mod_revision: expected }];
    compare.extend(effects.compare);
    let mut ops = vec![Op::PutWith { key, encode: Box::new(move |revision| at_commit.at(revision)) }];
    ops.extend(effects.ops);
    match call.server.store.txn(Txn { compare, ops }).await? {
        TxnOutcome::Committed { revision, .. } => Ok(Commit::Done(encoded.at(revision))),
        TxnOutcome::Conflict { mut current } => Ok(Commit::Lost(current.swap_remove(0))),
    }
}

fn without_revision(object: &Value) -> Bytes {
    serde_json::to_vec(object).map(Bytes::from).unwrap_or_default()
}

fn busy(target: &Target) -> ApiError {
    status::modified(&target.resource, &target.name).into()
}
