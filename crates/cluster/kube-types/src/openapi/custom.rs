//! OpenAPI of custom resources: the definitions' schemas as their authors wrote them, with what every resource has.
//!
//! Called by the API server, which joins them to the built-in documents. OpenAPI 2 cannot say everything: what it lacks is
//! left out, so that kubectl's client-side validation lets through what the server decides.

use super::{Edition, META, add_paths, definitions, group_path, kind_of, list_definition, need_type};
use crate::registry::Resource;
use crate::schema::builtin;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The entry of one group and version in the index of OpenAPI 3. The hash changes with `stamp`.
pub fn v3_entry(group: &str, version: &str, stamp: u64) -> (String, Value) {
    let path = group_path(group, version);
    let hash = super::document_hash(&format!("{path}@{stamp}"));
    let entry = json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")});
    (path, entry)
}

/// The document of one group and version whose resources are all custom.
pub fn v3_custom(resources: &[&Resource]) -> Value {
    let mut paths = Map::new();
    resources.iter().for_each(|resource| add_paths(&mut paths, resource, Edition::V3));
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"},
        "paths": paths,
        "components": {"schemas": schemas(resources, Edition::V3)},
    })
}

/// Puts custom resources into the OpenAPI 2 document of the built-in ones.
pub fn join_v2(document: &mut Value, resources: &[&Resource]) {
    let mut paths = Map::new();
    resources.iter().for_each(|resource| add_paths(&mut paths, resource, Edition::V2));
    let added = schemas(resources, Edition::V2);
    for (key, more) in [("paths", paths), ("definitions", added)] {
        if let Some(all) = document[key].as_object_mut() {
            all.extend(more);
        }
    }
}

fn schemas(resources: &[&Resource], edition: Edition) -> Map<String, Value> {
    let mut all = Map::new();
    let mut needed = BTreeSet::new();
    let base = builtin();
    if let Some(found) = base.type_named(&format!("{META}.ObjectMeta")) {
        need_type(base, found, &mut needed);
    }
    if let Value::Object(shared) = definitions(&[], &needed, edition) {
        all.extend(shared);
    }
    for resource in resources {
        let (Some(custom), Some(root)) = (resource.custom(), resource.root().struct_type()) else { continue };
        all.insert(root.name.to_string(), root_schema(resource, &custom.published, edition));
        all.insert(format!("{}List", root.name), list_definition(resource, root, edition));
    }
    all
}

fn root_schema(resource: &Resource, published: &Value, edition: Edition) -> Value {
    let mut schema = match edition {
        Edition::V3 => published.clone(),
        Edition::V2 => in_v2(published),
    };
    let reference = edition.reference(&format!("{META}.ObjectMeta"));
    let metadata = match edition {
        Edition::V2 => json!({"description": METADATA, "$ref": reference}),
        Edition::V3 => json!({"description": METADATA, "allOf": [{"$ref": reference}]}),
    };
    if let Some(fields) = schema.as_object_mut() {
        let properties = fields.entry("properties").or_insert_with(|| json!({}));
        properties["apiVersion"] = json!({"type": "string", "description": API_VERSION});
        properties["kind"] = json!({"type": "string", "description": KIND});
        properties["metadata"] = metadata;
    }
    schema["x-kubernetes-group-version-kind"] =
        json!([kind_of(&resource.group, &resource.version, &resource.kind)]);
    schema
}

/// What of a schema can be said in OpenAPI 2.
fn in_v2(schema: &Value) -> Value {
    let Some(fields) = schema.as_object() else { return schema.clone() };
    let free = schema["nullable"] == true || schema["x-kubernetes-preserve-unknown-fields"] == true;
    let mut kept = Map::new();
    for (key, value) in fields {
        match key.as_str() {
            "nullable" | "oneOf" | "anyOf" | "allOf" | "not" | "default" | "x-kubernetes-validations" | "example" => {}
            // What may also be null, or anything, has no type here.
            "type" | "properties" | "items" | "additionalProperties" | "required" if free => {
                if key == "type" && schema["nullable"] != true {
                    kept.insert(key.clone(), value.clone());
                }
            }
            "properties" => {
                let inner = value.as_object().into_iter().flatten().map(|(name, child)| (name.clone(), in_v2(child)));
                kept.insert(key.clone(), Value::Object(inner.collect()));
            }
            "items" | "additionalProperties" if value.is_object() => {
                kept.insert(key.clone(), in_v2(value));
            }
            _ => {
                kept.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(kept)
}
