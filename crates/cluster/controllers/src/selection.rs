//! Matching labels against selectors, typed and without allocation: this runs for every pod of a namespace.
//!
//! A selector that makes no sense (an unknown operator) matches nothing: the API server refuses such, so this is only
//! the safe side of an impossible case.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

pub type Labels = BTreeMap<String, String>;

/// An empty selector matches everything, as in the API.
pub fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let value = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
    let equal = selector.match_labels.iter().flatten().all(|(key, want)| value(key) == Some(want));
    equal
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let found = value(&requirement.key);
            let listed = |v: &str| requirement.values.iter().flatten().any(|w| w == v);
            match requirement.operator.as_str() {
                "In" => found.is_some_and(listed),
                "NotIn" => !found.is_some_and(listed),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

/// A Service's selector: an empty one matches nothing.
pub fn matches_map(selector: &Labels, labels: Option<&Labels>) -> bool {
    !selector.is_empty()
        && labels.is_some_and(|labels| selector.iter().all(|(key, value)| labels.get(key) == Some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_match_as_the_api_says() {
        let labels: Labels = [("app".to_owned(), "web".to_owned())].into();
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false),
            (json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["web"]}]}), true),
            (json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}), false),
            (json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "Nonsense"}]}), false),
        ] {
            let typed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(matches(&typed, Some(&labels)), expected, "{selector}");
        }
        assert!(!matches_map(&Labels::new(), Some(&labels)), "a service without a selector has no pods");
    }
}
