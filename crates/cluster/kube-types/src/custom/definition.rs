//! Whether a CustomResourceDefinition is one: names, versions, structural schemas, columns, selectable fields.
//!
//! Called by the API server when a definition is written. What it lets through always parses ([`super::resources`]). CEL rules
//! are compiled by the API server, which adds its own errors.

use super::{Structural, json_path, names, text};
use crate::field::FieldError;
use crate::names as words;
use serde_json::Value;
use std::collections::BTreeSet;

type Errors = Vec<FieldError>;

/// Group suffixes that need an approval annotation.
const PROTECTED: [&str; 2] = ["k8s.io", "kubernetes.io"];
const APPROVAL: &str = "api-approved.kubernetes.io";
const MAX_SELECTABLE: usize = 8;

/// Everything wrong with a definition by itself.
pub fn validate(definition: &Value) -> Errors {
    let mut errors = Errors::new();
    let spec = &definition["spec"];
    let wanted = format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group"));
    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
    if name != wanted {
        errors.push(FieldError::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    group(definition, &mut errors);
    scope(spec, &mut errors);
    names_of(&spec["names"], "spec.names", &mut errors);
    versions(spec, &mut errors);
    conversion(&spec["conversion"], &mut errors);
    if spec["preserveUnknownFields"] == true {
        errors.push(FieldError::invalid(
            "spec.preserveUnknownFields",
            true,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
    errors
}

fn group(definition: &Value, errors: &mut Errors) {
    let group = text(&definition["spec"], "group");
    let path = "spec.group";
    if group.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if let Some(problem) = words::dns1123_subdomain(group).into_iter().next() {
        errors.push(FieldError::invalid(path, group, problem));
    } else if group.split('.').count() < 2 {
        errors.push(FieldError::invalid(path, group, "should be a domain with at least one dot"));
    }
    let protected = PROTECTED.iter().any(|suffix| group == *suffix || group.ends_with(&format!(".{suffix}")));
    let approved = definition["metadata"]["annotations"][APPROVAL].as_str().unwrap_or_default();
    if protected && approved.is_empty() {
        errors.push(FieldError::required(
            format!("metadata.annotations[{APPROVAL}]"),
            format!(
                "protected groups must have approval annotation {APPROVAL:?}, see https://github.com/kubernetes/enhancements/pull/1111"
            ),
        ));
    }
}

fn scope(spec: &Value, errors: &mut Errors) {
    match text(spec, "scope") {
        "Cluster" | "Namespaced" => {}
        "" => errors.push(FieldError::required("spec.scope", "")),
        other => errors.push(FieldError::not_supported("spec.scope", other, &["Cluster", "Namespaced"])),
    }
}

fn names_of(names: &Value, path: &str, errors: &mut Errors) {
    for key in ["plural", "singular", "kind", "listKind"] {
        let name = text(names, key);
        let place = format!("{path}.{key}");
        if name.is_empty() {
            errors.push(FieldError::required(place, ""));
            continue;
        }
        let is_kind = key.to_lowercase().ends_with("kind");
        let problems = words::dns1035_label(&if is_kind { name.to_lowercase() } else { name.to_owned() });
        if !problems.is_empty() {
            let hint = if is_kind { "may have mixed case, but should otherwise match: " } else { "" };
            errors.push(FieldError::invalid(place, name, format!("{hint}{}", problems.join(","))));
        }
    }
    for key in ["shortNames", "categories"] {
        for (at, name) in names[key].as_array().into_iter().flatten().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let problems = words::dns1035_label(name);
            if !problems.is_empty() {
                errors.push(FieldError::invalid(format!("{path}.{key}[{at}]"), name, problems.join(",")));
            }
        }
    }
    let kind = text(names, "kind");
    if !kind.is_empty() && kind == text(names, "listKind") {
        errors.push(FieldError::invalid(format!("{path}.listKind"), kind, "kind and listKind may not be the same"));
    }
}

fn versions(spec: &Value, errors: &mut Errors) {
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    if versions.is_empty() {
        errors.push(FieldError::required("spec.versions", "must have at least one version"));
        return;
    }
    let mut seen = BTreeSet::new();
    for (at, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{at}]");
        let name = text(version, "name");
        for problem in words::dns1035_label(name) {
            errors.push(FieldError::invalid(format!("{path}.name"), name, problem));
        }
        if !seen.insert(name) {
            let all: Vec<&str> = versions.iter().map(|v| text(v, "name")).collect();
            errors.push(FieldError::invalid("spec.versions", all.join(","), "must contain unique version names"));
        }
        schema(version, &path, errors);
        columns(version, &path, errors);
        subresources(version, &path, errors);
        selectable(version, &path, errors);
    }
    let storage = versions.iter().filter(|version| version["storage"] == true).count();
    if storage != 1 {
        let all: Vec<&str> = versions.iter().map(|v| text(v, "name")).collect();
        errors.push(FieldError::invalid(
            "spec.versions",
            all.join(","),
            "must have exactly one version marked as storage version",
        ));
    }
}

fn schema(version: &Value, path: &str, errors: &mut Errors) {
    let path = format!("{path}.schema.openAPIV3Schema");
    let Some(schema) = version["schema"].get("openAPIV3Schema").filter(|schema| schema.is_object()) else {
        errors.push(FieldError::required(path, "schemas are required"));
        return;
    };
    let before = errors.len();
    match text(schema, "type") {
        "object" => {}
        "" => errors.push(FieldError::required(format!("{path}.type"), "must not be empty at the root")),
        other => errors.push(FieldError::invalid(format!("{path}.type"), other, "must be object at the root")),
    }
    if schema["nullable"] == true {
        errors.push(FieldError::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    if version["subresources"]["status"].is_object() {
        let allowed = ["type", "properties", "required", "description", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations"];
        if schema.as_object().into_iter().flatten().any(|(key, _)| !allowed.contains(&key.as_str())) {
            let words = format!("only {allowed:?} fields are allowed at the root of the schema if the status subresource is enabled");
            errors.push(FieldError::invalid(&path, "", words.replace('"', "")));
        }
    }
    structure(schema, &path, Place::Root, errors);
    if errors.len() == before
        && let Err(error) = Structural::parse(schema)
    {
        errors.push(FieldError::invalid(path, error.path.clone(), format!("error building validator: {error}")));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
    Value,
    /// Below allOf, anyOf, oneOf, not.
    Junctor,
}

const UNSUPPORTED: [(&str, &str); 7] = [
    ("id", "id is not supported"),
    ("additionalItems", "additionalItems is not supported"),
    ("patternProperties", "patternProperties is not supported"),
    ("definitions", "definitions is not supported"),
    ("dependencies", "dependencies is not supported"),
    ("$ref", "$ref is not supported"),
    ("$schema", "$schema is not supported"),
];

/// The rules of structural schemas.
fn structure(schema: &Value, path: &str, place: Place, errors: &mut Errors) {
    let has = |key: &str| schema.get(key).is_some_and(|value| !value.is_null() && *value != false);
    for (key, problem) in UNSUPPORTED {
        if has(key) {
            errors.push(FieldError::forbidden(format!("{path}.{key}"), problem));
        }
    }
    if schema["uniqueItems"] == true {
        errors.push(FieldError::forbidden(
            format!("{path}.uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    if has("properties") && schema["properties"].as_object().is_some_and(|p| !p.is_empty()) && has("additionalProperties") {
        errors.push(FieldError::forbidden(
            format!("{path}.additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        ));
    }
    if place == Place::Junctor {
        in_junctor(schema, path, errors);
    } else {
        typed(schema, path, place, errors);
        lists_and_maps(schema, path, errors);
    }
    children(schema, path, place, errors);
}

fn children(schema: &Value, path: &str, place: Place, errors: &mut Errors) {
    let below = |inner: Place| if place == Place::Junctor { Place::Junctor } else { inner };
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        structure(child, &format!("{path}.properties[{name}]"), below(Place::Field), errors);
    }
    if let Some(child) = schema.get("additionalProperties").filter(|child| child.is_object()) {
        structure(child, &format!("{path}.additionalProperties"), below(Place::Value), errors);
    }
    match schema.get("items") {
        Some(Value::Array(_)) => errors.push(FieldError::forbidden(
            format!("{path}.items"),
            "items must be a schema object and not an array",
        )),
        Some(child @ Value::Object(_)) => structure(child, &format!("{path}.items"), below(Place::Item), errors),
        _ => {}
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (at, child) in schema[key].as_array().into_iter().flatten().enumerate() {
            structure(child, &format!("{path}.{key}[{at}]"), Place::Junctor, errors);
        }
    }
    if let Some(child) = schema.get("not").filter(|child| child.is_object()) {
        structure(child, &format!("{path}.not"), Place::Junctor, errors);
    }
}

/// Inside a junctor stand value rules only.
fn in_junctor(schema: &Value, path: &str, errors: &mut Errors) {
    for key in ["type", "description", "default", "nullable", "additionalProperties", "title"] {
        // The one exception: int-or-string is spelled as anyOf of types.
        let int_or_string = key == "type" && matches!(text(schema, "type"), "integer" | "string");
        if schema.get(key).is_some_and(|value| !value.is_null() && *value != false) && !int_or_string {
            errors.push(FieldError::forbidden(format!("{path}.{key}"), "must be empty to be structural"));
        }
    }
    for key in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string"] {
        if schema[key] == true {
            errors.push(FieldError::forbidden(format!("{path}.{key}"), "must be false to be structural"));
        }
    }
}

fn typed(schema: &Value, path: &str, place: Place, errors: &mut Errors) {
    let flag = |key: &str| schema[key] == true;
    let kind = text(schema, "type");
    let (preserve, embedded, either) = (
        flag("x-kubernetes-preserve-unknown-fields"),
        flag("x-kubernetes-embedded-resource"),
        flag("x-kubernetes-int-or-string"),
    );
    if kind.is_empty() && !preserve && !either {
        let what = match place {
            Place::Field => "for specified object fields",
            Place::Item => "for specified array items",
            Place::Value => "for specified object fields",
            Place::Root | Place::Junctor => "",
        };
        if !what.is_empty() {
            errors.push(FieldError::required(format!("{path}.type"), format!("must not be empty {what}")));
        }
    }
    match kind {
        "" | "object" | "array" | "string" | "integer" | "number" | "boolean" => {}
        "null" => errors.push(FieldError::forbidden(format!("{path}.type"), "type cannot be set to null, use nullable as an alternative")),
        other => errors.push(FieldError::not_supported(
            format!("{path}.type"),
            other,
            &["array", "boolean", "integer", "number", "object", "string"],
        )),
    }
    if either && !kind.is_empty() {
        errors.push(FieldError::invalid(
            format!("{path}.type"),
            kind,
            "must be empty if x-kubernetes-int-or-string is true",
        ));
    }
    if embedded && kind != "object" {
        errors.push(FieldError::invalid(
            format!("{path}.type"),
            kind,
            "must be object if x-kubernetes-embedded-resource is true",
        ));
    }
    if preserve && !kind.is_empty() && kind != "object" && place != Place::Root {
        errors.push(FieldError::invalid(
            format!("{path}.type"),
            kind,
            "must be object if x-kubernetes-preserve-unknown-fields is true",
        ));
    }
    if embedded && !preserve && schema["properties"].as_object().is_none_or(serde_json::Map::is_empty) {
        errors.push(FieldError::required(
            format!("{path}.properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
    if kind == "array" && !schema["items"].is_object() && !schema["items"].is_array() {
        errors.push(FieldError::required(format!("{path}.items"), "must be specified"));
    }
    if schema["additionalProperties"] == false {
        errors.push(FieldError::forbidden(format!("{path}.additionalProperties"), "must not be false"));
    }
    default(schema, path, errors);
}

/// A default has to be a valid value itself.
fn default(schema: &Value, path: &str, errors: &mut Errors) {
    let Some(value) = schema.get("default").filter(|value| !value.is_null()) else { return };
    let Ok(parsed) = Structural::parse(schema) else { return };
    let custom = super::validate_value(&parsed, value);
    for error in custom {
        let inner = if error.path.is_empty() { String::new() } else { format!(".{}", error.path) };
        errors.push(FieldError { path: format!("{path}.default{inner}"), ..error });
    }
    let mut pruned = value.clone();
    super::prune_value(&parsed, &mut pruned);
    if pruned != *value {
        errors.push(FieldError::invalid(format!("{path}.default"), value.clone(), "must not have unknown fields"));
    }
}

fn lists_and_maps(schema: &Value, path: &str, errors: &mut Errors) {
    let list = text(schema, "x-kubernetes-list-type");
    let keys = schema["x-kubernetes-list-map-keys"].as_array().map_or(&[][..], Vec::as_slice);
    let at = |key: &str| format!("{path}.{key}");
    if !list.is_empty() && text(schema, "type") != "array" {
        errors.push(FieldError::invalid(at("type"), text(schema, "type"), "must be array if x-kubernetes-list-type is specified"));
    }
    match list {
        "" | "atomic" | "set" | "map" => {}
        other => errors.push(FieldError::not_supported(at("x-kubernetes-list-type"), other, &["atomic", "set", "map"])),
    }
    let map = text(schema, "x-kubernetes-map-type");
    if !matches!(map, "" | "atomic" | "granular") {
        errors.push(FieldError::not_supported(at("x-kubernetes-map-type"), map, &["atomic", "granular"]));
    }
    if list != "map" {
        if !keys.is_empty() {
            errors.push(FieldError::invalid(at("x-kubernetes-list-type"), list, "must be map if x-kubernetes-list-map-keys is non-empty"));
        }
        return;
    }
    if keys.is_empty() {
        errors.push(FieldError::required(
            at("x-kubernetes-list-map-keys"),
            "must not be empty if x-kubernetes-list-type is map",
        ));
    }
    let items = &schema["items"];
    for key in keys.iter().filter_map(Value::as_str) {
        let property = &items["properties"][key];
        if !property.is_object() {
            errors.push(FieldError::invalid(at("x-kubernetes-list-map-keys"), key, "must be a property in items"));
            continue;
        }
        let required = items["required"].as_array().into_iter().flatten().any(|name| name == key);
        if !required && property.get("default").is_none_or(Value::is_null) {
            errors.push(FieldError::required(
                at(&format!("items.properties[{key}].default")),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ));
        }
    }
}

fn columns(version: &Value, path: &str, errors: &mut Errors) {
    for (at, column) in version["additionalPrinterColumns"].as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}.additionalPrinterColumns[{at}]");
        if text(column, "name").is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        }
        let kinds = ["boolean", "date", "integer", "number", "string"];
        match text(column, "type") {
            "" => errors.push(FieldError::required(format!("{path}.type"), "must be one of boolean,date,integer,number,string")),
            kind if !kinds.contains(&kind) => {
                errors.push(FieldError::invalid(format!("{path}.type"), kind, "must be one of boolean,date,integer,number,string"));
            }
            _ => {}
        }
        let json = text(column, "jsonPath");
        if json.is_empty() {
            errors.push(FieldError::required(format!("{path}.jsonPath"), ""));
        } else if !json.starts_with('.') {
            errors.push(FieldError::invalid(format!("{path}.jsonPath"), json, "must be a simple json path starting with ."));
        } else if !json_path::is_valid(json) {
            errors.push(FieldError::invalid(format!("{path}.jsonPath"), json, "must be a json path"));
        }
    }
}

fn subresources(version: &Value, path: &str, errors: &mut Errors) {
    let Some(scale) = version["subresources"].get("scale").filter(|scale| scale.is_object()) else { return };
    for (key, root, needed) in [
        ("specReplicasPath", ".spec.", true),
        ("statusReplicasPath", ".status.", true),
        ("labelSelectorPath", ".", false),
    ] {
        let place = format!("{path}.subresources.scale.{key}");
        match text(scale, key) {
            "" if needed => errors.push(FieldError::required(place, "")),
            "" => {}
            given if !given.starts_with('.') => {
                errors.push(FieldError::invalid(place, given, "must be a simple json path starting with ."));
            }
            given if !given.starts_with(root) => {
                errors.push(FieldError::invalid(place, given, format!("should be a json path under {}", root.trim_end_matches('.'))));
            }
            _ => {}
        }
    }
}

fn selectable(version: &Value, path: &str, errors: &mut Errors) {
    let fields = version["selectableFields"].as_array().map_or(&[][..], Vec::as_slice);
    if fields.len() > MAX_SELECTABLE {
        errors.push(FieldError::too_many(format!("{path}.selectableFields"), fields.len(), MAX_SELECTABLE));
    }
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut seen = BTreeSet::new();
    for (at, field) in fields.iter().enumerate() {
        let place = format!("{path}.selectableFields[{at}].jsonPath");
        let given = text(field, "jsonPath");
        if given.is_empty() {
            errors.push(FieldError::required(place, ""));
            continue;
        }
        if !seen.insert(given) {
            errors.push(FieldError::duplicate(place.clone(), given));
        }
        let keys: Vec<&str> = given.trim_start_matches('.').split('.').collect();
        let found = keys.iter().try_fold(schema, |schema, key| schema["properties"].get(*key));
        match found.map(|found| text(found, "type")) {
            Some("string" | "boolean" | "integer") if !matches!(keys[0], "metadata") => {}
            Some(kind) if keys[0] != "metadata" => errors.push(FieldError::invalid(
                place,
                given,
                format!("must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed. Type is {kind:?}"),
            )),
            Some(_) => errors.push(FieldError::invalid(place, given, "must not point to fields in metadata")),
            None => errors.push(FieldError::invalid(place, given, "is an invalid path: does not refer to a valid field")),
        }
    }
}

fn conversion(conversion: &Value, errors: &mut Errors) {
    match text(conversion, "strategy") {
        "" | "None" => {
            if conversion["webhook"].is_object() {
                errors.push(FieldError::forbidden(
                    "spec.conversion.webhookClientConfig",
                    "should not be set when strategy is not set to Webhook",
                ));
            }
        }
        "Webhook" => {
            let webhook = &conversion["webhook"];
            let client = &webhook["clientConfig"];
            if !client.is_object() {
                errors.push(FieldError::required(
                    "spec.conversion.webhookClientConfig",
                    "required when strategy is set to Webhook",
                ));
            } else if client["url"].is_string() == client["service"].is_object() {
                errors.push(FieldError::required(
                    "spec.conversion.webhookClientConfig",
                    "exactly one of url or service is required",
                ));
            }
            let reviews = webhook["conversionReviewVersions"].as_array().map_or(&[][..], Vec::as_slice);
            if reviews.is_empty() {
                errors.push(FieldError::required("spec.conversion.conversionReviewVersions", ""));
            } else if !reviews.iter().any(|version| version == "v1" || version == "v1beta1") {
                errors.push(FieldError::invalid(
                    "spec.conversion.conversionReviewVersions",
                    Value::from(reviews.to_vec()),
                    "must include at least one of v1, v1beta1",
                ));
            }
        }
        other => errors.push(FieldError::not_supported("spec.conversion.strategy", other, &["None", "Webhook"])),
    }
}

/// What a definition may not change.
pub fn validate_change(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let mut fixed = |path: &str| {
        let pointer = format!("/{}", path.replace('.', "/"));
        let (now, then) = (new.pointer(&pointer), old.pointer(&pointer));
        if now != then {
            errors.push(FieldError::invalid(path, now.cloned().unwrap_or_default(), "field is immutable"));
        }
    };
    if names::condition(old, "Established") == Some("True") {
        fixed("spec.scope");
        fixed("spec.names.kind");
    }
    fixed("spec.group");
    fixed("spec.names.plural");
    let versions: Vec<&str> =
        new["spec"]["versions"].as_array().into_iter().flatten().map(|version| text(version, "name")).collect();
    for (at, stored) in new["status"]["storedVersions"].as_array().into_iter().flatten().enumerate() {
        let stored = stored.as_str().unwrap_or_default();
        if !versions.contains(&stored) {
            errors.push(FieldError::invalid(format!("status.storedVersions[{at}]"), stored, "must appear in spec.versions"));
        }
    }
    errors
}
