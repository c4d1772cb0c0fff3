//! The OpenAPI documents, made from the schema and the registry.
//!
//! Called by the API server, which caches the bytes by the hash that stands in the index. They carry what kubectl reads:
//! types with short descriptions (`explain`), merge keys and list types (`apply`, `edit`), the kinds that each path serves and
//! its `fieldValidation` parameter. They do not list every query parameter and response of every path.

mod custom;

use crate::registry::{self, Resource};
use crate::schema::{FieldDef, MergeBy, Node, Relation, Schema, Shape, TypeDef, builtin, descriptions};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use custom::{join_v2, v3_custom, v3_entry};

type Descriptions = HashMap<&'static str, (&'static str, HashMap<&'static str, &'static str>)>;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Where the documents differ between the two versions of OpenAPI.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edition {
    V2,
    V3,
}

impl Edition {
    fn reference(self, name: &str) -> String {
        match self {
            Edition::V2 => format!("#/definitions/{name}"),
            Edition::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

/// Body of `GET /openapi/v3`: `{"paths": {"apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=…"}}}`.
pub fn v3_index() -> Value {
    let mut paths = Map::new();
    for resource in registry::all() {
        let path = group_path(&resource.group, &resource.version);
        paths.entry(path.clone()).or_insert_with(|| {
            // The documents follow from the build alone, so its version serves as their hash.
            json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={}", document_hash(&path))})
        });
    }
    json!({"paths": paths})
}

/// FNV-1a of version and path: clients compare it, nothing else is asked of it.
fn document_hash(path: &str) -> String {
    let bytes = env!("CARGO_PKG_VERSION").bytes().chain(path.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016X}")
}

fn group_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Body of `GET /openapi/v3/apis/<group>/<version>` (`api/v1` for the core group); `None` if nothing is served there.
pub fn v3_document(group: &str, version: &str) -> Option<Value> {
    let served: Vec<&Resource> = registry::all().iter().filter(|r| r.group == group && r.version == version).collect();
    if served.is_empty() {
        return None;
    }
    let (paths, definitions) = parts(&served, Edition::V3);
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "components": {"schemas": definitions},
    }))
}

/// Body of `GET /openapi/v2`.
pub fn v2() -> Value {
    let served: Vec<&Resource> = registry::all().iter().collect();
    let (paths, definitions) = parts(&served, Edition::V2);
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "definitions": definitions,
    })
}

fn parts(served: &[&Resource], edition: Edition) -> (Value, Value) {
    let mut paths = Map::new();
    for resource in served {
        add_paths(&mut paths, resource, edition);
    }
    (Value::Object(paths), definitions(served, &BTreeSet::new(), edition))
}

/// All types that the resources need and `extra` names, with the lists of the resources' kinds.
fn definitions(served: &[&Resource], extra: &BTreeSet<&str>, edition: Edition) -> Value {
    let words = descriptions();
    let mut kinds: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let mut needed: BTreeSet<&str> = extra.clone();
    let mut lists = Vec::new();
    for resource in served {
        let Some(found) = resource.root().struct_type() else {
            continue;
        };
        kinds.entry(&found.name).or_default().push(kind_of(&resource.group, &resource.version, &resource.kind));
        need(resource.root(), &mut needed);
        if !resource.list_kind.is_empty() {
            lists.push((resource, found));
        }
    }
    let schema = builtin();
    for extra in ["DeleteOptions", "Status", "ListMeta", "WatchEvent", "APIResourceList"] {
        if let Some(found) = schema.type_named(&format!("{META}.{extra}")) {
            need_type(schema, found, &mut needed);
        }
    }
    let mut all = Map::new();
    for name in needed {
        if let Some(found) = schema.type_named(name) {
            let mut made = definition(schema, found, &words, edition);
            if let Some(kinds) = kinds.get(name) {
                made["x-kubernetes-group-version-kind"] = kinds.clone().into();
            }
            all.insert(name.to_owned(), made);
        }
    }
    for (resource, item) in lists {
        all.insert(format!("{}List", item.name), list_definition(resource, item, edition));
    }
    Value::Object(all)
}

fn kind_of(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn need<'s>(node: Node<'s>, needed: &mut BTreeSet<&'s str>) {
    match node.shape {
        Shape::List(_) => need(node.element(), needed),
        Shape::Map(_) => need(node.child_or_any(""), needed),
        Shape::Struct { .. } => {
            if let Some(found) = node.struct_type() {
                need_fields(node, found, needed);
            }
        }
        _ => {}
    }
}

fn need_type<'s>(schema: &'s Schema, found: &'s TypeDef, needed: &mut BTreeSet<&'s str>) {
    if needed.insert(&found.name) {
        for field in &found.fields {
            need(schema.node(&field.shape), needed);
        }
    }
}

fn need_fields<'s>(node: Node<'s>, found: &'s TypeDef, needed: &mut BTreeSet<&'s str>) {
    if needed.insert(&found.name) {
        for field in &found.fields {
            need(node.child_or_any(&field.name), needed);
        }
    }
}

fn definition(schema: &Schema, found: &TypeDef, words: &Descriptions, edition: Edition) -> Value {
    let (own, fields) = words.get(found.name.as_ref()).map_or(("", None), |(own, fields)| (*own, Some(fields)));
    let mut properties = Map::new();
    for field in &found.fields {
        let mut made = property(schema, field, edition);
        if let Some(text) = fields.and_then(|f| f.get(field.name.as_ref())) {
            made["description"] = (*text).into();
        }
        properties.insert(field.name.to_string(), made);
    }
    let mut made = json!({"description": own, "type": "object"});
    if !properties.is_empty() {
        made["properties"] = Value::Object(properties);
    }
    let required: Vec<&str> = found.fields.iter().filter(|f| f.required).map(|f| f.name.as_ref()).collect();
    if !required.is_empty() {
        made["required"] = json!(required);
    }
    if found.atomic {
        made["x-kubernetes-map-type"] = "atomic".into();
    }
    made
}

fn property(schema: &Schema, field: &FieldDef, edition: Edition) -> Value {
    let mut made = typed(schema.node(&field.shape), edition);
    if let Some(default) = &field.default {
        made["default"] = default.as_ref().into();
    }
    match &field.shape {
        Shape::List(list) => {
            match &list.relation {
                Relation::Atomic => made["x-kubernetes-list-type"] = "atomic".into(),
                Relation::Set => made["x-kubernetes-list-type"] = "set".into(),
                Relation::Map(keys) => {
                    made["x-kubernetes-list-type"] = "map".into();
                    made["x-kubernetes-list-map-keys"] = keys.iter().map(AsRef::as_ref).collect::<Vec<&str>>().into();
                }
            }
            if let Some(merge) = &list.merge {
                made["x-kubernetes-patch-strategy"] =
                    if field.retain_keys { "merge,retainKeys" } else { "merge" }.into();
                if let MergeBy::Key(key) = merge {
                    made["x-kubernetes-patch-merge-key"] = key.as_ref().into();
                }
            }
        }
        Shape::Map(map) if map.atomic => made["x-kubernetes-map-type"] = "atomic".into(),
        Shape::Struct { .. } if field.retain_keys => made["x-kubernetes-patch-strategy"] = "retainKeys".into(),
        _ => {}
    }
    made
}

fn typed(node: Node<'_>, edition: Edition) -> Value {
    match node.shape {
        Shape::String => json!({"type": "string"}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Int32 => json!({"type": "integer", "format": "int32"}),
        Shape::Int64 => json!({"type": "integer", "format": "int64"}),
        Shape::Number => json!({"type": "number", "format": "double"}),
        Shape::Bytes => json!({"type": "string", "format": "byte"}),
        Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time"}),
        Shape::Quantity if edition == Edition::V3 => {
            json!({"oneOf": [{"type": "string"}, {"type": "number"}]})
        }
        // kubectl's client-side validation knows this pair by these names.
        Shape::Quantity => json!({"type": "string", "x-kubernetes-int-or-string": true}),
        Shape::IntOrString if edition == Edition::V3 => {
            json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"})
        }
        Shape::IntOrString => json!({"type": "string", "format": "int-or-string"}),
        Shape::Object => json!({"type": "object"}),
        Shape::Any => json!({"x-kubernetes-preserve-unknown-fields": true}),
        Shape::List(_) => json!({"type": "array", "items": typed(node.element(), edition)}),
        Shape::Map(_) => {
            json!({"type": "object", "additionalProperties": typed(node.child_or_any(""), edition)})
        }
        Shape::Struct { .. } => {
            let reference = edition.reference(node.struct_type().map_or("", |t| t.name.as_ref()));
            match edition {
                Edition::V2 => json!({"$ref": reference}),
                // Beside a $ref nothing else counts in 3.0, hence the wrapping.
                Edition::V3 => json!({"allOf": [{"$ref": reference}]}),
            }
        }
    }
}

fn list_definition(resource: &Resource, item: &TypeDef, edition: Edition) -> Value {
    let text = json!({"type": "string"});
    let items = json!({"type": "array", "items": {"$ref": edition.reference(&item.name)}});
    json!({
        "description": format!("{} is a list of {}.", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {"apiVersion": text, "kind": text, "items": items, "metadata": {"$ref": edition.reference(&format!("{META}.ListMeta"))}},
        "x-kubernetes-group-version-kind": [kind_of(&resource.group, &resource.version, &resource.list_kind)],
    })
}

fn add_paths(paths: &mut Map<String, Value>, resource: &Resource, edition: Edition) {
    let base = format!("/{}", group_path(&resource.group, &resource.version));
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{base}{scope}/{}", resource.plural);
    let of_collection =
        [("get", "list", "list"), ("post", "create", "post"), ("delete", "deletecollection", "deletecollection")];
    let of_object =
        [("get", "get", "get"), ("put", "update", "put"), ("patch", "patch", "patch"), ("delete", "delete", "delete")];
    add_path(paths, resource, collection.clone(), &of_collection, edition);
    add_path(paths, resource, format!("{collection}/{{name}}"), &of_object, edition);
    if resource.namespaced && resource.has_verb("list") {
        add_path(paths, resource, format!("{base}/{}", resource.plural), &of_collection[..1], edition);
    }
}

/// (method, verb, action) of each operation that the resource allows.
fn add_path(
    paths: &mut Map<String, Value>,
    resource: &Resource,
    path: String,
    operations: &[(&str, &str, &str)],
    edition: Edition,
) {
    let mut item = Map::new();
    for (method, verb, action) in operations {
        if resource.has_verb(verb) {
            item.insert((*method).to_owned(), operation(resource, action, edition));
        }
    }
    if item.is_empty() {
        return;
    }
    let in_path: Vec<Value> = ["namespace", "name"]
        .into_iter()
        .filter(|name| path.contains(&format!("{{{name}}}")))
        .map(|name| parameter(name, "path", true, edition))
        .collect();
    if !in_path.is_empty() {
        item.insert("parameters".to_owned(), in_path.into());
    }
    paths.insert(path, Value::Object(item));
}

fn parameter(name: &str, place: &str, required: bool, edition: Edition) -> Value {
    let mut made = json!({"name": name, "in": place});
    if required {
        made["required"] = true.into();
    }
    match edition {
        Edition::V2 => made["type"] = "string".into(),
        Edition::V3 => made["schema"] = json!({"type": "string"}),
    }
    made
}

fn operation(resource: &Resource, action: &str, edition: Edition) -> Value {
    const JSON: &str = "application/json";
    let type_name = resource.root().struct_type().map_or("", |t| t.name.as_ref());
    let mut made = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind_of(&resource.group, &resource.version, &resource.kind),
    });
    let (result, body): (String, Option<(String, &[&str])>) = match action {
        "list" => (format!("{type_name}List"), None),
        "post" | "put" => (type_name.to_owned(), Some((type_name.to_owned(), &[JSON]))),
        "patch" => {
            let kinds: &[&str] = &[
                "application/apply-patch+yaml",
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ];
            let kinds = if resource.custom().is_some() { &kinds[..3] } else { kinds };
            (type_name.to_owned(), Some((String::new(), kinds)))
        }
        "delete" | "deletecollection" => (format!("{META}.Status"), Some((format!("{META}.DeleteOptions"), &[JSON]))),
        _ => (type_name.to_owned(), None),
    };
    let mut parameters = Vec::new();
    if matches!(action, "post" | "put" | "patch") {
        // kubectl looks for this one before it leaves field validation to the server.
        parameters
            .extend(["dryRun", "fieldManager", "fieldValidation"].map(|name| parameter(name, "query", false, edition)));
    }
    if let Some((name, media_types)) = body {
        let schema =
            if name.is_empty() { json!({"type": "object"}) } else { json!({"$ref": edition.reference(&name)}) };
        match edition {
            Edition::V2 => {
                made["consumes"] = json!(media_types);
                parameters.push(json!({"name": "body", "in": "body", "schema": schema}));
            }
            Edition::V3 => {
                let content: Map<String, Value> =
                    media_types.iter().map(|kind| ((*kind).to_owned(), json!({"schema": schema}))).collect();
                made["requestBody"] = json!({"content": content});
            }
        }
    }
    if !parameters.is_empty() {
        made["parameters"] = parameters.into();
    }
    let schema = json!({"$ref": edition.reference(&result)});
    made["responses"] = match edition {
        Edition::V2 => json!({"200": {"description": "OK", "schema": schema}}),
        Edition::V3 => json!({"200": {"description": "OK", "content": {JSON: {"schema": schema}}}}),
    };
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` in the document.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (key, child) in fields {
                    match (key.as_str(), child) {
                        ("$ref", Value::String(target)) => {
                            found.insert(target.clone());
                        }
                        _ => references(child, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_listed_document_is_there_and_its_references_resolve() {
        let index = v3_index();
        for path in index["paths"].as_object().unwrap().keys() {
            let mut parts = path.trim_start_matches("apis/").trim_start_matches("api/").split('/').rev();
            let (version, group) = (parts.next().unwrap(), parts.next().unwrap_or(""));
            let document = v3_document(group, version).unwrap_or_else(|| panic!("{path}"));
            let mut found = BTreeSet::new();
            references(&document, &mut found);
            for target in found {
                assert!(document.pointer(&target[1..]).is_some(), "{path}: {target}");
            }
        }
        assert!(v3_document("nosuch", "v1").is_none());
    }

    #[test]
    fn v2_resolves_and_carries_merge_keys() {
        let document = v2();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for target in found {
            assert!(document.pointer(&target[1..]).is_some(), "{target}");
        }
        let containers = &document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    }

    #[test]
    fn kubectl_finds_field_validation_and_patch_types_for_a_deployment() {
        let document = v3_document("apps", "v1").unwrap();
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
        assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
        let kind =
            &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"][0];
        assert_eq!(kind, &json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
    }
}
