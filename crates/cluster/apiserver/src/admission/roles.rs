//! Nobody grants more than they hold: writing a role needs its permissions or the verb `escalate`, writing a binding needs
//! the bound role's permissions or the verb `bind`.

use kube_types::{meta, status};
use serde_json::Value;

use crate::authz::rbac::Rule;
use crate::authz::{self, Attributes};
use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::{keys, object};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn check_escalation(call: &Call, target: &Target, new: &Value, old: Option<&Value>) -> ApiResult<()> {
    if call.user.is_master() {
        return Ok(());
    }
    let (rules, verb, resource, name) = match target.resource.plural.as_ref() {
        "roles" | "clusterroles" => {
            if old.is_some_and(|old| old["rules"] == new["rules"] && old["aggregationRule"] == new["aggregationRule"]) {
                return Ok(());
            }
            (Rule::all_of(new), "escalate", target.resource.plural.to_string(), meta::name(new).to_owned())
        }
        _ => {
            if old.is_some_and(|old| old["subjects"] == new["subjects"] && old["roleRef"] == new["roleRef"]) {
                return Ok(());
            }
            let (plural, namespace) = match object::text(new, "/roleRef/kind") {
                "Role" => ("roles", target.namespace.as_str()),
                _ => ("clusterroles", ""),
            };
            let name = object::text(new, "/roleRef/name").to_owned();
            let role = call.server.store.get(&keys::known(GROUP, plural, namespace, &name));
            let rules = role.map(|role| Rule::all_of(&object::decode(&role.value))).unwrap_or_default();
            (rules, "bind", plural.to_owned(), name)
        }
    };
    let may = Attributes {
        group: GROUP,
        resource: &resource,
        name: &name,
        namespace: &target.namespace,
        ..Attributes::verb(verb)
    };
    if authz::decide(&call.server, &call.user, &may) {
        return Ok(());
    }
    // An aggregated role can come to hold anything.
    let aggregates = new.pointer("/aggregationRule/clusterRoleSelectors").is_some();
    let missing: Vec<String> = rules
        .iter()
        .filter(|rule| !call.server.rbac.covers(&call.user, &target.namespace, rule))
        .map(Rule::describe)
        .collect();
    if missing.is_empty() && !aggregates {
        return Ok(());
    }
    let text = format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        call.user.name,
        call.user.groups,
        missing.join("\n")
    );
    Err(status::forbidden(&target.resource, meta::name(new), &text).into())
}
