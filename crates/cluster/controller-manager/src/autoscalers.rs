//! The HorizontalPodAutoscaler shell: every 15 seconds it asks the metrics APIs and sets the target's scale.
//!
//! Invariant: the scale is written with the resourceVersion that was read, so a user's own change is never undone.

use crate::Context;
use crate::discovery::{self, Place};
use crate::runner::{Outcome, Queue, Reconcile, feed, own_key, run};
use controllers::autoscaler::{self, History, PERIOD, Reading, Sample, View};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricIdentifier, MetricSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_client::ClientError;
use kube_client::informer::{Cache, Change, ObjectKey, Scope};
use kube_client::recorder::{Severity, reference};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinSet;

struct Autoscalers {
    context: Arc<Context>,
    cache: Cache<HorizontalPodAutoscaler>,
    histories: Mutex<HashMap<ObjectKey, History>>,
}

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    let cache: Cache<HorizontalPodAutoscaler> = Cache::start(&context.client, Scope::default());
    // The status is our own: only what is asked for is a reason to look at once.
    feed(tasks, &cache, &queue, |change| match change {
        Change::Applied { old: Some(old), new } if old.spec == new.spec => Vec::new(),
        Change::Applied { .. } | Change::Deleted { .. } => own_key(change),
    });
    let reconciler = Autoscalers { context: context.clone(), cache, histories: Mutex::default() };
    run(tasks, context, &queue, reconciler, 2);
}

/// The scale subresource of the target, as read.
struct Scale {
    path: String,
    object: Value,
    replicas: i32,
    pods: Vec<Arc<Pod>>,
    selector: String,
}

impl Reconcile for Autoscalers {
    const NAME: &'static str = "horizontal-pod-autoscaler";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        self.cache.synced().await;
        let Some(autoscaler) = self.cache.get_key(key) else {
            self.histories().remove(key);
            return Ok(None);
        };
        let about = reference(&*autoscaler);
        let events = &self.context.events;
        let scale = match self.scale(&autoscaler, key).await {
            Ok(scale) => scale,
            Err(error) => {
                events.event(&about, Severity::Warning, "FailedGetScale", error.to_string());
                return Ok(Some(Timestamp::now() + PERIOD));
            }
        };
        let mut readings = Vec::new();
        for metric in autoscaler.spec.metrics.iter().flatten() {
            readings.push(self.read(metric, key, &scale).await);
        }
        let history = self.histories().get(key).cloned().unwrap_or_default();
        let view = View {
            autoscaler: &autoscaler,
            replicas: scale.replicas,
            pods: &scale.pods,
            readings: &readings,
            history: &history,
            now: Timestamp::now(),
        };
        let decision = autoscaler::decide(&view);
        for (reason, message) in decision.warnings {
            events.event(&about, Severity::Warning, reason, message);
        }
        if let Some((size, why)) = decision.scale {
            self.write(&scale, size).await?;
            events.event(&about, Severity::Normal, "SuccessfulRescale", format!("New size: {size}; reason: {why}"));
        }
        self.histories().insert(key.clone(), decision.history);
        if autoscaler.status.as_ref() != Some(&decision.status) {
            let newest = self.cache.get_key(key).unwrap_or(autoscaler);
            let changed =
                HorizontalPodAutoscaler { status: Some(decision.status), ..HorizontalPodAutoscaler::clone(&newest) };
            let written = self.context.client.api::<HorizontalPodAutoscaler>().update_status(&changed).await?;
            self.cache.observe(&written);
        }
        Ok(Some(Timestamp::now() + PERIOD))
    }
}

impl Autoscalers {
    fn histories(&self) -> MutexGuard<'_, HashMap<ObjectKey, History>> {
        self.histories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn place(&self, api_version: &str, kind: &str) -> Result<Place, ClientError> {
        let places = discovery::of_group(&self.context.client, api_version).await?;
        let found = places.into_iter().find(|p| p.kind == kind);
        found.ok_or_else(|| {
            ClientError::InvalidRequest(format!("no matches for kind {kind:?} in version {api_version:?}"))
        })
    }

    async fn scale(&self, autoscaler: &HorizontalPodAutoscaler, key: &ObjectKey) -> Result<Scale, ClientError> {
        let target = &autoscaler.spec.scale_target_ref;
        let api_version = target.api_version.as_deref().unwrap_or("v1");
        let place = self.place(api_version, &target.kind).await?;
        let path = format!("{}/scale", place.path(&key.namespace, &target.name));
        let object = self.context.client.raw(discovery::get(&path)?).await?;
        let replicas = object["spec"]["replicas"].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
        let selector = object["status"]["selector"].as_str().unwrap_or_default().to_owned();
        let parsed = kube_types::selector::LabelSelector::parse(&selector)
            .map_err(|error| ClientError::InvalidRequest(format!("{path}: {error}")))?;
        let mut pods = self.context.caches.pods.list_namespace(&key.namespace);
        pods.retain(|pod| !selector.is_empty() && parsed.matches_map(&labels(pod)));
        Ok(Scale { path, object, replicas, pods, selector })
    }

    async fn write(&self, scale: &Scale, size: i32) -> Result<(), ClientError> {
        let mut object = scale.object.clone();
        object["spec"]["replicas"] = size.into();
        let request = discovery::request(Method::PUT, &scale.path, "application/json", Some(&object))?;
        self.context.client.raw(request).await.map(drop)
    }

    async fn read(&self, metric: &MetricSpec, key: &ObjectKey, scale: &Scale) -> Result<Reading, String> {
        let namespace = &key.namespace;
        if let Some(source) = &metric.resource {
            return self.resource(namespace, scale, &source.name, None).await;
        }
        if let Some(source) = &metric.container_resource {
            return self.resource(namespace, scale, &source.name, Some(&source.container)).await;
        }
        const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces";
        if let Some(source) = &metric.pods {
            let query = query(&source.metric, Some(&scale.selector));
            let list = self.get(&format!("{CUSTOM}/{namespace}/pods/*/{}{query}", source.metric.name)).await?;
            return Ok(Reading::Pods(by_pod(&list)));
        }
        if let Some(source) = &metric.object {
            let about = &source.described_object;
            let place = self.place(about.api_version.as_deref().unwrap_or("v1"), &about.kind).await;
            let plural = place.map_err(|e| e.to_string())?.plural;
            let query = query(&source.metric, None);
            let path = format!("{CUSTOM}/{namespace}/{plural}/{}/{}{query}", about.name, source.metric.name);
            return Ok(Reading::Value(sum(&self.get(&path).await?)));
        }
        if let Some(source) = &metric.external {
            let query = query(&source.metric, None).replace("metricLabelSelector", "labelSelector");
            let path =
                format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{}{query}", source.metric.name);
            return Ok(Reading::Value(sum(&self.get(&path).await?)));
        }
        Err(format!("unknown metric source type {:?}", metric.type_))
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        let request = discovery::get(path).map_err(|e| e.to_string())?;
        self.context.client.raw(request).await.map_err(|e| format!("unable to get metric: {e}"))
    }

    async fn resource(
        &self,
        namespace: &str,
        scale: &Scale,
        name: &str,
        container: Option<&str>,
    ) -> Result<Reading, String> {
        let path = format!(
            "/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={}",
            escape(&scale.selector)
        );
        let request = discovery::get(&path).map_err(|e| e.to_string())?;
        let list = self.context.client.raw(request).await.map_err(|error| {
            format!(
                "failed to get {name} utilization: unable to get metrics for resource {name}: unable to fetch metrics \
                 from resource metrics API: {error}"
            )
        })?;
        let mut samples = BTreeMap::new();
        for item in list["items"].as_array().into_iter().flatten() {
            let all = item["containers"].as_array().into_iter().flatten();
            let counted = all.filter(|c| container.is_none_or(|name| c["name"] == name));
            let used: Vec<i64> = counted.filter_map(|c| millis(&c["usage"][name])).collect();
            if !used.is_empty() {
                let pod = item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                samples.insert(pod, sample(item, used.iter().sum()));
            }
        }
        if samples.is_empty() {
            let why = "no metrics returned from resource metrics API";
            return Err(format!("failed to get {name} utilization: unable to get metrics for resource {name}: {why}"));
        }
        Ok(Reading::Pods(samples))
    }
}

fn labels(pod: &Pod) -> BTreeMap<String, String> {
    pod.metadata.labels.clone().unwrap_or_default()
}

fn millis(value: &Value) -> Option<i64> {
    kube_types::quantity::parse(value.as_str()?).ok().map(|q| q.milli_value())
}

fn sample(item: &Value, value: i64) -> Sample {
    let at = item["timestamp"].as_str().and_then(|t| t.parse().ok()).unwrap_or_else(Timestamp::now);
    let window = item["window"].as_str().and_then(|w| w.parse::<SignedDuration>().ok());
    Sample { value, at, window: window.unwrap_or(SignedDuration::from_secs(60)) }
}

/// Custom metrics of pods.
fn by_pod(list: &Value) -> BTreeMap<String, Sample> {
    let items = list["items"].as_array().into_iter().flatten();
    let read = items.filter_map(|item| {
        let name = item["describedObject"]["name"].as_str()?.to_owned();
        Some((name, sample(item, millis(&item["value"])?)))
    });
    read.collect()
}

fn sum(list: &Value) -> i64 {
    list["items"].as_array().into_iter().flatten().filter_map(|item| millis(&item["value"])).sum()
}

fn query(metric: &MetricIdentifier, pods: Option<&str>) -> String {
    let mut parts: Vec<String> = pods.map(|p| format!("labelSelector={}", escape(p))).into_iter().collect();
    let selector = metric.selector.as_ref().map(selector_text).filter(|s| !s.is_empty());
    parts.extend(selector.map(|s| format!("metricLabelSelector={}", escape(&s))));
    if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
}

/// A selector as a query's text.
fn selector_text(selector: &LabelSelector) -> String {
    let equal = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let rules = selector.match_expressions.iter().flatten().map(|rule| {
        let values = rule.values.as_deref().unwrap_or_default().join(",");
        match rule.operator.as_str() {
            "In" => format!("{} in ({values})", rule.key),
            "NotIn" => format!("{} notin ({values})", rule.key),
            "DoesNotExist" => format!("!{}", rule.key),
            _ => rule.key.clone(),
        }
    });
    equal.chain(rules).collect::<Vec<_>>().join(",")
}

fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
