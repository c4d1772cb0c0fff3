use super::*;
use crate::field::FieldError;
use serde_json::json;

fn crontab(schema: Value) -> Value {
    json!({
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList", "shortNames": ["ct"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

fn made(schema: Value) -> Resource {
    resources(&crontab(schema)).unwrap().remove(0)
}

fn spec_schema(properties: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}})
}

fn problems(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<String> {
    resource.custom().unwrap().validate(object, old).iter().map(ToString::to_string).collect()
}

#[test]
fn values_are_refused_in_kubernetes_words() {
    let resource = made(spec_schema(json!({
        "cronSpec": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
        "mode": {"type": "string", "enum": ["slow", "fast"]},
        "port": {"x-kubernetes-int-or-string": true},
        "tags": {"type": "array", "maxItems": 2, "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "either": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                   "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
    })));
    let of = |spec: Value| problems(&resource, &json!({"spec": spec}), None);
    for (spec, expected) in [
        (
            json!({"cronSpec": "A"}),
            "spec.cronSpec: Invalid value: \"A\": spec.cronSpec in body should match '^[a-z]+$'",
        ),
        (json!({"cronSpec": "abcdefg"}), "spec.cronSpec: Too long: may not be more than 5 bytes"),
        (
            json!({"cronSpec": 1}),
            "spec.cronSpec: Invalid value: \"integer\": spec.cronSpec in body must be of type string: \"integer\"",
        ),
        (
            json!({"replicas": 0}),
            "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1",
        ),
        (
            json!({"replicas": 11}),
            "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
        ),
        (
            json!({"replicas": "1"}),
            "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
        ),
        (json!({"mode": "idle"}), "spec.mode: Unsupported value: \"idle\": supported values: \"slow\", \"fast\""),
        (
            json!({"port": true}),
            "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
        ),
        (json!({"tags": ["a", "a"]}), "spec.tags[1]: Duplicate value: \"a\""),
        (json!({"tags": ["a", "b", "c"]}), "spec.tags: Too many: 3: must have at most 2 items"),
        (
            json!({"either": {"a": "1", "b": "2"}}),
            "spec.either: Invalid value: \"\": \"spec.either\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
    ] {
        assert_eq!(of(spec.clone()), [expected], "{spec}");
    }
    assert_eq!(
        of(json!({"cronSpec": "abc", "replicas": 3, "port": "http", "tags": ["a"], "either": {"a": "1"}})),
        [""; 0]
    );
}

#[test]
fn what_an_update_leaves_alone_is_not_judged_again() {
    let resource = made(spec_schema(json!({
        "a": {"type": "string", "maxLength": 2},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                 "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "v": {"type": "integer", "maximum": 3}}}},
        "b": {"type": "string"},
    })));
    let old = json!({"spec": {"a": "long", "b": "x", "list": [{"name": "one", "v": 9}]}});
    let mut new = old.clone();
    new["spec"]["b"] = "y".into();
    new["spec"]["list"] = json!([{"name": "two", "v": 1}, {"name": "one", "v": 9}]);
    assert_eq!(problems(&resource, &new, Some(&old)), [""; 0]);
    new["spec"]["a"] = "longer".into();
    assert_eq!(problems(&resource, &new, Some(&old)), ["spec.a: Too long: may not be more than 2 bytes"]);
}

#[test]
fn unknown_fields_and_nulls_go_and_defaults_come() {
    let resource = made(spec_schema(json!({
        "replicas": {"type": "integer", "default": 1},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "object", "properties": {"x": {"type": "string"}}}}},
        "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"on": {"type": "boolean", "default": true}}}},
        "gone": {"type": "string"},
        "kept": {"type": "string", "nullable": true},
    })));
    let custom = resource.custom().unwrap();
    let mut object = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"}, "extra": 1, "spec": {
        "replicas": null, "unknown": 1, "gone": null, "kept": null,
        "open": {"any": 1, "known": {"x": "1", "y": "2"}},
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"z": 1}, "status": {}},
        "map": {"k": {}},
    }});
    let reports = custom.prune(&mut object);
    custom.default(&mut object);
    assert_eq!(
        object["spec"],
        json!({
            "replicas": 1, "kept": null, "open": {"any": 1, "known": {"x": "1"}},
            "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}},
            "map": {"k": {"on": true}},
        })
    );
    for unknown in ["extra", "spec.unknown", "spec.open.known.y", "spec.template.spec.z", "spec.template.status"] {
        assert!(reports.contains(&format!("unknown field {unknown:?}")), "{unknown}: {reports:?}");
    }
    let once = object.clone();
    custom.default(&mut object);
    assert_eq!(object, once);
}

#[test]
fn definitions_that_are_not_structural_are_refused() {
    let of = |schema: Value| -> Vec<String> {
        definition::validate(&crontab(schema)).iter().map(FieldError::to_string).collect()
    };
    let at = "spec.versions[0].schema.openAPIV3Schema";
    assert_eq!(of(spec_schema(json!({"a": {"type": "string"}}))), [""; 0]);
    assert_eq!(
        of(json!({"type": "string"})),
        [format!("{at}.type: Invalid value: \"string\": must be object at the root")]
    );
    assert_eq!(
        of(json!({"type": "object", "properties": {"a": {}}})),
        [format!("{at}.properties[a].type: Required value: must not be empty for specified object fields")]
    );
    assert_eq!(
        of(json!({"type": "object", "properties": {"a": {"type": "array"}}})),
        [format!("{at}.properties[a].items: Required value: must be specified")]
    );
    assert_eq!(
        of(json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}})),
        [format!(
            "{at}.properties[a].default: Invalid value: \"string\":  in body must be of type integer: \"string\""
        )]
    );
    let keyed = json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}});
    assert_eq!(
        of(json!({"type": "object", "properties": {"a": keyed}})),
        [format!(
            "{at}.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"
        )]
    );
    let mut deep = json!({"type": "string"});
    for _ in 0..80 {
        deep = json!({"type": "object", "properties": {"a": deep}});
    }
    assert!(of(deep)[0].contains("nested too deep"));
}

#[test]
fn a_definition_needs_one_storage_version_and_its_own_name() {
    let mut definition = crontab(json!({"type": "object"}));
    definition["spec"]["versions"][0]["storage"] = false.into();
    definition["metadata"]["name"] = "other".into();
    let errors: Vec<String> = definition::validate(&definition).iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "metadata.name: Invalid value: \"other\": must be spec.names.plural+\".\"+spec.group",
            "spec.versions: Invalid value: \"v1\": must have exactly one version marked as storage version",
        ]
    );
}

#[test]
fn columns_show_what_their_paths_find() {
    let mut definition = crontab(json!({"type": "object"}));
    definition["spec"]["versions"][0]["additionalPrinterColumns"] = json!([
        {"name": "Spec", "type": "string", "jsonPath": ".spec.cron"},
        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    let resource = resources(&definition).unwrap().remove(0);
    let now = crate::time::parse("2024-01-01T00:01:00Z").unwrap();
    let object = json!({"metadata": {"name": "a", "creationTimestamp": "2024-01-01T00:00:00Z"}, "spec": {"cron": "* *", "replicas": 2}});
    let table = crate::table::render(&resource, &[&object], now, crate::table::IncludeObject::None);
    assert_eq!(table["rows"][0]["cells"], json!(["a", "* *", 2, "60s"]));
    assert_eq!(table["columnDefinitions"][2]["priority"], 1);
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
            "[a-z:/.0-9-]{0,12}".prop_map(Value::from),
        ];
        let key =
            prop_oneof![Just("spec"), Just("a"), Just("list"), Just("map"), Just("name"), Just("metadata"), Just("x")];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_comes_pruning_and_defaulting_end_and_do_nothing_twice(spec in any_json()) {
            let resource = made(spec_schema(json!({
                "a": {"type": "integer", "default": 3, "multipleOf": 3},
                "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                         "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "format": "date-time"}, "a": {"type": "string", "default": "d"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "nullable": true, "properties": {"x": {"x-kubernetes-int-or-string": true}}}},
            })));
            let custom = resource.custom().unwrap();
            let mut object = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "spec": spec});
            custom.prune(&mut object);
            custom.default(&mut object);
            let once = object.clone();
            prop_assert!(custom.prune(&mut object).is_empty());
            custom.default(&mut object);
            prop_assert_eq!(&object, &once);
            let _ = custom.validate(&object, None);
            prop_assert!(custom.validate(&object, Some(&once)).is_empty(), "what did not change is not judged");
            let _ = crate::table::render(&resource, &[&object], jiff::Timestamp::UNIX_EPOCH, crate::table::IncludeObject::None);
        }
    }
}
