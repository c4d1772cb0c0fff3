//! `status.typeChecking` of ValidatingAdmissionPolicies: what of their expressions does not fit the kinds they are about.
//!
//! One task follows the policies. Such findings are warnings in the status and refuse nothing, for a policy may know better
//! than the schema. Kinds that a rule names by a wildcard are not looked at, as in Kubernetes.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use cel::{Environment, Field, ObjectType, Program, Type};
use kube_types::schema::{Node, Shape};
use kube_types::{Resource, meta};
use serde_json::{Value, json};
use store::{Compare, EventKind, Op, Store, Txn};
use tokio::task::AbortHandle;

use super::{admit, expressions};
use crate::keys;
use crate::object::{self, Encoded, text};
use crate::server::ApiServer;

const PLURAL: &str = "validatingadmissionpolicies";
/// Types that contain themselves are opaque from here on.
const MAX_DEPTH: usize = 14;
const MAX_KINDS: usize = 10;

/// Follows the policies until the server is dropped.
pub(crate) fn follow(server: &Arc<ApiServer>) -> AbortHandle {
    tokio::spawn(run(Arc::downgrade(server), server.store.clone())).abort_handle()
}

async fn run(server: Weak<ApiServer>, store: Store) {
    let prefix = format!("{}{}/{PLURAL}/", keys::ROOT, admit::GROUP);
    loop {
        let Ok(range) = store.range(prefix.as_bytes(), None, 0, None) else { return };
        for item in &range.items {
            review(&server, &store, &object::decode(&item.value)).await;
        }
        let Ok(mut changes) = store.watch(Bytes::from(prefix.clone()), Some(range.revision)) else { continue };
        while let Ok(event) = changes.next().await {
            if let EventKind::Put { value, .. } = &event.kind {
                review(&server, &store, &object::decode(&value.value)).await;
            }
        }
        if server.strong_count() == 0 {
            return;
        }
    }
}

/// Checks a policy whose present generation was not checked yet.
async fn review(server: &Weak<ApiServer>, store: &Store, policy: &Value) {
    let generation = meta::generation(policy);
    if policy["status"]["observedGeneration"] == generation {
        return;
    }
    let Some(server) = server.upgrade() else { return };
    let mut new = policy.clone();
    let warnings = check(&server, policy);
    let mut checked = json!({});
    if !warnings.is_empty() {
        checked["expressionWarnings"] = warnings.into();
    }
    new["status"] = json!({"observedGeneration": generation, "typeChecking": checked});
    let key = keys::known(admit::GROUP, PLURAL, "", meta::name(policy));
    let Ok(mod_revision) = meta::resource_version(policy).parse() else { return };
    let encoded = Encoded::new(&new);
    let ops = vec![Op::PutWith { key: key.clone(), encode: Box::new(move |revision| encoded.at(revision)) }];
    // Who changed it meanwhile makes an event that brings us here again.
    if let Err(error) = store.txn(Txn { compare: vec![Compare { key, mod_revision }], ops }).await {
        tracing::warn!(policy = meta::name(policy), %error, "cannot write a policy's status");
    }
}

fn check(server: &ApiServer, policy: &Value) -> Vec<Value> {
    let kinds = kinds(server, &policy["spec"]["matchConstraints"]["resourceRules"]);
    let types: Vec<(String, Type)> = kinds
        .iter()
        .map(|resource| (format!("{}, Kind={}", resource.api_version(), resource.kind), of_resource(resource)))
        .collect();
    let mut warnings = Vec::new();
    for (at, validation) in policy["spec"]["validations"].as_array().into_iter().flatten().enumerate() {
        for field in ["expression", "messageExpression"] {
            let source = text(validation, &format!("/{field}"));
            if source.is_empty() {
                continue;
            }
            let found: Vec<String> = types
                .iter()
                .filter_map(|(kind, object)| {
                    let environment = environment(policy, object);
                    let error = Program::compile(source, &environment).err()?;
                    Some(format!("{kind}: {}", error.0))
                })
                .collect();
            if !found.is_empty() {
                warnings.push(json!({
                    "fieldRef": format!("spec.validations[{at}].{field}"), "warning": found.join("\n"),
                }));
            }
        }
    }
    warnings
}

fn environment(policy: &Value, object: &Type) -> Environment {
    let mut environment = expressions::environment(policy["spec"]["paramKind"].is_object());
    environment.declare("object", object.clone());
    environment.declare("oldObject", object.clone());
    environment.declare("variables", Type::Dyn);
    environment
}

/// The kinds that the rules name outright.
fn kinds(server: &ApiServer, rules: &Value) -> Vec<Arc<Resource>> {
    let mut found: Vec<Arc<Resource>> = Vec::new();
    let list = |rule: &Value, key: &str| -> Vec<String> {
        rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    for rule in rules.as_array().into_iter().flatten() {
        for group in list(rule, "apiGroups") {
            for version in list(rule, "apiVersions") {
                for plural in list(rule, "resources") {
                    found.extend(server.served.find(&group, &version, &plural));
                }
            }
        }
    }
    found.truncate(MAX_KINDS);
    found
}

fn of_resource(resource: &Resource) -> Type {
    of_node(resource.root(), 0)
}

fn of_node(node: Node<'_>, depth: usize) -> Type {
    if depth > MAX_DEPTH {
        return Type::Dyn;
    }
    match node.shape {
        Shape::String => Type::string(),
        Shape::Bool => Type::Bool,
        Shape::Int32 | Shape::Int64 => Type::Int,
        Shape::Number => Type::Double,
        Shape::Time | Shape::MicroTime => Type::Timestamp,
        Shape::Bytes | Shape::Quantity | Shape::IntOrString | Shape::Object | Shape::Any => Type::Dyn,
        Shape::List(_) => Type::list(of_node(node.element(), depth + 1)),
        Shape::Map(_) => Type::map(Type::string(), of_node(node.child_or_any(""), depth + 1)),
        Shape::Struct { .. } => {
            let Some(found) = node.struct_type() else { return Type::Dyn };
            let mut fields = BTreeMap::new();
            for field in &found.fields {
                if let Some(name) = cel::escape(&field.name) {
                    let kind = of_node(node.child_or_any(&field.name), depth + 1);
                    fields.insert(name, Field { json: field.name.to_string(), kind });
                }
            }
            Type::Object(Arc::new(ObjectType { name: String::new(), fields, open: found.preserve_unknown }))
        }
    }
}
