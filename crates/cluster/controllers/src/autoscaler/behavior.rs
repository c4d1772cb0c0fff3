//! How fast an autoscaler may move, and what it remembers for that.
//!
//! Invariants: within the stabilisation window the target is no smaller than the highest recommendation (going down)
//! and no larger than the lowest (going up); within a policy's period it changes by no more than the policy allows.

use super::View;
use super::status::Report;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerSpec};

const DOWN_WINDOW: i32 = 300;

/// Recommendations and changes of size, as far back as they matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    recommendations: Vec<(Timestamp, i32)>,
    changes: Vec<(Timestamp, i32)>,
}

impl History {
    pub(super) fn scaled(&mut self, now: Timestamp, by: i32) {
        self.changes.push((now, by));
    }

    pub(super) fn forget(&mut self, spec: &HorizontalPodAutoscalerSpec, now: Timestamp) {
        let window = rules(spec, true).window.max(rules(spec, false).window);
        self.recommendations.retain(|(at, _)| *at + window >= now);
        // The longest period that a policy may have.
        self.changes.retain(|(at, _)| *at + SignedDuration::from_secs(1800) >= now);
    }
}

struct Rules {
    window: SignedDuration,
    policies: Vec<HPAScalingPolicy>,
    disabled: bool,
    least_change: bool,
}

fn rules(spec: &HorizontalPodAutoscalerSpec, up: bool) -> Rules {
    let behavior = spec.behavior.as_ref();
    let given: Option<&HPAScalingRules> =
        behavior.and_then(|b| if up { b.scale_up.as_ref() } else { b.scale_down.as_ref() });
    let policy = |type_: &str, value| HPAScalingPolicy { type_: type_.into(), value, period_seconds: 15 };
    let defaults = if up { vec![policy("Pods", 4), policy("Percent", 100)] } else { vec![policy("Percent", 100)] };
    let window = given.and_then(|g| g.stabilization_window_seconds).unwrap_or(if up { 0 } else { DOWN_WINDOW });
    let select = given.and_then(|g| g.select_policy.as_deref()).unwrap_or("Max");
    Rules {
        window: SignedDuration::from_secs(i64::from(window)),
        policies: given.and_then(|g| g.policies.clone()).filter(|p| !p.is_empty()).unwrap_or(defaults),
        disabled: select == "Disabled",
        least_change: select == "Min",
    }
}

pub(super) fn limit(view: &View<'_>, wanted: i32, history: &mut History, report: &mut Report) -> i32 {
    let spec = &view.autoscaler.spec;
    let (up, down) = (rules(spec, true), rules(spec, false));
    if history.recommendations.is_empty() {
        // A controller that has just started knows of no reason to shrink.
        history.recommendations.push((view.now, view.replicas));
    }
    let steady = stabilise(view, wanted, history, &up, &down);
    history.recommendations.push((view.now, wanted));
    if steady != wanted {
        let (reason, message) = if steady > wanted {
            (
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            )
        } else {
            (
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            )
        };
        report.able(reason, message);
    } else {
        report.able("ReadyForNewScale", "recommended size matches current size");
    }
    bounded(view, steady, history, (&up, &down), report)
}

fn stabilise(view: &View<'_>, wanted: i32, history: &History, up: &Rules, down: &Rules) -> i32 {
    let within = |rules: &Rules| -> Vec<i32> {
        let recent = history.recommendations.iter().filter(|(at, _)| *at + rules.window > view.now);
        recent.map(|(_, r)| *r).chain([wanted]).collect()
    };
    let lowest = within(up).into_iter().min().unwrap_or(wanted);
    let highest = within(down).into_iter().max().unwrap_or(wanted);
    // The present size, moved up to the lowest and down to the highest.
    view.replicas.max(lowest).min(highest)
}

fn bounded(view: &View<'_>, wanted: i32, history: &History, rules: (&Rules, &Rules), report: &mut Report) -> i32 {
    let spec = &view.autoscaler.spec;
    let (least, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
    let reached = if wanted > view.replicas {
        let fastest = upper(view, history, rules.0);
        if wanted > fastest && fastest < most {
            report
                .limited("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
            return fastest.max(view.replicas);
        }
        wanted.min(fastest.max(view.replicas))
    } else if wanted < view.replicas {
        let fastest = lower(view, history, rules.1);
        if wanted < fastest && fastest > least {
            report.limited(
                "ScaleDownLimit",
                "the desired replica count is decreasing faster than the maximum scale rate",
            );
            return fastest.min(view.replicas);
        }
        wanted.max(fastest.min(view.replicas))
    } else {
        wanted
    };
    if wanted > most {
        report.limited("TooManyReplicas", "the desired replica count is more than the maximum replica count");
    } else if wanted < least {
        report.limited("TooFewReplicas", "the desired replica count is less than the minimum replica count");
    } else {
        report.within_range();
    }
    reached.clamp(least, most)
}

/// How much the size has grown (or shrunk) within the policy's period.
fn moved(history: &History, policy: &HPAScalingPolicy, now: Timestamp, up: bool) -> i32 {
    let period = SignedDuration::from_secs(i64::from(policy.period_seconds));
    let recent = history.changes.iter().filter(|(at, by)| *at + period > now && (*by > 0) == up);
    recent.map(|(_, by)| by.abs()).sum()
}

fn upper(view: &View<'_>, history: &History, rules: &Rules) -> i32 {
    if rules.disabled {
        return view.replicas;
    }
    let limits = rules.policies.iter().map(|policy| {
        let before = view.replicas - moved(history, policy, view.now, true);
        match policy.type_.as_str() {
            "Pods" => before.saturating_add(policy.value),
            _ => (f64::from(before) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
        }
    });
    let chosen = if rules.least_change { limits.min() } else { limits.max() };
    chosen.unwrap_or(i32::MAX)
}

fn lower(view: &View<'_>, history: &History, rules: &Rules) -> i32 {
    if rules.disabled {
        return view.replicas;
    }
    let limits = rules.policies.iter().map(|policy| {
        let before = view.replicas.saturating_add(moved(history, policy, view.now, false));
        match policy.type_.as_str() {
            "Pods" => before.saturating_sub(policy.value),
            _ => (f64::from(before) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
        }
    });
    let chosen = if rules.least_change { limits.max() } else { limits.min() };
    chosen.unwrap_or(0)
}
