//! CustomResourceDefinitions: their conditions and accepted names, what is served because of them, and their end.
//!
//! One task follows the definitions in the store. For each it writes the status that `kube_types::custom::names` decides, and
//! once that stands it puts the resources into [`Served`]. Invariant: a request that was answered for a definition finds it
//! served (or gone): [`settle`] waits for the task. A definition that is being deleted first loses its instances, then its
//! finalizer.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use jiff::Timestamp;
use kube_types::custom::{self, names};
use kube_types::{FieldError, Resource, meta, status, time};
use serde_json::{Value, json};
use store::{Compare, Event, EventKind, Op, Store, Txn, TxnOutcome};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::extension::admit;
use crate::extension::rules::{self, Rules};
use crate::identity::Identity;
use crate::keys;
use crate::object::{self, Encoded};
use crate::served::{Custom, Served};
use crate::server::ApiServer;

pub(crate) const GROUP: &str = "apiextensions.k8s.io";
pub(crate) const PLURAL: &str = "customresourcedefinitions";
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// A client does not wait longer than this for its definition to be served.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);

/// One accepted definition.
pub(crate) struct Kind {
    pub(crate) revision: u64,
    pub(crate) terminating: bool,
    /// `example.com/v1` of the version in which objects are stored.
    pub(crate) storage_version: String,
    pub(crate) resources: Vec<Arc<Resource>>,
    /// The CEL rules of each served version.
    rules: BTreeMap<String, Rules>,
    /// `spec.conversion.webhook`, when versions differ by more than their name.
    pub(crate) webhook: Option<Value>,
}

impl Kind {
    fn new(definition: &Value, revision: u64) -> Option<Self> {
        let group = object::text(definition, "/spec/group");
        let versions = definition["spec"]["versions"].as_array()?;
        let storage = versions.iter().find(|version| version["storage"] == true)?;
        let resources = custom::resources(definition)
            .inspect_err(|error| tracing::warn!(definition = meta::name(definition), %error, "cannot be served"))
            .ok()?;
        let conversion = &definition["spec"]["conversion"];
        let rules = resources
            .iter()
            .filter_map(|resource| Some((resource.version.to_string(), Rules::compile(&resource.custom()?.root))))
            .collect();
        Some(Self {
            rules,
            revision,
            terminating: meta::is_being_deleted(definition),
            storage_version: format!("{group}/{}", object::text(storage, "/name")),
            resources: resources.into_iter().map(Arc::new).collect(),
            webhook: (conversion["strategy"] == "Webhook").then(|| conversion["webhook"].clone()),
        })
    }
}

/// Everything that kube-types' own validation leaves to this crate: CEL, in definitions and in instances.
pub(crate) fn validate(call: &Call, target: &Target, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    if target.resource.group == admit::GROUP {
        return admit::validate_configuration(target, object);
    }
    if target.is(GROUP, PLURAL) {
        let same = |old: &Value| old["spec"]["versions"] == object["spec"]["versions"];
        return if old.is_some_and(same) { Vec::new() } else { rules::check_definition(object) };
    }
    let Some(kind) = call.server.served.kind_of(&target.resource) else { return Vec::new() };
    match kind.rules.get(target.resource.version.as_ref()) {
        Some(rules) if !rules.is_empty() => rules::validate(rules, object, old),
        _ => Vec::new(),
    }
}

/// What a new definition gets from the server.
pub(crate) fn on_create(definition: &mut Value) {
    let mut finalizers: Vec<String> = meta::finalizers(definition).map(str::to_owned).collect();
    if !finalizers.iter().any(|own| own == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    meta::set(definition, "finalizers", Some(json!(finalizers)));
    let stored = storage_version(definition).map_or_else(Vec::new, |version| vec![version.to_owned()]);
    definition["status"] =
        json!({"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored});
}

/// A version that objects were ever stored in is not forgotten.
pub(crate) fn on_update(definition: &mut Value) {
    let Some(storage) = storage_version(definition).map(str::to_owned) else { return };
    let stored = definition["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    if !stored.iter().any(|version| *version == storage) {
        let stored: Vec<Value> = stored.into_iter().chain([storage.into()]).collect();
        definition["status"]["storedVersions"] = stored.into();
    }
}

fn storage_version(definition: &Value) -> Option<&str> {
    let versions = definition["spec"]["versions"].as_array()?;
    versions.iter().find(|version| version["storage"] == true)?["name"].as_str()
}

/// Nothing new is made of a kind that is on its way out.
pub(crate) fn check_create(call: &Call, target: &Target) -> ApiResult<()> {
    let terminating = call.server.served.kind_of(&target.resource).is_some_and(|kind| kind.terminating);
    if terminating {
        let mut refusal = status::method_not_supported(&target.resource, "create");
        refusal.message = "create not allowed while custom resource definition is terminating".to_owned();
        return Err(refusal.into());
    }
    Ok(())
}

/// Waits until what the definition at `revision` says has come true.
pub(crate) async fn settle(call: &Call, target: &Target, revision: u64) {
    if !target.is(GROUP, PLURAL) || !target.subresource.is_empty() {
        return;
    }
    let mut settled = call.server.definitions.subscribe();
    let wait = settled.wait_for(|settled| *settled >= revision);
    if tokio::time::timeout(SETTLE_WITHIN, wait).await.is_err() {
        tracing::warn!(definition = target.name, "is not served yet");
    }
}

/// What the task knows of one definition.
struct Known {
    definition: Value,
    kind: Option<Arc<Kind>>,
}

struct Follower {
    store: Store,
    server: Weak<ApiServer>,
    known: BTreeMap<String, Known>,
    cleanups: JoinSet<()>,
    cleaning: Vec<String>,
    settled: watch::Sender<u64>,
}

/// Serves what is defined already; call before requests come in.
pub(crate) fn load(store: &Store, served: &Served) {
    let mut kinds = Vec::new();
    for item in list(store) {
        let definition = object::decode(&item.value);
        if names::condition(&definition, "Established") == Some("True") {
            kinds.extend(Kind::new(&definition, item.mod_revision).map(Arc::new));
        }
    }
    served.replace_custom(Custom::new(kinds.into_iter()));
}

fn list(store: &Store) -> Vec<store::KeyValue> {
    let prefix = format!("{}{GROUP}/{PLURAL}/", keys::ROOT);
    store.range(prefix.as_bytes(), None, 0, None).map(|range| range.items).unwrap_or_default()
}

/// Follows the definitions until the server is dropped.
pub(crate) fn follow(server: &Arc<ApiServer>) -> tokio::task::AbortHandle {
    let follower = Follower {
        store: server.store.clone(),
        server: Arc::downgrade(server),
        known: BTreeMap::new(),
        cleanups: JoinSet::new(),
        cleaning: Vec::new(),
        settled: server.definitions.clone(),
    };
    tokio::spawn(follower.run()).abort_handle()
}

impl Follower {
    async fn run(mut self) {
        loop {
            let prefix = format!("{}{GROUP}/{PLURAL}/", keys::ROOT);
            let Ok(range) = self.store.range(prefix.as_bytes(), None, 0, None) else { return };
            self.known.clear();
            for item in range.items {
                self.take_in(&object::decode(&item.value), item.mod_revision);
            }
            let names: Vec<String> = self.known.keys().cloned().collect();
            for name in &names {
                self.reconcile(name).await;
            }
            self.publish();
            self.settled.send_replace(range.revision);
            let Ok(mut changes) = self.store.watch(Bytes::from(prefix), Some(range.revision)) else { continue };
            while let Ok(event) = changes.next().await {
                self.handle(&event).await;
            }
            if self.server.strong_count() == 0 {
                return;
            }
        }
    }

    async fn handle(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Put { value, .. } => {
                let definition = object::decode(&value.value);
                let name = meta::name(&definition).to_owned();
                self.take_in(&definition, value.mod_revision);
                // A status that is written comes back as an event of its own, and settles then.
                if self.reconcile(&name).await {
                    return;
                }
            }
            EventKind::Delete { prev } => {
                let gone = object::decode(&prev.value);
                self.known.remove(meta::name(&gone));
                self.cleaning.retain(|name| name != meta::name(&gone));
                // A name that it held may be another's now.
                let group = object::text(&gone, "/spec/group").to_owned();
                let others: Vec<String> = self
                    .known
                    .iter()
                    .filter(|(_, known)| object::text(&known.definition, "/spec/group") == group)
                    .map(|(name, _)| name.clone())
                    .collect();
                for name in &others {
                    self.reconcile(name).await;
                }
            }
        }
        self.publish();
        self.settled.send_replace(event.revision);
    }

    fn take_in(&mut self, definition: &Value, revision: u64) {
        let established = names::condition(definition, "Established") == Some("True");
        let kind = if established { Kind::new(definition, revision).map(Arc::new) } else { None };
        self.known.insert(meta::name(definition).to_owned(), Known { definition: definition.clone(), kind });
    }

    /// Writes the status that the definition is to have, and sees to the end of one that is deleted. True if it wrote.
    async fn reconcile(&mut self, name: &str) -> bool {
        let Some(known) = self.known.get(name) else { return false };
        let definition = known.definition.clone();
        let group = object::text(&definition, "/spec/group");
        let others: Vec<&Value> = self
            .known
            .iter()
            .filter(|(own, known)| *own != name && object::text(&known.definition, "/spec/group") == group)
            .map(|(_, known)| &known.definition["status"]["acceptedNames"])
            .collect();
        let naming = names::decide(&definition, &others);
        let mut wanted = definition.clone();
        wanted["status"]["acceptedNames"] = naming.accepted;
        let (all, reason, message) = &naming.all_accepted;
        set_condition(&mut wanted, "NamesAccepted", *all, reason, message);
        let (established, reason, message) = naming.established;
        set_condition(&mut wanted, "Established", established, reason, message);
        if meta::is_being_deleted(&definition) && names::condition(&definition, "Terminating").is_none() {
            let text = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
            set_condition(&mut wanted, "Terminating", true, "InstanceDeletionPending", text);
        }
        let wrote = wanted != definition && replace(&self.store, &definition, &wanted).await;
        if meta::is_being_deleted(&definition) && !wrote {
            self.clean_up(name);
        }
        wrote
    }

    fn clean_up(&mut self, name: &str) {
        if self.cleaning.iter().any(|own| own == name) {
            return;
        }
        self.cleaning.push(name.to_owned());
        while self.cleanups.try_join_next().is_some() {}
        let Some(known) = self.known.get(name) else { return };
        let (definition, server, store) = (known.definition.clone(), self.server.clone(), self.store.clone());
        // Instances can be deleted only through what is served.
        self.cleanups.spawn(async move {
            remove_instances(&server, &store, &definition).await;
            release(&store, meta::name(&definition)).await;
        });
    }

    fn publish(&self) {
        let Some(server) = self.server.upgrade() else { return };
        server.served.replace_custom(Custom::new(self.known.values().filter_map(|known| known.kind.clone())));
        server.documents.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

pub(crate) fn set_condition(definition: &mut Value, kind: &str, is: bool, reason: &str, message: &str) {
    let state = if is { "True" } else { "False" };
    let mut conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().position(|condition| condition["type"] == kind);
    let mut condition = json!({"type": kind, "status": state, "reason": reason, "message": message});
    let old = found.map(|at| &conditions[at]);
    if old.is_some_and(|old| ["status", "reason", "message"].iter().all(|field| old[*field] == condition[*field])) {
        return;
    }
    let since = old.filter(|old| old["status"] == state).map(|old| old["lastTransitionTime"].clone());
    condition["lastTransitionTime"] = since.unwrap_or_else(|| time::rfc3339(Timestamp::now()).into());
    match found {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    definition["status"]["conditions"] = conditions.into();
}

/// Writes `new` if `old` is still what stands there.
async fn replace(store: &Store, old: &Value, new: &Value) -> bool {
    let key = keys::known(GROUP, PLURAL, "", meta::name(old));
    let Ok(mod_revision) = meta::resource_version(old).parse() else { return false };
    let ops = if meta::is_being_deleted(new) && meta::finalizers(new).next().is_none() {
        vec![Op::Delete { key: key.clone() }]
    } else {
        let encoded = Encoded::new(new);
        vec![Op::PutWith { key: key.clone(), encode: Box::new(move |revision| encoded.at(revision)) }]
    };
    let compare = vec![Compare { key, mod_revision }];
    match store.txn(Txn { compare, ops }).await {
        Ok(TxnOutcome::Committed { .. }) => true,
        // Whoever changed it made an event that brings us here again.
        Ok(TxnOutcome::Conflict { .. }) => false,
        Err(error) => {
            tracing::error!(definition = meta::name(old), %error, "cannot write a definition's status");
            false
        }
    }
}

/// Deletes all instances and waits until the last one is gone, finalizers and all.
async fn remove_instances(server: &Weak<ApiServer>, store: &Store, definition: &Value) {
    let group = object::text(definition, "/spec/group");
    let plural = object::text(definition, "/spec/names/plural");
    let prefix = format!("{}{group}/{plural}/", keys::ROOT);
    let mut asked = false;
    loop {
        let Ok(left) = store.range(prefix.as_bytes(), None, 1, None) else { return };
        if left.items.is_empty() {
            return;
        }
        let Ok(mut changes) = store.watch(Bytes::from(prefix.clone()), Some(left.revision)) else { continue };
        if !asked {
            let Some(server) = server.upgrade() else { return };
            let Some(resource) = server.served.preferred(group, plural) else { return };
            asked = delete_all(&server, &resource).await;
        }
        if changes.next().await.is_err() {
            return;
        }
    }
}

async fn delete_all(server: &Arc<ApiServer>, resource: &Resource) -> bool {
    let path = format!("/apis/{}/{}/{}", resource.group, resource.version, resource.plural);
    let Ok(request) = Request::builder().method(Method::DELETE).uri(&path).body(Bytes::new()) else { return false };
    let reply = Box::pin(server.handle(Identity::in_process("system:apiserver"), request)).await;
    if !reply.status().is_success() {
        tracing::warn!(path, status = reply.status().as_u16(), "cannot delete the instances of a definition");
    }
    reply.status().is_success()
}

/// Takes the finalizer off, which lets the definition go.
async fn release(store: &Store, name: &str) {
    loop {
        let Some(found) = store.get(&keys::known(GROUP, PLURAL, "", name)) else { return };
        let old = object::decode(&found.value);
        let left: Vec<&str> = meta::finalizers(&old).filter(|own| *own != FINALIZER).collect();
        let mut new = old.clone();
        meta::set(&mut new, "finalizers", (!left.is_empty()).then(|| json!(left)));
        set_condition(&mut new, "Terminating", false, "InstanceDeletionCompleted", "removed all instances");
        if new == old || replace(store, &old, &new).await {
            return;
        }
        tokio::task::yield_now().await;
    }
}
