//! What one metric proposes.
//!
//! Used by the autoscaler decision. Invariants: within the tolerance nothing is proposed; pods that do not run yet or
//! have no reading count so that they dampen a change, never so that they turn it round.

use super::{Reading, Sample, View};
use crate::pods;
use jiff::SignedDuration;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const TOLERANCE: f64 = 0.1;
/// The use of CPU while a pod starts says nothing about its load.
const START_UP: SignedDuration = SignedDuration::from_secs(300);
const FIRST_READINESS: SignedDuration = SignedDuration::from_secs(30);

#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    pub(super) metric: String,
    pub(super) current: MetricStatus,
}

fn millis(quantity: Option<&Quantity>) -> Option<i64> {
    quantity.and_then(|q| kube_types::quantity::parse(&q.0).ok()).map(|q| q.milli_value())
}

fn quantity(millis: i64) -> Quantity {
    if millis % 1000 == 0 { Quantity((millis / 1000).to_string()) } else { Quantity(format!("{millis}m")) }
}

pub(super) fn propose(view: &View<'_>, metric: &MetricSpec, reading: &Reading) -> Result<Proposal, String> {
    let current = MetricStatus { type_: metric.type_.clone(), ..MetricStatus::default() };
    let broken = || format!("unknown metric source type \"{}\"", metric.type_);
    match (metric.type_.as_str(), reading) {
        ("Resource", Reading::Pods(samples)) => {
            let source = metric.resource.as_ref().ok_or_else(broken)?;
            let (replicas, value) = resource(view, &source.name, None, &source.target, samples)?;
            let status = ResourceMetricStatus { name: source.name.clone(), current: value };
            let how = how(&source.target);
            let metric = format!("{} resource{how}", source.name);
            Ok(Proposal { replicas, metric, current: MetricStatus { resource: Some(status), ..current } })
        }
        ("ContainerResource", Reading::Pods(samples)) => {
            let source = metric.container_resource.as_ref().ok_or_else(broken)?;
            let container = Some(source.container.as_str());
            let (replicas, value) = resource(view, &source.name, container, &source.target, samples)?;
            let status = ContainerResourceMetricStatus {
                container: source.container.clone(),
                name: source.name.clone(),
                current: value,
            };
            let metric = format!("{} container resource{}", source.name, how(&source.target));
            Ok(Proposal { replicas, metric, current: MetricStatus { container_resource: Some(status), ..current } })
        }
        ("Pods", Reading::Pods(samples)) => {
            let source = metric.pods.as_ref().ok_or_else(broken)?;
            let target = millis(source.target.average_value.as_ref()).ok_or_else(broken)?;
            let (replicas, average) = plain(view, samples, target, false);
            let status = PodsMetricStatus { metric: source.metric.clone(), current: average_value(average) };
            let metric = format!("pods metric {}", source.metric.name);
            Ok(Proposal { replicas, metric, current: MetricStatus { pods: Some(status), ..current } })
        }
        ("Object", Reading::Value(value)) => {
            let source = metric.object.as_ref().ok_or_else(broken)?;
            let (replicas, now) = whole(view, *value, &source.target).ok_or_else(broken)?;
            let status = ObjectMetricStatus {
                described_object: source.described_object.clone(),
                metric: source.metric.clone(),
                current: now,
            };
            let metric = format!("{} metric {}", source.described_object.kind, source.metric.name);
            Ok(Proposal { replicas, metric, current: MetricStatus { object: Some(status), ..current } })
        }
        ("External", Reading::Value(value)) => {
            let source = metric.external.as_ref().ok_or_else(broken)?;
            let (replicas, now) = whole(view, *value, &source.target).ok_or_else(broken)?;
            let status = ExternalMetricStatus { metric: source.metric.clone(), current: now };
            let metric = format!("external metric {}", source.metric.name);
            Ok(Proposal { replicas, metric, current: MetricStatus { external: Some(status), ..current } })
        }
        _ => Err(broken()),
    }
}

fn how(target: &MetricTarget) -> &'static str {
    if target.average_utilization.is_some() { " utilization (percentage of request)" } else { "" }
}

fn average_value(millis: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: Some(quantity(millis)), ..MetricValueStatus::default() }
}

fn resource(
    view: &View<'_>,
    name: &str,
    container: Option<&str>,
    target: &MetricTarget,
    samples: &BTreeMap<String, Sample>,
) -> Result<(i32, MetricValueStatus), String> {
    let Some(percent) = target.average_utilization else {
        let target = millis(target.average_value.as_ref()).ok_or(
            "invalid resource metric source: neither an average \
            utilization target nor an average value (raw) target was set",
        )?;
        let (replicas, average) = plain(view, samples, target, name == "cpu");
        return Ok((replicas, average_value(average)));
    };
    let requests = requests(view.pods, name, container)?;
    let group = group(view, samples, name == "cpu");
    let used: BTreeMap<&str, i64> = group.measured.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    let ask = |pods: &mut dyn Iterator<Item = &str>| -> i64 { pods.filter_map(|n| requests.get(n)).sum() };
    let asked = ask(&mut used.keys().copied());
    if asked == 0 {
        return Err(no_metrics(name));
    }
    let sum: i64 = used.values().sum();
    let utilization = sum * 100 / asked;
    let status = MetricValueStatus {
        average_utilization: Some(i32::try_from(utilization).unwrap_or(i32::MAX)),
        average_value: Some(quantity(sum / used.len().max(1) as i64)),
        ..MetricValueStatus::default()
    };
    let fallback = |pod: &str| requests.get(pod).copied().unwrap_or(0) * i64::from(percent.max(100)) / 100;
    let ratio_of = |sum: i64, asked: i64| (sum as f64 * 100.0 / asked as f64) / f64::from(percent);
    let replicas = group.settle(view.replicas, ratio_of(sum, asked), |filled| {
        let whole: i64 = filled.iter().map(|(pod, fill)| fill.unwrap_or_else(|| fallback(pod))).sum();
        ratio_of(sum + whole, asked + ask(&mut filled.iter().map(|(pod, _)| pod.as_str())))
    });
    Ok((replicas, status))
}

fn no_metrics(name: &str) -> String {
    format!(
        "failed to get {name} utilization: unable to get metrics for resource {name}: no metrics returned from resource metrics API"
    )
}

/// A target per pod, in the metric's own unit.
fn plain(view: &View<'_>, samples: &BTreeMap<String, Sample>, target: i64, cpu: bool) -> (i32, i64) {
    let group = group(view, samples, cpu);
    let sum: i64 = group.measured.values().sum();
    let count = group.measured.len().max(1) as i64;
    let ratio_of = |sum: i64, count: i64| sum as f64 / (target.max(1) * count) as f64;
    let replicas = group.settle(view.replicas, ratio_of(sum, count), |filled| {
        let whole: i64 = filled.iter().map(|(_, fill)| fill.unwrap_or(target)).sum();
        ratio_of(sum + whole, count + filled.len() as i64)
    });
    (replicas, sum / count)
}

/// One number for the whole target.
fn whole(view: &View<'_>, value: i64, target: &MetricTarget) -> Option<(i32, MetricValueStatus)> {
    if let Some(goal) = millis(target.value.as_ref()) {
        let ratio = value as f64 / goal.max(1) as f64;
        let ready = view.pods.iter().filter(|p| pods::is_ready(p) && pods::is_active(p)).count();
        let ready = i32::try_from(ready).unwrap_or(i32::MAX);
        let current = MetricValueStatus { value: Some(quantity(value)), ..MetricValueStatus::default() };
        return Some((scaled(view.replicas, ratio, ready), current));
    }
    let goal = millis(target.average_value.as_ref())?.max(1);
    let replicas = view.replicas.max(1);
    let ratio = value as f64 / (goal as f64 * f64::from(replicas));
    let exact = i32::try_from((value as u64).div_ceil(goal as u64)).unwrap_or(i32::MAX);
    let replicas_now = if (1.0 - ratio).abs() <= TOLERANCE { view.replicas } else { exact };
    Some((replicas_now, average_value(value / i64::from(replicas))))
}

fn scaled(current: i32, ratio: f64, pods: i32) -> i32 {
    if (1.0 - ratio).abs() <= TOLERANCE { current } else { ceil(ratio * f64::from(pods)) }
}

fn ceil(value: f64) -> i32 {
    // A hair above a whole number is that number: it comes from dividing.
    (value - 1e-9).ceil().clamp(0.0, f64::from(i32::MAX)) as i32
}

/// The pods by what is known of them.
struct Group {
    measured: BTreeMap<String, i64>,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
}

fn group(view: &View<'_>, samples: &BTreeMap<String, Sample>, cpu: bool) -> Group {
    let mut group = Group { measured: BTreeMap::new(), unready: BTreeSet::new(), missing: BTreeSet::new() };
    for pod in view.pods.iter().filter(|p| !pods::is_terminating(p) && pods::phase(p) != "Failed") {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let sample = samples.get(&name);
        match sample {
            _ if pods::phase(pod) == "Pending" => group.unready.insert(name),
            None => group.missing.insert(name),
            Some(sample) if cpu && is_starting(pod, sample, view) => group.unready.insert(name),
            Some(sample) => group.measured.insert(name, sample.value).is_none(),
        };
    }
    group
}

fn is_starting(pod: &Pod, sample: &Sample, view: &View<'_>) -> bool {
    let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    let (Some(condition), Some(started)) = (pods::condition(pod, "Ready"), started) else { return true };
    let changed = condition.last_transition_time.as_ref().map_or(started, |t| t.0);
    let unready = condition.status != "True";
    if started + START_UP > view.now {
        unready || sample.at < changed + sample.window
    } else {
        unready && started + FIRST_READINESS > changed
    }
}

impl Group {
    /// `with` gives the ratio when the pods without a reading are filled in: with nothing, or (None) with the target.
    fn settle(&self, current: i32, ratio: f64, with: impl Fn(&[(String, Option<i64>)]) -> f64) -> i32 {
        let measured = i32::try_from(self.measured.len()).unwrap_or(i32::MAX);
        let unready_count = if ratio > 1.0 { self.unready.len() } else { 0 };
        if self.missing.is_empty() && unready_count == 0 {
            return scaled(current, ratio, measured);
        }
        let fill = if ratio < 1.0 { None } else { Some(0) };
        let mut filled: Vec<(String, Option<i64>)> = self.missing.iter().map(|n| (n.clone(), fill)).collect();
        if unready_count > 0 {
            filled.extend(self.unready.iter().map(|n| (n.clone(), Some(0))));
        }
        let new = with(&filled);
        let turned = (ratio < 1.0 && new > 1.0) || (ratio > 1.0 && new < 1.0);
        if (1.0 - new).abs() <= TOLERANCE || turned {
            return current;
        }
        let count = measured.saturating_add(i32::try_from(filled.len()).unwrap_or(0));
        let replicas = ceil(new * f64::from(count));
        let wrong_way = (new < 1.0 && replicas > current) || (new > 1.0 && replicas < current);
        if wrong_way { current } else { replicas }
    }
}

/// What each pod asks for, in thousandths.
fn requests(all: &[Arc<Pod>], name: &str, container: Option<&str>) -> Result<BTreeMap<String, i64>, String> {
    let mut requests = BTreeMap::new();
    for pod in all {
        let spec = pod.spec.as_ref();
        let pod_name = pod.metadata.name.clone().unwrap_or_default();
        let main = spec.map(|s| s.containers.as_slice()).unwrap_or_default().iter();
        let init = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default().iter();
        let sidecars = init.filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let mut sum = 0;
        for one in main.chain(sidecars).filter(|c: &&Container| container.is_none_or(|name| c.name == name)) {
            let asked = one.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get(name));
            let Some(asked) = millis(asked) else {
                return Err(format!("missing request for {name} in container {} of Pod {pod_name}", one.name));
            };
            sum += asked;
        }
        requests.insert(pod_name, sum);
    }
    Ok(requests)
}
