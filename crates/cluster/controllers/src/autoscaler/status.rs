//! An autoscaler's conditions and numbers.

use super::{Decision, History, View};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub(super) struct Report {
    status: HorizontalPodAutoscalerStatus,
    now: Timestamp,
    pub(super) current: Vec<MetricStatus>,
    pub(super) warnings: Vec<(&'static str, String)>,
}

pub(super) fn failure_reason(metric: &MetricSpec) -> &'static str {
    match metric.type_.as_str() {
        "Resource" => "FailedGetResourceMetric",
        "ContainerResource" => "FailedGetContainerResourceMetric",
        "Pods" => "FailedGetPodsMetric",
        "Object" => "FailedGetObjectMetric",
        "External" => "FailedGetExternalMetric",
        _ => "InvalidMetricSourceType",
    }
}

impl Report {
    pub(super) fn new(view: &View<'_>) -> Self {
        let mut status = view.autoscaler.status.clone().unwrap_or_default();
        status.observed_generation = view.autoscaler.metadata.generation;
        status.current_replicas = Some(view.replicas);
        Report { status, now: view.now, current: Vec::new(), warnings: Vec::new() }
    }

    fn set(&mut self, type_: &str, on: bool, reason: &str, message: &str) {
        let word = if on { "True" } else { "False" };
        let conditions = self.status.conditions.get_or_insert_default();
        let since = conditions.iter().find(|c| c.type_ == type_ && c.status == word);
        let since = since.and_then(|c| c.last_transition_time.clone()).unwrap_or(Time(self.now));
        let fresh = HorizontalPodAutoscalerCondition {
            type_: type_.to_owned(),
            status: word.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(since),
        };
        match conditions.iter_mut().find(|c| c.type_ == type_) {
            Some(old) => *old = fresh,
            None => conditions.push(fresh),
        }
    }

    pub(super) fn able(&mut self, reason: &str, message: &str) {
        self.set("AbleToScale", true, reason, message);
    }

    pub(super) fn active(&mut self, on: bool, reason: &str, message: &str) {
        self.set("ScalingActive", on, reason, message);
    }

    pub(super) fn limited(&mut self, reason: &str, message: &str) {
        self.set("ScalingLimited", true, reason, message);
    }

    pub(super) fn within_range(&mut self) {
        let message = "the desired count is within the acceptable range";
        self.set("ScalingLimited", false, "DesiredWithinRange", message);
    }

    pub(super) fn finish(mut self, scale: Option<(i32, String)>, desired: i32, history: History) -> Decision {
        self.status.desired_replicas = desired;
        if !self.current.is_empty() {
            self.status.current_metrics = Some(self.current);
        }
        if scale.is_some() {
            self.status.last_scale_time = Some(Time(self.now));
        }
        Decision { scale, status: self.status, history, warnings: self.warnings }
    }
}
