use super::*;
use crate::registry::{Resource, find_by_gvr};
use proptest::prelude::*;
use serde_json::json;

fn pods() -> &'static Resource {
    find_by_gvr("", "v1", "pods").unwrap()
}

fn containers(items: Value) -> Value {
    json!({"spec": {"containers": items}})
}

#[test]
fn merge_patch_follows_the_examples_of_rfc_7386() {
    for (document, patch, expected) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ] {
        assert_eq!(merge(&document, &patch).unwrap(), expected);
    }
    assert_eq!(merge(&json!({}), &json!([])).unwrap_err().code(), 400);
}

#[test]
fn json_patch_applies_in_order_and_fails_whole() {
    let document = json!({"a": 1, "l": [1, 2]});
    let patch = json!([{"op": "test", "path": "/a", "value": 1}, {"op": "add", "path": "/l/-", "value": 3}, {"op": "remove", "path": "/a"}]);
    assert_eq!(json(&document, &patch).unwrap(), json!({"l": [1, 2, 3]}));
    let failing = json!([{"op": "remove", "path": "/a"}, {"op": "test", "path": "/l", "value": 0}]);
    assert_eq!(json(&document, &failing).unwrap_err().code(), 422);
    assert_eq!(json(&document, &json!({"op": "x"})).unwrap_err().code(), 400);
}

#[test]
fn json_patches_that_blow_up_are_refused() {
    let many = Value::Array(vec![json!({"op": "test", "path": "", "value": {}}); MAX_PLUS_ONE]);
    assert_eq!(json(&json!({}), &many).unwrap_err().code(), 413);
    let doubling =
        Value::Array((0..60).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/a/{n}")})).collect());
    assert_eq!(json(&json!({"a": {"x": "0123456789"}}), &doubling).unwrap_err().code(), 413);
}

const MAX_PLUS_ONE: usize = 10_001;

#[test]
fn strategic_merges_keyed_lists_by_their_key() {
    let live = containers(
        json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}], "args": ["p"]}, {"name": "b"}]),
    );
    for (patch, expected) in [
        (
            json!([{"name": "a", "image": "2"}]),
            json!([{"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}], "args": ["p"]}, {"name": "b"}]),
        ),
        (
            json!([{"name": "a", "args": ["q"], "env": [{"name": "Y", "value": "2"}]}]),
            json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}], "args": ["q"]}, {"name": "b"}]),
        ),
        (
            json!([{"name": "b", "$patch": "delete"}]),
            json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}], "args": ["p"]}]),
        ),
        (json!([{"$patch": "replace"}, {"name": "c"}]), json!([{"name": "c"}])),
        (
            json!([{"name": "a", "$patch": "delete"}, {"name": "c", "image": null}]),
            json!([{"name": "b"}, {"name": "c"}]),
        ),
    ] {
        assert_eq!(strategic(pods(), &live, &containers(patch.clone())).unwrap(), containers(expected), "{patch}");
    }
    assert_eq!(strategic(pods(), &live, &containers(json!([{"image": "x"}]))).unwrap_err().code(), 422);
}

#[test]
fn strategic_keeps_the_order_that_the_client_asks_for() {
    let live = containers(json!([{"name": "server"}, {"name": "a"}, {"name": "b"}]));
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "c"}], "containers": [{"name": "c", "image": "i"}]}});
    let merged = strategic(pods(), &live, &patch).unwrap();
    let names: Vec<&str> =
        merged["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["server", "b", "a", "c"]);
}

#[test]
fn strategic_deletes_from_plain_lists_and_honours_retain_keys() {
    let live = json!({"metadata": {"finalizers": ["a", "b"]}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}});
    assert_eq!(strategic(pods(), &live, &patch).unwrap(), json!({"metadata": {"finalizers": ["b", "c"]}}));
    let deployments = find_by_gvr("apps", "v1", "deployments").unwrap();
    let live = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(strategic(deployments, &live, &patch).unwrap(), json!({"spec": {"strategy": {"type": "Recreate"}}}));
}

#[test]
fn no_directive_stays_in_what_a_patch_adds() {
    let patch = json!({"spec": {"volumes": [{"$retainKeys": ["name", "emptyDir"], "name": "v", "emptyDir": {}}], "$setElementOrder/volumes": [{"name": "v"}]}});
    let merged = strategic(pods(), &json!({}), &patch).unwrap();
    assert_eq!(merged, json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::btree_map("[a-c]", inner, 0..3).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-c]", any_json(), 0..4).prop_map(|m| Value::Object(m.into_iter().collect()))
}

proptest! {
    #[test]
    fn merging_twice_is_merging_once(document in any_object(), patch in any_object()) {
        let once = merge(&document, &patch).unwrap();
        prop_assert_eq!(merge(&once, &patch).unwrap(), once);
    }

    #[test]
    fn an_empty_patch_changes_nothing(document in any_object()) {
        prop_assert_eq!(&merge(&document, &json!({})).unwrap(), &document);
        prop_assert_eq!(&strategic(pods(), &document, &json!({})).unwrap(), &document);
        prop_assert_eq!(&json(&document, &json!([])).unwrap(), &document);
    }
}
