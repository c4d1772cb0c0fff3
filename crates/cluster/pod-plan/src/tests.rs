//! Decision tables and a simulated node.
//!
//! The simulation applies every action to a little world (sandboxes, containers, images that may fail) in
//! random order and delay, and checks safety after each step and convergence at the end.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u-1", "generation": 1},
        "spec": spec,
    }))
    .unwrap()
}

fn one_container(policy: &str) -> Pod {
    pod(json!({"restartPolicy": policy, "containers": [{"name": "app", "image": "web:1"}]}))
}

/// A node that does at once what it is told.
struct World {
    pod: Pod,
    presence: Presence,
    memory: Memory,
    node: NodeFacts,
    room: Option<Room>,
    sandboxes: Vec<ObservedSandbox>,
    containers: Vec<ObservedContainer>,
    now: Timestamp,
    made: u32,
    events: Vec<String>,
    broken_images: bool,
    finished: bool,
    starts: Vec<(String, u32)>,
    resized: Vec<(String, String)>,
    /// Actions that are under way.
    pending: Vec<Action>,
}

impl World {
    fn new(pod: Pod) -> Self {
        Self {
            pod,
            presence: Presence::Known,
            memory: Memory::default(),
            node: NodeFacts {
                name: "n1".into(),
                host_ips: vec!["192.168.0.1".into()],
                runtime_scheme: "gantry".into(),
            },
            room: None,
            sandboxes: vec![],
            containers: vec![],
            now: at(0),
            made: 0,
            events: vec![],
            broken_images: false,
            finished: false,
            starts: vec![],
            resized: vec![],
            pending: vec![],
        }
    }

    fn look(&mut self) -> Decision {
        self.memory.prune(&self.containers);
        let decision = decide(&View {
            pod: &self.pod,
            presence: self.presence,
            sandboxes: &self.sandboxes,
            containers: &self.containers,
            memory: &self.memory,
            node: &self.node,
            room: self.room,
            now: self.now,
        });
        self.memory.accept(&decision, self.now);
        for (_, event) in &decision.announcements {
            self.events.push(event.reason.to_owned());
        }
        self.pod.status = Some(decision.status.clone());
        self.pending.extend(decision.actions.iter().cloned());
        decision
    }

    fn do_one(&mut self, index: usize) {
        let action = self.pending.remove(index);
        let outcome = self.apply(&action);
        let pod = self.pod.clone();
        for event in self.memory.record(&pod, &action, outcome, self.now) {
            self.events.push(event.reason.to_owned());
        }
    }

    fn id(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}{}", self.made)
    }

    fn apply(&mut self, action: &Action) -> Outcome {
        match action {
            Action::PrepareVolumes | Action::RemoveVolumes => Outcome::Done,
            Action::CreateSandbox { attempt } => {
                assert!(!self.sandboxes.iter().any(|one| one.ready), "two sandboxes at once");
                let id = self.id("s");
                self.sandboxes.push(ObservedSandbox {
                    id,
                    attempt: *attempt,
                    ready: true,
                    created_at: self.now,
                    ips: vec!["10.42.0.5".into()],
                });
                Outcome::Done
            }
            Action::EnsureImage { .. } if self.broken_images => {
                Outcome::ImageFailed { reason: "ErrImagePull".into(), message: "no such host".into() }
            }
            Action::EnsureImage { .. } => {
                Outcome::ImageReady { image_ref: "sha256:1".into(), message: "present".into() }
            }
            Action::StartContainer { container, attempt, sandbox_id, .. } => {
                self.start(container, *attempt, sandbox_id)
            }
            Action::StopContainer { id, .. } => {
                self.exit(&id.clone(), 143);
                Outcome::Done
            }
            Action::ResizeContainer { container, id } => {
                self.resized.push((container.clone(), id.clone()));
                Outcome::Done
            }
            Action::RemoveContainer { id } => {
                self.containers.retain(|one| &one.id != id);
                Outcome::Done
            }
            Action::Probe { .. } => Outcome::Probed { result: ProbeOutcome::Success, began_at: self.now },
            Action::StopSandbox { id } => {
                let running = self.containers.iter().any(|one| one.is_running() && &one.sandbox_id == id);
                assert!(!running, "a sandbox was stopped under a running container");
                self.sandboxes.iter_mut().filter(|one| &one.id == id).for_each(|one| one.ready = false);
                Outcome::Done
            }
            Action::RemoveSandbox { id } => {
                self.sandboxes.retain(|one| &one.id != id);
                self.containers.retain(|one| &one.sandbox_id != id);
                Outcome::Done
            }
            Action::FinishDelete => {
                assert!(self.sandboxes.is_empty() && self.containers.is_empty(), "finished too early");
                self.finished = true;
                self.presence = Presence::Gone;
                Outcome::Done
            }
        }
    }

    fn start(&mut self, name: &str, attempt: u32, sandbox_id: &str) -> Outcome {
        let double = self.containers.iter().any(|one| one.name == name && one.is_running());
        assert!(!double, "two running instances of {name}");
        self.starts.push((name.to_owned(), attempt));
        if !self.sandboxes.iter().any(|one| one.ready && one.id == sandbox_id) {
            return Outcome::StartFailed {
                failure: StartFailure::CreateContainerError,
                id: None,
                message: "no such sandbox".into(),
            };
        }
        let id = self.id("c");
        self.containers.push(ObservedContainer {
            id: id.clone(),
            name: name.to_owned(),
            attempt,
            sandbox_id: sandbox_id.to_owned(),
            created_at: self.now,
            state: ContainerState::Running { started_at: self.now },
            image: "web:1".into(),
            image_ref: "sha256:1".into(),
        });
        Outcome::Started { id }
    }

    fn exit(&mut self, id: &str, code: i32) {
        let now = self.now;
        for one in self.containers.iter_mut().filter(|one| one.id == id) {
            if let ContainerState::Running { started_at } = one.state {
                one.state = ContainerState::Exited {
                    started_at: Some(started_at),
                    finished_at: now,
                    code,
                    reason: String::new(),
                    message: String::new(),
                };
            }
        }
    }

    fn exit_named(&mut self, name: &str, code: i32) {
        let running = self.containers.iter().find(|one| one.name == name && one.is_running());
        let id = running.expect("it runs").id.clone();
        self.exit(&id, code);
    }

    /// Passes and actions until neither has anything left to do.
    fn settle(&mut self) -> Decision {
        for _ in 0..200 {
            let decision = self.look();
            if self.pending.is_empty() {
                return decision;
            }
            while !self.pending.is_empty() {
                self.do_one(0);
            }
        }
        panic!("it does not settle");
    }

    fn wait(&mut self, seconds: i64) {
        self.now = self.now.saturating_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    fn phase(&self) -> &str {
        self.pod.status.as_ref().unwrap().phase.as_deref().unwrap()
    }

    fn status(&self, index: usize) -> &k8s_openapi::api::core::v1::ContainerStatus {
        &self.pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[index]
    }

    fn waiting(&self) -> &str {
        let state = self.status(0).state.as_ref().unwrap();
        state.waiting.as_ref().map_or("", |waiting| waiting.reason.as_deref().unwrap())
    }

    fn condition(&self, name: &str) -> &str {
        let all = self.pod.status.as_ref().unwrap().conditions.as_ref().unwrap();
        &all.iter().find(|one| one.type_ == name).unwrap().status
    }

    fn delete(&mut self, grace: i64) {
        let deadline = self.now.saturating_add(SignedDuration::from_secs(grace)).unwrap();
        self.pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(deadline));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
    }
}

#[test]
fn a_new_pod_goes_straight_through_to_running_without_a_timer() {
    let mut world = World::new(one_container("Always"));
    let decision = world.settle();
    assert_eq!(world.phase(), "Running");
    assert_eq!(world.now, at(0));
    assert_eq!(decision.wake_at, None);
    assert_eq!(world.condition("Ready"), "True");
    assert_eq!(world.pod.status.as_ref().unwrap().pod_ip.as_deref(), Some("10.42.0.5"));
    assert_eq!(world.status(0).container_id.as_deref(), Some("gantry://c2"));
    assert_eq!(world.events, ["Pulled", "Created", "Started"]);
}

#[test]
fn an_exited_container_restarts_as_its_policy_says() {
    for (policy, code, restarts, phase) in [
        ("Always", 0, true, "Running"),
        ("Always", 1, true, "Running"),
        ("OnFailure", 0, false, "Succeeded"),
        ("OnFailure", 1, true, "Running"),
        ("Never", 0, false, "Succeeded"),
        ("Never", 1, false, "Failed"),
    ] {
        let mut world = World::new(one_container(policy));
        world.settle();
        world.exit_named("app", code);
        world.settle();
        assert_eq!(world.starts.len() > 1, restarts, "{policy} {code}");
        assert_eq!(world.phase(), phase, "{policy} {code}");
        assert_eq!(world.status(0).restart_count, i32::from(restarts), "{policy} {code}");
    }
}

#[test]
fn crashes_back_off_from_ten_seconds_to_five_minutes_and_ten_good_minutes_forgive() {
    let mut world = World::new(one_container("Always"));
    world.settle();
    for delay in [0, 10, 20, 40, 80, 160, 300, 300] {
        world.exit_named("app", 1);
        if delay > 0 {
            let decision = world.settle();
            assert_eq!(world.waiting(), "CrashLoopBackOff");
            assert_eq!(decision.wake_at.unwrap().duration_since(world.now).as_secs(), delay);
            assert!(world.status(0).last_state.as_ref().unwrap().terminated.is_some());
            world.wait(delay - 1);
            world.settle();
            assert_eq!(world.waiting(), "CrashLoopBackOff");
            world.wait(1);
        }
        world.settle();
        assert_eq!(world.phase(), "Running");
        assert_eq!(world.waiting(), "");
    }
    world.wait(601);
    world.exit_named("app", 1);
    world.settle();
    assert_eq!(world.waiting(), "");
    assert_eq!(world.status(0).restart_count, 9);
}

#[test]
fn a_restarted_agent_keeps_restart_counts_and_restarts_nothing() {
    let mut world = World::new(one_container("Always"));
    world.settle();
    world.exit_named("app", 1);
    world.settle();
    let starts = world.starts.len();
    world.memory = Memory::default();
    world.settle();
    assert_eq!(world.starts.len(), starts);
    assert_eq!(world.status(0).restart_count, 1);
    assert_eq!(world.sandboxes.len(), 1);
}

#[test]
fn a_run_once_container_that_the_runtime_has_lost_does_not_run_again() {
    for policy in ["Never", "OnFailure", "Always"] {
        let mut world = World::new(one_container(policy));
        world.settle();
        world.sandboxes.clear();
        world.containers.clear();
        world.memory = Memory::default();
        world.settle();
        assert_eq!(world.starts.len(), if policy == "Never" { 1 } else { 2 }, "{policy}");
        assert_eq!(world.phase(), if policy == "Never" { "Failed" } else { "Running" });
    }
}

#[test]
fn an_image_that_cannot_be_pulled_backs_off_and_says_so() {
    let mut world = World::new(one_container("Always"));
    world.broken_images = true;
    world.settle();
    assert_eq!(world.waiting(), "ErrImagePull");
    world.wait(2);
    let decision = world.settle();
    assert_eq!(world.waiting(), "ImagePullBackOff");
    assert_eq!(decision.wake_at, Some(at(10)));
    world.broken_images = false;
    world.wait(8);
    world.settle();
    assert_eq!(world.phase(), "Running");
}

#[test]
fn init_containers_run_in_order_and_sidecars_before_what_follows() {
    let mut world = World::new(pod(json!({
        "restartPolicy": "Always",
        "initContainers": [
            {"name": "first", "image": "i"},
            {"name": "side", "image": "i", "restartPolicy": "Always"},
            {"name": "second", "image": "i"}
        ],
        "containers": [{"name": "app", "image": "web:1"}, {"name": "more", "image": "i"}]
    })));
    world.settle();
    assert_eq!(world.condition("Initialized"), "False");
    assert_eq!(world.waiting(), "PodInitializing");
    world.exit_named("first", 0);
    world.settle();
    world.exit_named("second", 0);
    world.settle();
    let names: Vec<_> = world.starts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["first", "side", "second", "app", "more"]);
    assert_eq!(world.phase(), "Running");
    assert_eq!(world.condition("Initialized"), "True");
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "i", "image": "i"}], "containers": [{"name": "app"}]});
    let mut world = World::new(pod(spec));
    world.settle();
    world.exit_named("i", 3);
    world.settle();
    assert_eq!(world.phase(), "Failed");
    assert_eq!(world.starts.len(), 1);
}

#[test]
fn a_deleted_pod_stops_sidecars_last_and_its_object_goes_when_nothing_is_left() {
    let mut world = World::new(pod(json!({
        "initContainers": [{"name": "side", "image": "i", "restartPolicy": "Always"}],
        "containers": [{"name": "app", "image": "web:1"}]
    })));
    world.settle();
    world.delete(30);
    let first = world.look();
    let stops: Vec<_> = first
        .actions
        .iter()
        .map(|action| match action {
            Action::StopContainer { container, grace_seconds, .. } => (container.as_str(), *grace_seconds),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(stops, [("app", 30)]);
    world.settle();
    assert!(world.finished);
    assert_eq!(world.presence, Presence::Gone);
}

#[test]
fn a_forced_deletion_overtakes_an_orderly_stop() {
    let mut world = World::new(one_container("Always"));
    world.settle();
    world.delete(30);
    assert_eq!(world.look().actions.len(), 1);
    assert!(world.look().actions.is_empty());
    world.presence = Presence::Gone;
    let forced = world.look().actions;
    assert!(matches!(forced.as_slice(), [Action::StopContainer { grace_seconds: 1, .. }]));
}

#[test]
fn readiness_follows_the_probe_and_a_failing_liveness_probe_restarts_the_container() {
    let mut world = World::new(pod(json!({"containers": [{
        "name": "app", "image": "web:1",
        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
        "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 5, "failureThreshold": 2}
    }]})));
    let decision = world.settle();
    assert_eq!(world.condition("Ready"), "True");
    assert_eq!(decision.wake_at, Some(at(1)));
    for _ in 0..2 {
        world.wait(5);
        world.look();
        let pending = std::mem::take(&mut world.pending);
        for action in pending {
            let result = ProbeOutcome::Failure("refused".into());
            let outcome = Outcome::Probed { result, began_at: world.now };
            let pod = world.pod.clone();
            let events = world.memory.record(&pod, &action, outcome, world.now);
            assert!(events.iter().all(|event| event.reason == "Unhealthy"));
        }
    }
    let decision = world.look();
    assert!(decision.actions.iter().any(|action| matches!(
        action,
        Action::StopContainer { reason: StopReason::ProbeFailed(ProbeKind::Liveness), .. }
    )));
    while !world.pending.is_empty() {
        world.do_one(0);
    }
    world.settle();
    assert_eq!(world.status(0).restart_count, 1);
}

#[test]
fn a_startup_probe_holds_back_the_others_and_readiness_survives_a_restart_of_the_agent() {
    let mut world = World::new(pod(json!({"containers": [{
        "name": "app", "image": "web:1",
        "startupProbe": {"tcpSocket": {"port": 80}, "initialDelaySeconds": 3},
        "readinessProbe": {"tcpSocket": {"port": 80}}
    }]})));
    let decision = world.settle();
    assert_eq!(decision.wake_at, Some(at(3)));
    assert_eq!(world.status(0).started, Some(false));
    assert_eq!(world.condition("Ready"), "False");
    world.wait(3);
    world.settle();
    assert_eq!(world.condition("Ready"), "True");
    world.memory = Memory::default();
    world.look();
    assert_eq!(world.condition("Ready"), "True");
}

#[test]
fn probe_verdicts_change_only_after_their_threshold_in_a_row() {
    let probe = serde_json::from_value(json!({"successThreshold": 2, "failureThreshold": 3})).unwrap();
    let success = ProbeOutcome::Success;
    let failure = ProbeOutcome::Failure(String::new());
    let unknown = ProbeOutcome::Unknown(String::new());
    use ProbeResult::{Failure, Success, Unknown};
    let mut state = ProbeState::default();
    for (outcome, verdict) in [
        (&success, Unknown),
        (&failure, Unknown),
        (&success, Unknown),
        (&success, Success),
        (&failure, Success),
        (&failure, Success),
        (&unknown, Success),
        (&failure, Failure),
        (&success, Failure),
        (&success, Success),
    ] {
        state = state.after(&probe, outcome, at(0));
        assert_eq!(state.verdict, verdict);
    }
}

#[test]
fn a_pod_past_its_deadline_fails() {
    let mut world = World::new(pod(json!({"activeDeadlineSeconds": 60, "containers": [{"name": "app"}]})));
    let decision = world.settle();
    assert_eq!(decision.wake_at, Some(at(60)));
    world.wait(60);
    world.settle();
    assert_eq!(world.phase(), "Failed");
    assert_eq!(world.pod.status.as_ref().unwrap().reason.as_deref(), Some("DeadlineExceeded"));
    assert!(world.sandboxes.iter().all(|one| !one.ready));
}

#[test]
fn a_dead_sandbox_is_replaced_and_its_containers_start_anew() {
    let mut world = World::new(one_container("Always"));
    world.settle();
    world.sandboxes[0].ready = false;
    world.exit_named("app", 137);
    world.settle();
    assert_eq!(world.sandboxes.iter().filter(|one| one.ready).map(|one| one.attempt).collect::<Vec<_>>(), [1]);
    assert_eq!(world.phase(), "Running");
}

#[test]
fn quality_of_service_follows_requests_and_limits() {
    for (resources, class) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}}), "Guaranteed"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
    ] {
        let pod = pod(json!({"containers": [{"name": "a", "resources": resources}]}));
        assert_eq!(qos_class(pod.spec.as_ref().unwrap()), class);
    }
}

#[test]
fn pull_policies_choose_between_what_is_here_and_the_registry() {
    use ImageChoice::{Pull, Refuse, UsePresent};
    for (policy, present, local, choice) in [
        (PullPolicy::Always, true, false, Pull),
        (PullPolicy::Always, true, true, UsePresent),
        (PullPolicy::Always, false, false, Pull),
        (PullPolicy::IfNotPresent, true, false, UsePresent),
        (PullPolicy::IfNotPresent, false, false, Pull),
        (PullPolicy::Never, true, false, UsePresent),
        (PullPolicy::Never, false, false, Refuse),
    ] {
        assert_eq!(choose_image(policy, present, local), choice);
    }
    for (image, policy) in [
        ("nginx", PullPolicy::Always),
        ("nginx:latest", PullPolicy::Always),
        ("nginx:1", PullPolicy::IfNotPresent),
        ("localhost:5000/nginx", PullPolicy::Always),
        ("nginx@sha256:00", PullPolicy::IfNotPresent),
    ] {
        let container = serde_json::from_value(json!({"name": "a", "image": image})).unwrap();
        assert_eq!(effective_pull_policy(&container), policy, "{image}");
    }
}

/// What may happen to a pod between two passes.
#[derive(Debug, Clone)]
enum Step {
    Do(usize),
    Exit(usize, i32),
    Wait(i64),
    ForgetEverything,
    LoseSandbox,
    BreakImages(bool),
    Delete,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_usize).prop_map(Step::Do),
        2 => (0..4_usize, 0..2_i32).prop_map(|(which, code)| Step::Exit(which, code)),
        2 => (1..40_i64).prop_map(Step::Wait),
        1 => Just(Step::LoseSandbox),
        1 => any::<bool>().prop_map(Step::BreakImages),
        1 => Just(Step::ForgetEverything),
    ]
}

impl World {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Do(which) if !self.pending.is_empty() => self.do_one(which % self.pending.len()),
            Step::Do(_) => {}
            Step::Exit(which, code) => {
                let running: Vec<_> =
                    self.containers.iter().filter(|one| one.is_running()).map(|one| one.id.clone()).collect();
                if let Some(id) = running.get(which % running.len().max(1)) {
                    self.exit(id, *code);
                }
            }
            Step::Wait(seconds) => self.wait(*seconds),
            // The agent dies: what it was doing is lost with what it knew.
            Step::ForgetEverything => {
                self.memory = Memory::default();
                self.pending.clear();
            }
            Step::LoseSandbox => {
                self.sandboxes.iter_mut().for_each(|one| one.ready = false);
                let ids: Vec<_> = self.containers.iter().map(|one| one.id.clone()).collect();
                ids.iter().for_each(|id| self.exit(id, 137));
            }
            Step::BreakImages(broken) => self.broken_images = *broken,
            Step::Delete => self.delete(30),
        }
    }

    fn check(&self, policy: &str) {
        let mut starts: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, _) in &self.starts {
            *starts.entry(name).or_default() += 1;
        }
        for name in ["a", "b"] {
            let count = starts.get(name).copied().unwrap_or(0);
            let failed = self.memory.start_errors.contains_key(name) || self.starts.is_empty();
            if policy == "Never" && !failed {
                assert!(self.containers.iter().filter(|one| one.name == name).count() <= 1, "{count} runs of {name}");
            }
            if count > 0 {
                let init = self.starts.iter().position(|(one, _)| one == "init");
                let main = self.starts.iter().position(|(one, _)| one == name);
                assert!(init < main, "{name} came before its init container");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn whatever_happens_no_rule_is_broken_and_a_deleted_pod_is_gone_in_the_end(
        steps in prop::collection::vec(step(), 0..60),
        policy in prop::sample::select(vec!["Always", "OnFailure", "Never"]),
    ) {
        let mut world = World::new(pod(json!({
            "restartPolicy": policy,
            "initContainers": [{"name": "init", "image": "i"}],
            "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]
        })));
        for step in &steps {
            world.look();
            world.step(step);
            world.check(policy);
        }
        world.broken_images = false;
        world.step(&Step::Delete);
        for _ in 0..50 {
            world.wait(60);
            if world.settle().actions.is_empty() && world.finished {
                break;
            }
        }
        prop_assert!(world.finished, "left: {:?} {:?}", world.sandboxes, world.containers);
        prop_assert!(world.settle().actions.is_empty());
    }
}

fn with_memory(limit: &str) -> Value {
    json!({"requests": {"memory": limit}, "limits": {"memory": limit}})
}

fn sized(policy: Value) -> World {
    let container = json!({"name": "app", "image": "web:1", "resources": with_memory("64Mi"), "resizePolicy": policy});
    let mut world = World::new(pod(json!({"restartPolicy": "Always", "containers": [container]})));
    world.settle();
    assert_eq!(world.phase(), "Running");
    world
}

fn resize(world: &mut World, limit: &str) {
    let resources = serde_json::from_value(with_memory(limit)).unwrap();
    world.pod.spec.as_mut().unwrap().containers[0].resources = Some(resources);
}

fn memory_of(world: &World) -> String {
    let resources = world.status(0).resources.clone().unwrap();
    resources.limits.unwrap()["memory"].0.clone()
}

#[test]
fn a_resize_changes_a_running_container_in_place_unless_its_policy_wants_a_restart() {
    let mut world = sized(json!([]));
    resize(&mut world, "96Mi");
    let decision = world.look();
    assert!(matches!(decision.actions.as_slice(), [Action::ResizeContainer { .. }]), "{:?}", decision.actions);
    assert_eq!((memory_of(&world).as_str(), world.condition("PodResizeInProgress")), ("64Mi", "True"));
    world.settle();
    assert_eq!((world.resized.len(), world.starts.len(), memory_of(&world).as_str()), (1, 1, "96Mi"));
    assert_eq!(world.status(0).allocated_resources.as_ref().unwrap()["memory"].0, "96Mi");
    // A restarted agent does not do it again: the status tells what the container has.
    world.memory = Memory::default();
    world.settle();
    assert_eq!(world.resized.len(), 1);

    let mut world = sized(json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]));
    resize(&mut world, "96Mi");
    world.settle();
    assert_eq!((world.resized.len(), world.starts.len(), memory_of(&world).as_str()), (0, 2, "96Mi"));
}

#[test]
fn a_resize_that_the_node_has_no_room_for_waits_and_says_why() {
    let mut world = sized(json!([]));
    let room = Room { capacity_millicpu: 2000, capacity_memory_bytes: 128 << 20, used_millicpu: 0, used_memory_bytes: 64 << 20 };
    world.room = Some(room);
    for (limit, reason) in [("100Mi", "Deferred"), ("1Gi", "Infeasible")] {
        resize(&mut world, limit);
        world.settle();
        let all = world.pod.status.as_ref().unwrap().conditions.clone().unwrap();
        let pending = all.iter().find(|one| one.type_ == "PodResizePending").unwrap();
        assert_eq!(pending.reason.as_deref(), Some(reason));
        assert_eq!((world.resized.len(), memory_of(&world).as_str()), (0, "64Mi"));
    }
    world.room = Some(Room { used_memory_bytes: 0, ..room });
    resize(&mut world, "100Mi");
    world.settle();
    assert_eq!((world.resized.len(), memory_of(&world).as_str()), (1, "100Mi"));
    let all = world.pod.status.as_ref().unwrap().conditions.clone().unwrap();
    assert!(!all.iter().any(|one| one.type_.starts_with("PodResize")), "{all:?}");
}

#[test]
fn an_evicted_pod_ends_at_once_fails_and_is_not_restarted() {
    let mut world = World::new(one_container("Always"));
    world.settle();
    world.memory.evict("The node was low on resource: memory. ".to_owned());
    let decision = world.look();
    assert!(matches!(decision.actions.as_slice(), [Action::StopContainer { grace_seconds: 1, .. }]), "{:?}", decision.actions);
    world.settle();
    assert_eq!((world.phase(), world.starts.len()), ("Failed", 1));
    let status = world.pod.status.clone().unwrap();
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(status.message.as_deref(), Some("The node was low on resource: memory. "));
    assert_eq!(world.condition("DisruptionTarget"), "True");
    // The agent is restarted afterwards: what was said stays said.
    world.memory = Memory::default();
    world.settle();
    assert_eq!(world.pod.status.as_ref().unwrap().reason.as_deref(), Some("Evicted"));
    assert_eq!(world.starts.len(), 1);
}
