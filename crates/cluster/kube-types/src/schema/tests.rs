use super::*;
use crate::registry;
use serde_json::json;

#[test]
fn every_registered_resource_has_a_schema_with_metadata() {
    // What is computed (metrics of nodes and pods) is never written, so nothing needs its fields.
    for resource in registry::all().iter().filter(|resource| resource.group != "metrics.k8s.io") {
        let ResourceSchema::Builtin(name) = resource.schema else { panic!("{} has no built-in schema", resource.kind) };
        let found = builtin().type_named(name).unwrap_or_else(|| panic!("no type {name}"));
        assert!(found.field("metadata").is_some(), "{name}");
        assert_eq!(found.short_name(), resource.kind);
    }
}

#[test]
fn types_are_sorted_and_references_resolve() {
    let types = builtin().types();
    assert!(types.is_sorted_by(|a, b| a.name < b.name));
    let pod = registry::find_by_gvr("", "v1", "pods").unwrap();
    let containers = pod.root().child("spec").unwrap().child("containers").unwrap();
    assert_eq!(containers.list().unwrap().relation, Relation::Map(vec!["name".into()]));
    let ports = containers.element().child("ports").unwrap();
    assert_eq!(ports.list().unwrap().merge, Some(MergeBy::Key("containerPort".into())));
    assert_eq!(ports.element().default_of("protocol"), Some("TCP"));
    assert!(containers.element().child("nosuch").is_none());
}

#[test]
fn structural_schema_keeps_list_types_and_builtin_metadata() {
    let schema = Schema::from_structural(&json!({
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer", "format": "int32"},
                "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                          "items": {"type": "object", "properties": {"id": {"type": "string"}}}},
            }},
        },
    }))
    .unwrap();
    let spec = schema.root().child("spec").unwrap();
    assert!(matches!(spec.child("size").unwrap().shape, Shape::Int32));
    assert_eq!(spec.child("items").unwrap().list().unwrap().relation, Relation::Map(vec!["id".into()]));
    let finalizers = schema.root().child("metadata").unwrap().child("finalizers").unwrap();
    assert_eq!(finalizers.list().unwrap().relation, Relation::Set);
}

#[test]
fn structural_schema_nested_without_end_is_refused() {
    let mut schema = json!({"type": "string"});
    for _ in 0..80 {
        schema = json!({"type": "object", "properties": {"a": schema}});
    }
    assert_eq!(Schema::from_structural(&schema).unwrap_err().problem, "is nested too deep");
}
