//! Label selectors and node selector terms, as scheduling uses them.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

pub type Labels = BTreeMap<String, String>;

/// An absent selector matches nothing, an empty one everything.
pub(crate) fn matches(selector: Option<&LabelSelector>, labels: Option<&Labels>) -> bool {
    let Some(selector) = selector else {
        return false;
    };
    let value = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
    let equal = selector.match_labels.iter().flatten().all(|(k, want)| value(k) == Some(want));
    let expressions = selector.match_expressions.iter().flatten();
    equal && expressions.into_iter().all(|e| holds(&e.operator, value(&e.key), e.values.as_deref()))
}

fn holds(operator: &str, found: Option<&str>, values: Option<&[String]>) -> bool {
    let listed = |v: &str| values.unwrap_or_default().iter().any(|w| w == v);
    let compared = |wanted: std::cmp::Ordering| {
        let bound = values.unwrap_or_default().first().and_then(|v| v.parse::<i64>().ok());
        let number = found.and_then(|v| v.parse::<i64>().ok());
        number.zip(bound).is_some_and(|(number, bound)| number.cmp(&bound) == wanted)
    };
    match operator {
        "In" => found.is_some_and(listed),
        "NotIn" => !found.is_some_and(listed),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compared(std::cmp::Ordering::Greater),
        "Lt" => compared(std::cmp::Ordering::Less),
        _ => false,
    }
}

/// One of the terms has to hold; within a term, everything. A term that says nothing matches no node.
pub(crate) fn node_matches_any<'a>(terms: impl IntoIterator<Item = &'a NodeSelectorTerm>, node: &Node) -> bool {
    terms.into_iter().any(|term| node_matches(term, node))
}

pub(crate) fn node_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(node.metadata.name.as_deref()).flatten();
    let all = |list: &[NodeSelectorRequirement], value: &dyn Fn(&str) -> Option<String>| {
        list.iter().all(|r| holds(&r.operator, value(&r.key).as_deref(), r.values.as_deref()))
    };
    all(expressions, &|k| label(k).map(str::to_owned)) && all(fields, &|k| field(k).map(str::to_owned))
}
