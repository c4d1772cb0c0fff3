//! Custom resources: what a CustomResourceDefinition says, turned into a [`Resource`] that the rest of this crate treats like
//! a built-in one.
//!
//! The API server calls [`resources`] for each accepted definition, and [`definition`] to judge the definitions themselves.
//! Invariant: pure; a definition that passed [`definition::validate`] always makes resources. CEL rules are kept as text
//! ([`Structural::rules`]): who compiles and runs them is the API server.

mod column;
mod default;
pub mod definition;
mod formats;
pub mod json_path;
pub mod names;
mod prune;
mod structural;
mod validate;

use crate::registry::{Resource, SubresourceInfo, Text};
use crate::schema::{ResourceSchema, Schema, StructuralError};
use serde_json::Value;
use std::sync::Arc;

pub use column::Column;
pub(crate) use column::{cells, definitions};
pub use formats::{go_duration, holds as has_format};
pub use structural::{Checks, ListKind, Rule, Structural, Type};

/// Everything about one version of a custom resource beyond its names.
#[derive(Debug)]
pub struct CustomSchema {
    /// Types and list kinds, for field management.
    pub fields: Schema,
    pub root: Structural,
    /// As the author wrote it, for OpenAPI.
    pub published: Value,
    pub columns: Vec<Column>,
    /// Paths that a field selector may name, without the leading dot.
    pub selectable: Vec<String>,
    pub scale: Option<ScalePaths>,
    pub deprecated: bool,
    /// What a client is told that uses a deprecated version; empty for Kubernetes' own words.
    pub deprecation_warning: String,
    /// Whether reading an old object may have to fill something in.
    pub has_defaults: bool,
}

/// Where the replicas of a custom resource are; JSON paths with a leading dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub label_selector: String,
}

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const PART_VERBS: [&str; 3] = ["get", "patch", "update"];

/// One resource for each served version, the most stable version first. Names are the definition's accepted ones where it
/// has any.
pub fn resources(definition: &Value) -> Result<Vec<Resource>, StructuralError> {
    let mut versions: Vec<&Value> =
        definition["spec"]["versions"].as_array().into_iter().flatten().filter(|v| v["served"] == true).collect();
    versions.sort_by(|a, b| names::compare_versions(text(a, "name"), text(b, "name")));
    versions.into_iter().map(|version| resource(definition, version)).collect()
}

/// The resource of the version in which objects are stored, served or not.
pub fn storage_resource(definition: &Value) -> Result<Option<Resource>, StructuralError> {
    let versions = definition["spec"]["versions"].as_array();
    versions.into_iter().flatten().find(|v| v["storage"] == true).map(|v| resource(definition, v)).transpose()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn owned(text: &str) -> Text {
    text.to_owned().into()
}

fn texts(value: &Value) -> Vec<Text> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(owned).collect()
}

fn resource(definition: &Value, version: &Value) -> Result<Resource, StructuralError> {
    let spec = &definition["spec"];
    let accepted = &definition["status"]["acceptedNames"];
    let names = if text(accepted, "plural").is_empty() { &spec["names"] } else { accepted };
    let (group, name) = (text(spec, "group"), text(version, "name"));
    let schema = &version["schema"]["openAPIV3Schema"];
    let type_name = names::openapi_name(group, name, text(names, "kind"));
    let scale = scale_paths(version);
    let custom = CustomSchema {
        fields: Schema::from_structural_named(schema, &type_name)?,
        root: Structural::parse(schema)?,
        published: schema.clone(),
        columns: column::columns(version),
        selectable: selectable(version),
        scale: scale.clone(),
        deprecated: version["deprecated"] == true,
        deprecation_warning: text(version, "deprecationWarning").to_owned(),
        has_defaults: mentions_default(schema),
    };
    let mut subresources = Vec::new();
    let verbs = || PART_VERBS.iter().map(|verb| Text::from(*verb)).collect::<Vec<_>>();
    if version["subresources"]["status"].is_object() {
        let kind = owned(text(names, "kind"));
        subresources.push(SubresourceInfo { name: "status".into(), kind, group_version: None, verbs: verbs() });
    }
    if scale.is_some() {
        let group_version = Some(("autoscaling".into(), "v1".into()));
        subresources.push(SubresourceInfo { name: "scale".into(), kind: "Scale".into(), group_version, verbs: verbs() });
    }
    Ok(Resource {
        group: owned(group),
        version: owned(name),
        kind: owned(text(names, "kind")),
        list_kind: owned(text(names, "listKind")),
        plural: owned(text(names, "plural")),
        singular: owned(text(names, "singular")),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        namespaced: text(spec, "scope") == "Namespaced",
        verbs: VERBS.iter().map(|verb| Text::from(*verb)).collect(),
        subresources,
        schema: ResourceSchema::Custom(Arc::new(custom)),
    })
}

fn scale_paths(version: &Value) -> Option<ScalePaths> {
    let scale = version["subresources"].get("scale").filter(|scale| scale.is_object())?;
    let path = |key: &str| text(scale, key).to_owned();
    Some(ScalePaths {
        spec_replicas: path("specReplicasPath"),
        status_replicas: path("statusReplicasPath"),
        label_selector: path("labelSelectorPath"),
    })
}

fn selectable(version: &Value) -> Vec<String> {
    let fields = version["selectableFields"].as_array();
    fields.into_iter().flatten().map(|f| text(f, "jsonPath").trim_start_matches('.').to_owned()).collect()
}

fn mentions_default(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => {
            fields.get("default").is_some_and(|value| !value.is_null()) || fields.values().any(mentions_default)
        }
        Value::Array(items) => items.iter().any(mentions_default),
        _ => false,
    }
}

/// Everything wrong with a value on its own; paths begin below it.
pub fn validate_value(schema: &Structural, value: &Value) -> Vec<crate::FieldError> {
    validate::value(schema, value)
}

/// Drops from a value what its schema does not name.
pub fn prune_value(schema: &Structural, value: &mut Value) {
    prune::value(schema, value);
}

impl Resource {
    /// What the definition says, if the resource is a custom one.
    pub fn custom(&self) -> Option<&CustomSchema> {
        match &self.schema {
            ResourceSchema::Custom(custom) => Some(custom),
            ResourceSchema::Builtin(_) | ResourceSchema::Open => None,
        }
    }

    /// `example.com/v1 CronTab is deprecated`, when a client that uses this version is to be warned.
    pub fn deprecation(&self) -> Option<String> {
        let custom = self.custom().filter(|custom| custom.deprecated)?;
        Some(match custom.deprecation_warning.as_str() {
            "" => format!("{}/{} {} is deprecated", self.group, self.version, self.kind),
            words => words.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
