use super::*;
use k8s_openapi::api::core::v1::PodStatus;
use proptest::prelude::*;
use serde_json::{Value, json};

const START: &str = "2026-01-01T00:00:00Z";

fn now(second: i64) -> Timestamp {
    START.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second)
}

fn job(spec: Value) -> Job {
    let mut full = json!({"parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
        "podReplacementPolicy": "TerminatingOrFailed", "selector": {"matchLabels": {"u": "1"}},
        "template": {"metadata": {"labels": {"u": "1"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": "j", "namespace": "n", "uid": "job"}, "spec": full})).unwrap()
}

/// A small world: the Job, its pods, and a shell that applies decisions as the real one does.
struct World {
    job: Job,
    pods: Vec<Arc<Pod>>,
    made: usize,
    clock: i64,
    events: Vec<String>,
    deleted: bool,
}

impl World {
    fn new(spec: Value) -> Self {
        World { job: job(spec), pods: Vec::new(), made: 0, clock: 0, events: Vec::new(), deleted: false }
    }

    fn pass(&mut self) -> Decision {
        let decision = decide(&View { job: &self.job, pods: &self.pods, now: now(self.clock) });
        for action in &decision.actions {
            match action {
                Action::Create(pods) => pods.iter().for_each(|pod| self.create(pod)),
                Action::Delete(pod) => self.delete(pod, false),
                Action::Discard(pod) => self.delete(pod, true),
                Action::Event { reason, .. } => self.events.push(reason.clone()),
                Action::DeleteJob => self.deleted = true,
                Action::Adopt(_) | Action::Release(_) => {}
            }
        }
        if let Some(status) = &decision.status {
            self.job.status = Some(status.clone());
        }
        for pod in &decision.untrack {
            self.change(pod, |p| p.metadata.finalizers = None);
        }
        self.pods.retain(|p| !(pods::is_finished(p) && pods::is_terminating(p) && !is_tracked(p)));
        decision
    }

    fn settle(&mut self) -> Decision {
        for _ in 0..20 {
            let before = (self.job.clone(), self.pods.clone());
            let decision = self.pass();
            if before == (self.job.clone(), self.pods.clone()) {
                return decision;
            }
        }
        panic!("no rest after twenty passes: {:#?}", self.job.status);
    }

    fn create(&mut self, pod: &Pod) {
        self.made += 1;
        let mut pod = pod.clone();
        let name = format!("{}{}", pod.metadata.generate_name.as_deref().unwrap(), self.made);
        pod.metadata.uid = Some(name.clone());
        pod.metadata.name = Some(name);
        self.pods.push(Arc::new(pod));
    }

    fn change(&mut self, pod: &Pod, change: impl FnOnce(&mut Pod)) {
        if let Some(found) = self.pods.iter_mut().find(|p| p.metadata.uid == pod.metadata.uid) {
            change(Arc::make_mut(found));
        }
    }

    /// The node is instant: what is deleted has failed at once.
    fn delete(&mut self, pod: &Pod, discard: bool) {
        let at = now(self.clock);
        if discard {
            self.pods.retain(|p| p.metadata.uid != pod.metadata.uid);
        } else {
            self.change(pod, |p| p.metadata.deletion_timestamp = Some(status::time(at)));
            self.end(&pod.clone(), 137);
        }
    }

    fn end(&mut self, pod: &Pod, code: i32) {
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let status: PodStatus = serde_json::from_value(json!({"phase": phase, "containerStatuses": [{
            "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "finishedAt": now(self.clock).to_string()}}}]}))
        .unwrap();
        self.change(pod, |p| p.status = Some(status));
    }

    fn active(&self) -> Vec<Arc<Pod>> {
        self.pods.iter().filter(|p| pods::is_active(p)).cloned().collect()
    }

    fn end_all(&mut self, code: i32) {
        for pod in self.active() {
            self.end(&pod, code);
        }
    }

    fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    fn condition(&self, type_: &str) -> Option<String> {
        let conditions = self.status().conditions.unwrap_or_default();
        conditions.into_iter().find(|c| c.type_ == type_ && c.status == "True").and_then(|c| c.reason)
    }
}

#[test]
fn a_job_runs_to_its_completions_and_counts_every_pod_once() {
    let mut world = World::new(json!({"completions": 3, "parallelism": 2}));
    world.settle();
    assert_eq!((world.active().len(), world.status().active), (2, Some(2)));
    assert!(world.pods.iter().all(|p| is_tracked(p)));
    world.end_all(0);
    world.settle();
    assert_eq!((world.status().succeeded, world.active().len()), (Some(2), 1));
    world.end_all(0);
    world.settle();
    assert_eq!(world.status().succeeded, Some(3));
    assert_eq!(world.condition("Complete").as_deref(), Some("CompletionsReached"));
    assert!(world.condition("SuccessCriteriaMet").is_some() && world.status().completion_time.is_some());
    assert_eq!(world.events, ["Completed"]);
    assert!(world.pods.iter().all(|p| !is_tracked(p)) && world.made == 3);
}

#[test]
fn failures_pause_longer_each_time_and_end_at_the_limit() {
    let mut world = World::new(json!({"completions": 1, "backoffLimit": 2}));
    world.settle();
    for pause in [10, 20] {
        world.end_all(1);
        let decision = world.settle();
        assert!(world.active().is_empty(), "not before its pause");
        assert_eq!(decision.wake_at, Some(now(world.clock + pause)));
        world.clock += pause;
        world.settle();
        assert_eq!(world.active().len(), 1);
    }
    world.end_all(1);
    world.settle();
    assert_eq!(world.condition("Failed").as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!((world.status().failed, world.made), (Some(3), 3));
    assert_eq!(world.events, ["BackoffLimitExceeded"]);
}

#[test]
fn an_indexed_job_gives_each_index_a_pod_with_its_name_and_number() {
    let mut world = World::new(json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"}));
    world.settle();
    let pod = &world.pods[1];
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!((index_of(pod), spec.hostname.as_deref()), (Some(1), Some("j-1")));
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("j-1-"));
    assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
    let (first, last) = (world.pods[0].clone(), world.pods[2].clone());
    world.end(&first, 0);
    world.end(&last, 0);
    world.settle();
    assert_eq!(world.status().completed_indexes.as_deref(), Some("0,2"));
    world.end_all(0);
    world.settle();
    assert_eq!(world.status().completed_indexes.as_deref(), Some("0-2"));
    assert!(world.condition("Complete").is_some());
}

#[test]
fn a_limit_per_index_fails_that_index_and_runs_the_others() {
    let spec = json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimit": i32::MAX,
        "backoffLimitPerIndex": 1});
    let mut world = World::new(spec);
    world.settle();
    let (bad, good) = (world.pods[0].clone(), world.pods[1].clone());
    world.end(&bad, 1);
    world.end(&good, 0);
    let decision = world.settle();
    assert_eq!(decision.wake_at, Some(now(10)));
    world.clock = 10;
    world.settle();
    assert_eq!(world.active().len(), 1);
    assert_eq!(world.active()[0].metadata.annotations.as_ref().unwrap()[INDEX_FAILURES], "1");
    world.end_all(1);
    world.settle();
    let status = world.status();
    assert_eq!((status.completed_indexes.as_deref(), status.failed_indexes.as_deref()), (Some("1"), Some("0")));
    assert_eq!(world.condition("Failed").as_deref(), Some("FailedIndexes"));
}

#[test]
fn failure_rules_ignore_fail_or_count_by_exit_code_and_condition() {
    let rules = json!({"rules": [
        {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]});
    let spec =
        json!({"completions": 1, "backoffLimit": 0, "podFailurePolicy": rules, "podReplacementPolicy": "Failed"});
    let mut world = World::new(spec.clone());
    world.settle();
    world.end_all(42);
    world.settle();
    assert_eq!(world.condition("Failed").as_deref(), Some("PodFailurePolicy"));
    let conditions = world.status().conditions.unwrap();
    let message = conditions[0].message.as_deref().unwrap();
    assert_eq!(message, "Container c for pod n/j-1 failed with exit code 42 matching FailJob rule at index 0");

    let mut world = World::new(spec);
    world.settle();
    world.end_all(1);
    let pod = world.pods[0].clone();
    world.change(&pod, |p| {
        let condition = serde_json::from_value(json!({"type": "DisruptionTarget", "status": "True"})).unwrap();
        p.status.as_mut().unwrap().conditions = Some(vec![condition]);
    });
    world.settle();
    assert_eq!((world.status().failed, world.active().len()), (None, 1), "an ignored failure is replaced, not counted");
}

#[test]
fn a_success_policy_ends_the_job_early_and_removes_the_rest() {
    let policy = json!({"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]});
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "successPolicy": policy});
    let mut world = World::new(spec);
    world.settle();
    let leader = world.pods[1].clone();
    world.end(&leader, 0);
    world.settle();
    assert_eq!(world.condition("Complete").as_deref(), Some("SuccessPolicy"));
    assert!(world.active().is_empty());
}

#[test]
fn suspension_takes_the_pods_and_resuming_starts_the_clock_anew() {
    let mut world = World::new(json!({"completions": 1, "suspend": true, "activeDeadlineSeconds": 30}));
    world.settle();
    assert!(world.pods.is_empty() && world.status().start_time.is_none());
    world.clock = 100;
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    let decision = world.settle();
    assert_eq!(world.status().start_time, Some(status::time(now(100))));
    assert_eq!(decision.wake_at, Some(now(130)));
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    world.settle();
    assert!(world.pods.is_empty() && world.status().failed.is_none(), "suspended pods are no failures");
    assert_eq!(world.events, ["Suspended", "Resumed", "Suspended"]);
}

#[test]
fn the_deadline_and_the_time_to_live_end_a_job() {
    let mut world = World::new(json!({"completions": 1, "activeDeadlineSeconds": 30, "ttlSecondsAfterFinished": 5}));
    world.settle();
    world.clock = 30;
    world.settle();
    assert_eq!(world.condition("Failed").as_deref(), Some("DeadlineExceeded"));
    assert!(!world.deleted);
    world.clock = 35;
    world.pass();
    assert!(world.deleted);
}

#[test]
fn a_replacement_waits_for_the_end_when_the_policy_says_failed() {
    for (policy, expected) in [("Failed", 0), ("TerminatingOrFailed", 1)] {
        let mut world = World::new(json!({"completions": 1, "podReplacementPolicy": policy}));
        world.settle();
        let pod = world.pods[0].clone();
        world.change(&pod, |p| p.metadata.deletion_timestamp = Some(status::time(now(0))));
        world.settle();
        world.clock = 10;
        world.settle();
        assert_eq!(world.active().len(), expected, "{policy}");
    }
}

#[test]
fn a_job_managed_by_another_is_left_alone() {
    let mut world = World::new(json!({"completions": 1, "managedBy": "example.com/other"}));
    let decision = world.pass();
    assert!(decision.status.is_none() && world.pods.is_empty());
}

proptest! {
    #[test]
    fn whatever_the_pods_do_limits_hold_and_the_job_ends(
        completions in 1..6i32, parallelism in 1..4i32, limit in 0..4i32, indexed: bool,
        ends in proptest::collection::vec((0..4usize, any::<bool>()), 1..40),
    ) {
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let mut world = World::new(json!({"completions": completions, "parallelism": parallelism,
            "backoffLimit": limit, "completionMode": mode}));
        world.settle();
        for (which, good) in ends {
            let active = world.active();
            prop_assert!(active.len() <= usize::try_from(parallelism).unwrap());
            if let Some(pod) = active.get(which % active.len().max(1)) {
                world.end(&pod.clone(), i32::from(!good));
            }
            world.clock += 600;
            world.settle();
        }
        for _ in 0..20 {
            world.end_all(0);
            world.clock += 600;
            world.settle();
        }
        let status = world.status();
        prop_assert!(world.condition("Complete").is_some() != world.condition("Failed").is_some());
        prop_assert!(status.succeeded.unwrap_or(0) <= completions);
        prop_assert!(world.pods.iter().all(|p| !is_tracked(p)));
        let last = world.made;
        world.settle();
        prop_assert_eq!(last, world.made, "a finished job makes nothing");
    }
}
