use super::*;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    "2026-01-01T12:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second)
}

fn autoscaler(spec: Value) -> HorizontalPodAutoscaler {
    let mut full = json!({"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 10,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": "h", "namespace": "n"}, "spec": full})).unwrap()
}

fn pod(name: &str, phase: &str, ready: bool) -> Arc<Pod> {
    let ready = if ready { "True" } else { "False" };
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": phase, "startTime": "2026-01-01T00:00:00Z",
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:10Z"}]}}))
        .unwrap(),
    )
}

fn running(count: usize) -> Vec<Arc<Pod>> {
    (0..count).map(|n| pod(&n.to_string(), "Running", true)).collect()
}

/// The same use of CPU in every pod that is named.
fn uses(names: impl IntoIterator<Item = String>, millis: i64) -> Reading {
    let sample = Sample { value: millis, at: at(0), window: SignedDuration::from_secs(30) };
    Reading::Pods(names.into_iter().map(|name| (name, sample)).collect())
}

fn all(count: usize, millis: i64) -> Reading {
    uses((0..count).map(|n| n.to_string()), millis)
}

fn run(
    h: &HorizontalPodAutoscaler,
    pods: &[Arc<Pod>],
    reading: Result<Reading, String>,
    history: &History,
    now: i64,
) -> Decision {
    let replicas = i32::try_from(pods.len()).unwrap();
    let readings = vec![reading; h.spec.metrics.as_ref().unwrap().len()];
    decide(&View { autoscaler: h, replicas, pods, readings: &readings, history, now: at(now) })
}

fn size(decision: &Decision) -> Option<i32> {
    decision.scale.as_ref().map(|(size, _)| *size)
}

fn reason(decision: &Decision, type_: &str) -> String {
    let conditions = decision.status.conditions.as_ref().unwrap();
    conditions.iter().find(|c| c.type_ == type_).and_then(|c| c.reason.clone()).unwrap_or_default()
}

#[test]
fn replicas_follow_the_ratio_of_use_to_target_beyond_the_tolerance() {
    let h = autoscaler(json!({}));
    let fresh = History::default();
    for (count, millis, expected) in
        [(2, 1000, Some(4)), (2, 520, None), (3, 700, Some(5)), (4, 250, None), (1, 6000, Some(5))]
    {
        let decision = run(&h, &running(count), Ok(all(count, millis)), &fresh, 0);
        assert_eq!(size(&decision), expected, "{count} pods of {millis}");
        assert_eq!(reason(&decision, "ScalingActive"), "ValidMetricFound");
    }
    let decision = run(&h, &running(2), Ok(all(2, 1000)), &fresh, 0);
    assert_eq!(decision.scale.unwrap().1, "cpu resource utilization (percentage of request) above target");
    let current = decision.status.current_metrics.unwrap()[0].resource.clone().unwrap().current;
    assert_eq!(current.average_utilization, Some(100));
}

#[test]
fn size_stays_within_bounds_and_says_which_one_was_met() {
    let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 0}});
    let h = autoscaler(json!({"maxReplicas": 3, "minReplicas": 2, "behavior": behavior}));
    let decision = run(&h, &running(2), Ok(all(2, 2000)), &History::default(), 0);
    assert_eq!((size(&decision), reason(&decision, "ScalingLimited")), (Some(3), "TooManyReplicas".into()));
    let decision = run(&h, &running(3), Ok(all(3, 1)), &History::default(), 0);
    assert_eq!((size(&decision), reason(&decision, "ScalingLimited")), (Some(2), "TooFewReplicas".into()));
    let off = run(&h, &[], Ok(all(0, 1)), &History::default(), 0);
    assert_eq!((size(&off), reason(&off, "ScalingActive")), (None, "ScalingDisabled".into()));
    let over = run(&h, &running(5), Ok(all(5, 500)), &History::default(), 0);
    assert_eq!(size(&over), Some(3));
}

#[test]
fn going_down_waits_until_no_higher_recommendation_is_recent() {
    let h = autoscaler(json!({}));
    let first = run(&h, &running(4), Ok(all(4, 500)), &History::default(), 0);
    let soon = run(&h, &running(4), Ok(all(4, 100)), &first.history, 60);
    assert_eq!((size(&soon), reason(&soon, "AbleToScale")), (None, "ScaleDownStabilized".into()));
    let later = run(&h, &running(4), Ok(all(4, 100)), &soon.history, 301);
    assert_eq!(size(&later), Some(1));
}

#[test]
fn policies_bound_the_change_within_their_period() {
    let policy = |value: i32| json!([{"type": "Pods", "value": value, "periodSeconds": 60}]);
    let h = autoscaler(json!({"behavior": {"scaleUp": {"policies": policy(2)},
        "scaleDown": {"stabilizationWindowSeconds": 0, "policies": policy(1)}}}));
    let up = run(&h, &running(2), Ok(all(2, 2000)), &History::default(), 0);
    assert_eq!((size(&up), reason(&up, "ScalingLimited")), (Some(4), "ScaleUpLimit".into()));
    let again = run(&h, &running(4), Ok(all(4, 2000)), &up.history, 30);
    assert_eq!(size(&again), None, "two within a minute");
    assert_eq!(size(&run(&h, &running(4), Ok(all(4, 2000)), &again.history, 61)), Some(6));
    let down = run(&h, &running(6), Ok(all(6, 10)), &History::default(), 0);
    assert_eq!(size(&down), Some(5));
    let disabled =
        autoscaler(json!({"behavior": {"scaleDown": {"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0}}}));
    assert_eq!(size(&run(&disabled, &running(6), Ok(all(6, 10)), &History::default(), 0)), None);
}

#[test]
fn pods_without_readings_dampen_and_failed_metrics_never_scale_down() {
    let h = autoscaler(json!({}));
    let mut pods = running(3);
    let two = || uses(["0".to_owned(), "1".to_owned()], 1000);
    assert_eq!(size(&run(&h, &pods, Ok(two()), &History::default(), 0)), Some(4), "the third counts as idle");
    let low = || uses(["0".to_owned(), "1".to_owned()], 100);
    assert_eq!(size(&run(&h, &pods, Ok(low()), &History::default(), 0)), None, "the third counts as fully used");
    pods[2] = pod("2", "Pending", false);
    assert_eq!(size(&run(&h, &pods, Ok(two()), &History::default(), 0)), Some(4));
    let failed = run(&h, &pods, Err("no answer".into()), &History::default(), 0);
    assert_eq!((size(&failed), reason(&failed, "ScalingActive")), (None, "FailedGetResourceMetric".into()));
    assert_eq!(failed.warnings[1].0, "FailedComputeMetricsReplicas");
    let unasked = {
        let mut pod = Pod::clone(&pods[0]);
        pod.spec.as_mut().unwrap().containers[0].resources = None;
        vec![Arc::new(pod)]
    };
    let decision = run(&h, &unasked, Ok(all(1, 100)), &History::default(), 0);
    assert_eq!(decision.warnings[0].1, "missing request for cpu in container c of Pod 0");
}

#[test]
fn pods_object_and_external_metrics_propose_by_value_or_average() {
    let of = |metric: Value| autoscaler(json!({"metrics": [metric]}));
    let name = json!({"name": "requests"});
    let object = json!({"kind": "Service", "name": "s"});
    let value = json!({"type": "Value", "value": "100"});
    let average = json!({"type": "AverageValue", "averageValue": "100"});
    for (metric, reading, expected) in [
        (json!({"type": "Pods", "pods": {"metric": name, "target": average}}), all(2, 200_000), Some(4)),
        (
            json!({"type": "Object", "object": {"metric": name, "describedObject": object, "target": value}}),
            Reading::Value(300_000),
            Some(6),
        ),
        (
            json!({"type": "External", "external": {"metric": name, "target": average}}),
            Reading::Value(500_000),
            Some(5),
        ),
        (json!({"type": "External", "external": {"metric": name, "target": value}}), Reading::Value(105_000), None),
    ] {
        let decision = run(&of(metric.clone()), &running(2), Ok(reading), &History::default(), 0);
        assert_eq!(size(&decision), expected, "{metric}");
    }
}
