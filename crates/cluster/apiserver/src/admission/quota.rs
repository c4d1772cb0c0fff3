//! ResourceQuota: nothing is made that its namespace has no room for.
//!
//! Invariant: what an object uses is added to each quota's `status.used` in the object's own transaction, guarded by the quota's
//! revision, so writers at once cannot use the same room twice. Giving room back is the quota controller's, which counts again.

use kube_types::quantity::{self, Quantity};
use kube_types::usage::{self, Usage};
use kube_types::{meta, status};
use serde_json::{Value, json};
use store::{Compare, KeyValue, Op};

use super::Effects;
use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::object::{self, Encoded};
use crate::keys;

/// `old` is what an update replaces: only what grows is asked for.
pub(super) fn charge(
    call: &Call,
    target: &Target,
    old: Option<&Value>,
    new: &Value,
    effects: &mut Effects,
) -> ApiResult<()> {
    if !target.resource.namespaced {
        return Ok(());
    }
    let quotas = call.server.store.range(&keys::known("", "resourcequotas", &target.namespace, ""), None, 0, None)?.items;
    if quotas.is_empty() {
        return Ok(());
    }
    let mut wanted = usage::of(&target.resource, new);
    if let Some(old) = old {
        let before = usage::of(&target.resource, old);
        for (name, amount) in &mut wanted {
            *amount -= before.get(name).copied().unwrap_or(Quantity::ZERO);
        }
    }
    wanted.retain(|_, amount| !amount.is_negative() && !amount.is_zero());
    if wanted.is_empty() {
        return Ok(());
    }
    for found in quotas {
        one(call, target, old.is_none(), new, &wanted, &found, effects)?;
    }
    Ok(())
}

fn one(
    call: &Call,
    target: &Target,
    is_new: bool,
    object: &Value,
    wanted: &Usage,
    found: &KeyValue,
    effects: &mut Effects,
) -> ApiResult<()> {
    let mut quota = object::decode(&found.value);
    if !usage::in_scope(&quota["spec"], &target.resource, object) {
        return Ok(());
    }
    let hard = parse(&quota["spec"]["hard"]);
    let touched: Vec<&String> = wanted.keys().filter(|name| hard.contains_key(*name)).collect();
    let name = meta::name(&quota).to_owned();
    let refuse = |text: String| status::forbidden(&target.resource, meta::name(object), &text);
    if is_new
        && target.is("", "pods")
        && let Some(missing) = usage::unstated(object, &quota["spec"]["hard"])
    {
        return Err(refuse(format!("failed quota: {name}: {missing}")).into());
    }
    if touched.is_empty() {
        return Ok(());
    }
    let mut used = match &quota["status"]["used"] {
        counted @ Value::Object(_) if quota["status"]["hard"] == quota["spec"]["hard"] => parse(counted),
        // The controller has not counted yet (or for other limits): counted here.
        _ => count(call, target, &quota["spec"])?,
    };
    let exceeded: Vec<&String> = touched
        .iter()
        .copied()
        .filter(|name| used.get(*name).copied().unwrap_or(Quantity::ZERO) + wanted[*name] > hard[*name])
        .collect();
    if !exceeded.is_empty() {
        return Err(refuse(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            usage::pretty(wanted, exceeded.iter().copied()),
            usage::pretty(&used, exceeded.iter().copied()),
            usage::pretty(&hard, exceeded.iter().copied())
        ))
        .into());
    }
    for name in touched {
        let own = used.entry(name.clone()).or_insert(Quantity::ZERO);
        *own += wanted[name];
    }
    used.retain(|name, _| hard.contains_key(name));
    quota["status"] = json!({"hard": quota["spec"]["hard"], "used": shown(&used)});
    let encoded = Encoded::new(&quota);
    effects.compare.push(Compare { key: found.key.clone(), mod_revision: found.mod_revision });
    effects.ops.push(Op::PutWith { key: found.key.clone(), encode: Box::new(move |revision| encoded.at(revision)) });
    Ok(())
}

fn parse(map: &Value) -> Usage {
    let map = map.as_object().into_iter().flatten();
    map.filter_map(|(name, text)| Some((name.clone(), quantity::parse(text.as_str()?).ok()?))).collect()
}

fn shown(usage: &Usage) -> Value {
    usage.iter().map(|(name, amount)| (name.clone(), Value::from(amount.to_string()))).collect::<serde_json::Map<_, _>>().into()
}

/// What the namespace uses now, of the resources that the quota limits.
fn count(call: &Call, target: &Target, spec: &Value) -> ApiResult<Usage> {
    let mut total: Usage = parse(&spec["hard"]).into_keys().map(|name| (name, Quantity::ZERO)).collect();
    for resource in call.server.served.all().iter().filter(|resource| resource.namespaced && resource.is_stored()) {
        let items = call.server.store.range(keys::prefix(resource, &target.namespace).as_bytes(), None, 0, None)?.items;
        for item in items {
            let object = object::decode(&item.value);
            if !usage::in_scope(spec, resource, &object) {
                continue;
            }
            for (name, amount) in usage::of(resource, &object) {
                if let Some(own) = total.get_mut(&name) {
                    *own += amount;
                }
            }
        }
    }
    Ok(total)
}
