//! ClusterRoles that are made of others: their rules are those of all roles that their selectors match.
//!
//! Called by the controller manager's shell. Invariants: the order is that of names, so that nothing changes without
//! cause; a role never takes from itself.

use crate::selection;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use std::sync::Arc;

/// The role with its new rules, if they change.
pub fn decide(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<ClusterRole> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let mut sources: Vec<&Arc<ClusterRole>> = all.iter().filter(|r| r.metadata.name != role.metadata.name).collect();
    sources.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors {
        for source in sources.iter().filter(|r| selection::matches(selector, r.metadata.labels.as_ref())) {
            for rule in source.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    (role.rules.as_deref().unwrap_or_default() != rules).then(|| ClusterRole { rules: Some(rules), ..role.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn an_aggregated_role_takes_the_rules_of_the_roles_that_it_selects() {
        let role = |value: Value| -> Arc<ClusterRole> { Arc::new(serde_json::from_value(value).unwrap()) };
        let rule = |resource: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]});
        let all = [
            role(json!({"metadata": {"name": "b", "labels": {"to": "view"}}, "rules": [rule("pods"), rule("nodes")]})),
            role(json!({"metadata": {"name": "a", "labels": {"to": "view"}}, "rules": [rule("pods")]})),
            role(json!({"metadata": {"name": "c"}, "rules": [rule("secrets")]})),
        ];
        let view = json!({"metadata": {"name": "view"}, "rules": [],
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "view"}}]}});
        let changed = decide(&role(view), &all).unwrap();
        let resources: Vec<String> =
            changed.rules.iter().flatten().flat_map(|r| r.resources.clone().unwrap()).collect();
        assert_eq!(resources, ["pods", "nodes"]);
        assert!(decide(&changed, &all).is_none());
        assert!(decide(&all[2], &all).is_none(), "an ordinary role is left alone");
    }
}
