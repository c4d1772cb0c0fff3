//! `pods/eviction`: a deletion that disruption budgets may refuse.

use http::StatusCode;
use kube_types::selector::LabelSelector;
use kube_types::{meta, status};
use serde_json::{Value, json};

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::handlers::{delete, get};
use crate::keys;
use crate::object::{self, text};
use crate::respond::{self, Reply};
use crate::write;

const POLICY: &str = "policy";

pub(super) async fn create(call: &Call, target: &Target) -> ApiResult<Reply> {
    let body = call.loose_body()?;
    let pod = object::decode(&get::find(call, target)?.value);
    let options = delete::Options::from_body(call, body.get("deleteOptions").unwrap_or(&Value::Null))?;
    if !is_finished(&pod) && !meta::is_being_deleted(&pod) {
        take_from_budget(call, target, &pod).await?;
    }
    delete::delete(call, target, &options).await?;
    let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(respond::json(StatusCode::CREATED, &success))
}

fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed" | "Pending")
}

/// Lowers `disruptionsAllowed` of the pod's budget, so that two evictions cannot both use the last one.
async fn take_from_budget(call: &Call, target: &Target, pod: &Value) -> ApiResult<()> {
    let Some(budgets) = call.server.served.find(POLICY, "v1", "poddisruptionbudgets") else {
        return Ok(());
    };
    let prefix = keys::prefix(&budgets, &target.namespace);
    let all = call.server.store.range(prefix.as_bytes(), None, 0, None)?.items;
    let mut covering = all.into_iter().filter_map(|found| {
        let budget = object::decode(&found.value);
        let selector = LabelSelector::from_value(&budget["spec"]["selector"]).ok()?;
        selector.matches_object(pod).then_some((found, budget))
    });
    let Some((found, mut budget)) = covering.next() else {
        return Ok(());
    };
    if covering.next().is_some() {
        return Err(status::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )
        .into());
    }
    let allowed = budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
    let refusal = "Cannot evict pod as it would violate the pod's disruption budget.";
    if allowed <= 0 {
        let mut refused = status::too_many_requests(refusal, 0);
        if let Some(details) = &mut refused.details {
            details.causes.push(status::Cause {
                reason: "DisruptionBudget".to_owned(),
                message: format!(
                    "The disruption budget {} needs {} healthy pods and has {} currently",
                    meta::name(&budget),
                    budget["status"]["desiredHealthy"].as_i64().unwrap_or(0),
                    budget["status"]["currentHealthy"].as_i64().unwrap_or(0)
                ),
                field: String::new(),
            });
        }
        return Err(refused.into());
    }
    budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
    // Until it is gone the budget's controller counts the pod as gone already.
    budget["status"]["disruptedPods"][meta::name(pod)] = kube_types::time::rfc3339(jiff::Timestamp::now()).into();
    let budget_target = Target {
        name: meta::name(&budget).to_owned(),
        subresource: "status".to_owned(),
        namespace: target.namespace.clone(),
        resource: budgets,
    };
    match write::replace(call, &budget_target, &found, &budget).await? {
        Some(_) => Ok(()),
        None => Err(status::too_many_requests(refusal, 10).into()),
    }
}
