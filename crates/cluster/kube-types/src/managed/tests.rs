use super::*;
use crate::registry::find_by_gvr;
use proptest::prelude::*;
use serde_json::json;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn deployments() -> &'static Resource {
    find_by_gvr("apps", "v1", "deployments").unwrap()
}

fn apply_as(manager: &str, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, ApplyError> {
    apply(deployments(), live, config, manager, force, Subresource::Main, at(1))
}

fn web(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries.iter().find(|e| e["manager"] == manager).map_or(Value::Null, |e| e["fieldsV1"].clone())
}

#[test]
fn the_first_apply_owns_what_it_names() {
    let config =
        web(json!({"replicas": 3, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
        {"name": "a", "image": "i", "ports": [{"containerPort": 80}]}]}}}));
    let created = apply_as("me", None, &config, false).unwrap();
    assert_eq!(
        owned(&created, "me"),
        json!({"f:spec": {"f:replicas": {}, "f:template": {
            "f:metadata": {"f:labels": {"f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}},
        }}})
    );
    assert_eq!(created["metadata"]["managedFields"][0]["operation"], "Apply");
}

#[test]
fn a_field_of_another_manager_is_a_conflict_in_kubernetes_words() {
    let mut live = web(json!({"replicas": 3, "paused": true}));
    record_update(deployments(), None, &mut live, "x", Subresource::Main, at(0));
    let config = web(json!({"replicas": 5, "paused": true}));
    let error = apply_as("me", Some(&live), &config, false).unwrap_err();
    assert_eq!(error.to_string(), r#"Apply failed with 1 conflict: conflict with "x" using apps/v1: .spec.replicas"#);
    let both = web(json!({"replicas": 5, "paused": false}));
    assert_eq!(
        apply_as("me", Some(&live), &both, false).unwrap_err().to_string(),
        "Apply failed with 2 conflicts: conflicts with \"x\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
    );
    let forced = apply_as("me", Some(&live), &config, true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 5);
    assert_eq!(owned(&forced, "x"), json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(owned(&forced, "me"), json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}));
}

#[test]
fn what_is_no_longer_applied_goes_unless_another_owns_it() {
    let config = web(
        json!({"replicas": 3, "paused": true, "template": {"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]}}}),
    );
    let live = apply_as("me", None, &config, false).unwrap();
    let live = apply_as("you", Some(&live), &web(json!({"paused": true})), false).unwrap();
    let less = web(json!({"template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}}));
    let after = apply_as("me", Some(&live), &less, false).unwrap();
    assert_eq!(
        after["spec"],
        json!({"paused": true, "template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}})
    );
    assert_eq!(after["metadata"]["name"], "web");
}

#[test]
fn an_update_takes_ownership_of_what_it_changes_and_of_nothing_else() {
    let live = apply_as("me", None, &web(json!({"replicas": 3, "paused": true})), false).unwrap();
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = 5.into();
    record_update(deployments(), Some(&live), &mut scaled, "hpa", Subresource::Named("scale"), at(2));
    assert_eq!(owned(&scaled, "me"), json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(owned(&scaled, "hpa"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(scaled["metadata"]["managedFields"][1]["subresource"], "scale");
    let error = apply_as("me", Some(&scaled), &web(json!({"replicas": 3, "paused": true})), false).unwrap_err();
    assert!(error.to_string().contains(r#""hpa" with subresource "scale" using apps/v1"#), "{error}");
}

#[test]
fn a_write_that_changes_nothing_changes_no_time() {
    let mut live = web(json!({"replicas": 3}));
    record_update(deployments(), None, &mut live, "x", Subresource::Main, at(0));
    let mut again = live.clone();
    record_update(deployments(), Some(&live), &mut again, "x", Subresource::Main, at(9));
    assert_eq!(again, live);
    record_update(deployments(), Some(&live), &mut again, "y", Subresource::Main, at(9));
    assert_eq!(again, live);
}

#[test]
fn sets_and_atomic_lists_merge_by_their_kind() {
    let pods = find_by_gvr("", "v1", "pods").unwrap();
    let first = json!({"metadata": {"name": "p", "finalizers": ["a/x"]}, "spec": {"tolerations": [{"key": "k"}]}});
    let live = apply(pods, None, &first, "one", false, Subresource::Main, at(0)).unwrap();
    let second = json!({"metadata": {"name": "p", "finalizers": ["b/y"]}});
    let both = apply(pods, Some(&live), &second, "two", false, Subresource::Main, at(1)).unwrap();
    assert_eq!(both["metadata"]["finalizers"], json!(["a/x", "b/y"]));
    let third = json!({"metadata": {"name": "p"}, "spec": {"tolerations": [{"key": "other"}]}});
    let error = apply(pods, Some(&both), &third, "two", false, Subresource::Main, at(1)).unwrap_err();
    assert_eq!(error.to_string(), r#"Apply failed with 1 conflict: conflict with "one": .spec.tolerations"#);
}

#[test]
fn an_object_that_nobody_recorded_is_not_taken_over_unasked() {
    let live = web(json!({"replicas": 3}));
    let error = apply_as("me", Some(&live), &web(json!({"replicas": 4})), false).unwrap_err();
    assert!(error.to_string().contains(r#""before-first-apply" using apps/v1: .spec.replicas"#), "{error}");
}

#[test]
fn configurations_that_cannot_merge_are_refused() {
    let containers = |list: Value| web(json!({"template": {"spec": {"containers": list}}}));
    for (config, expected) in [
        (containers(json!([{"name": "a"}, {"name": "a"}])), "duplicate entries"),
        (containers(json!([{"image": "a"}])), "omits key field \"name\""),
        (json!({"metadata": {"managedFields": [{}]}}), "managedFields must be nil"),
    ] {
        let error = apply_as("me", None, &config, false).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn many_updaters_share_an_entry() {
    let mut live = web(json!({}));
    for n in 0..14 {
        let mut next = live.clone();
        next["metadata"]["annotations"][format!("a{n}")] = "x".into();
        record_update(deployments(), Some(&live), &mut next, &format!("m{n}"), Subresource::Main, at(n));
        live = next;
    }
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    assert!(entries.iter().any(|e| e["manager"] == "ancient-changes"));
}

fn any_config() -> impl Strategy<Value = Value> {
    let container = ("[ab]", proptest::option::of("[ij]")).prop_map(|(name, image)| match image {
        Some(image) => json!({"name": name, "image": image}),
        None => json!({"name": name}),
    });
    let containers = proptest::collection::vec(container, 0..3).prop_map(|mut list| {
        list.dedup_by(|a, b| a["name"] == b["name"]);
        if list.len() == 3 {
            list.truncate(1);
        }
        list
    });
    (proptest::option::of(0i32..3), proptest::collection::btree_map("[xyz]", "[01]", 0..3), containers).prop_map(
        |(replicas, labels, containers)| {
            let mut object =
                web(json!({"template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}));
            if let Some(replicas) = replicas {
                object["spec"]["replicas"] = replicas.into();
            }
            object
        },
    )
}

proptest! {
    #[test]
    fn applying_the_same_again_changes_nothing(first in any_config(), second in any_config()) {
        let live = apply_as("me", None, &first, false).unwrap();
        let live = apply_as("you", Some(&live), &second, true).unwrap();
        let again = apply(deployments(), Some(&live), &second, "you", false, Subresource::Main, at(99)).unwrap();
        prop_assert_eq!(again, live);
    }

    #[test]
    fn a_sole_applier_gets_just_what_it_applied_last(first in any_config(), second in any_config()) {
        let live = apply_as("me", None, &first, false).unwrap();
        let mut after = apply_as("me", Some(&live), &second, false).unwrap();
        meta::set(&mut after, "managedFields", None);
        prop_assert_eq!(after, second);
    }
}
