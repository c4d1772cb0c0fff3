use super::*;
use k8s_openapi::api::apps::v1::ReplicaSetStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::json;

fn deployment(replicas: i32, surge: i32, unavailable: i32, image: &str) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "d", "generation": 1,
                     "annotations": {"kubernetes.io/change-cause": image, "kubectl.kubernetes.io/last-applied-configuration": "x"}},
        "spec": {"replicas": replicas, "progressDeadlineSeconds": 600, "selector": {"matchLabels": {"app": "web"}},
                 "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}
    }))
    .unwrap()
}

fn set_image(deployment: &mut Deployment, image: &str) {
    let spec = deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
    spec.containers[0].image = Some(image.to_owned());
}

/// A cluster of one Deployment, its ReplicaSets, and pods that are only numbers.
struct World {
    deployment: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    now: Timestamp,
    made: i64,
}

impl World {
    fn new(deployment: Deployment) -> Self {
        World { deployment, sets: Vec::new(), now: "2026-01-01T00:00:00Z".parse().unwrap(), made: 0 }
    }

    /// One pass of the controller with its actions applied; says whether it did anything.
    fn pass(&mut self) -> bool {
        let decision = decide(&View { desired: &self.deployment, sets: &self.sets, pods: &[], now: self.now });
        let changed = !decision.actions.is_empty() || self.deployment.status.as_ref() != Some(&decision.status);
        for action in decision.actions {
            self.apply(action);
        }
        self.deployment.status = Some(decision.status);
        changed
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Create(mut set) => {
                self.made += 1;
                set.metadata.uid = set.metadata.name.clone();
                set.metadata.creation_timestamp = Some(Time(Timestamp::from_second(self.made).unwrap()));
                set.status = Some(ReplicaSetStatus::default());
                self.sets.push(Arc::new(*set));
            }
            Action::Update { set, .. } => {
                let at = self.sets.iter().position(|s| s.metadata.uid == set.metadata.uid).unwrap();
                self.sets[at] = Arc::new(*set);
            }
            Action::Delete(gone) => self.sets.retain(|s| s.metadata.uid != gone.metadata.uid),
            Action::SetRevision(revision) => {
                self.deployment.metadata.annotations.as_mut().unwrap().insert(REVISION.into(), revision);
            }
            Action::Adopt(_) | Action::Release(_) => unreachable!("every set is owned"),
        }
    }

    fn change_set(&mut self, at: usize, change: impl FnOnce(&mut ReplicaSet)) {
        let mut set = ReplicaSet::clone(&self.sets[at]);
        change(&mut set);
        self.sets[at] = Arc::new(set);
    }

    /// The ReplicaSet controller and the nodes do their part for one set: all pods made, `available` of them serve.
    fn settle(&mut self, at: usize, available: i32) {
        self.change_set(at, |set| {
            let replicas = sets::replicas(set);
            let available = available.min(replicas);
            set.status = Some(ReplicaSetStatus {
                replicas,
                ready_replicas: Some(available),
                available_replicas: Some(available),
                observed_generation: set.metadata.generation,
                ..ReplicaSetStatus::default()
            });
        });
    }

    fn settle_all(&mut self) {
        for at in 0..self.sets.len() {
            self.settle(at, i32::MAX);
        }
    }

    fn run(&mut self) {
        for _ in 0..200 {
            let changed = self.pass();
            self.settle_all();
            if !changed && !self.pass() {
                return;
            }
        }
        panic!("the rollout does not end");
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(|s| sets::replicas(s)).collect()
    }

    fn reason(&self, type_: &str) -> String {
        let status = self.deployment.status.as_ref().unwrap();
        let condition = status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == type_).unwrap();
        condition.reason.clone().unwrap()
    }

    fn revision(&self) -> &str {
        &self.deployment.metadata.annotations.as_ref().unwrap()[REVISION]
    }
}

#[test]
fn a_new_deployment_makes_its_replicaset_whole_at_once() {
    let mut world = World::new(deployment(3, 1, 0, "one"));
    assert!(world.pass());
    assert_eq!(world.sizes(), [3]);
    assert_eq!(world.reason("Progressing"), "NewReplicaSetCreated");
    assert_eq!(world.reason("Available"), "MinimumReplicasUnavailable");
    let set = &world.sets[0];
    let hash = &set.metadata.labels.as_ref().unwrap()[HASH_LABEL];
    assert_eq!(set.metadata.name.as_deref(), Some(format!("web-{hash}").as_str()));
    assert_eq!(set.spec.as_ref().unwrap().selector.match_labels.as_ref().unwrap()[HASH_LABEL], *hash);
    let annotations = set.metadata.annotations.as_ref().unwrap();
    assert_eq!((annotations[REVISION].as_str(), annotations[DESIRED_REPLICAS].as_str()), ("1", "3"));
    assert_eq!((annotations[MAX_REPLICAS].as_str(), annotations["kubernetes.io/change-cause"].as_str()), ("4", "one"));
    assert!(!annotations.contains_key("kubectl.kubernetes.io/last-applied-configuration"));
    world.run();
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
    assert_eq!(world.reason("Available"), "MinimumReplicasAvailable");
    assert_eq!(world.revision(), "1");
    assert!(!world.pass(), "a finished rollout rests");
}

#[test]
fn a_rolling_update_goes_one_up_one_down_when_nothing_may_be_missing() {
    let mut world = World::new(deployment(3, 1, 0, "one"));
    world.run();
    set_image(&mut world.deployment, "two");
    let mut seen = vec![world.sizes()];
    for _ in 0..40 {
        world.pass();
        if seen.last() != Some(&world.sizes()) {
            seen.push(world.sizes());
        }
        world.settle_all();
    }
    let expected: [&[i32]; 8] = [&[3], &[3, 1], &[2, 1], &[2, 2], &[1, 2], &[1, 3], &[0, 3], &[0, 3]];
    assert_eq!(seen, expected[..7]);
    assert_eq!((world.revision(), world.reason("Progressing").as_str()), ("2", "NewReplicaSetAvailable"));
}

#[test]
fn an_undo_reuses_the_old_replicaset_under_a_new_revision() {
    let mut world = World::new(deployment(2, 1, 0, "one"));
    world.run();
    set_image(&mut world.deployment, "two");
    world.run();
    set_image(&mut world.deployment, "one");
    world.run();
    assert_eq!((world.sizes(), world.revision()), (vec![2, 0], "3"));
    let annotations = world.sets[0].metadata.annotations.as_ref().unwrap();
    assert_eq!((annotations[REVISION].as_str(), annotations[REVISION_HISTORY].as_str()), ("3", "1"));
}

#[test]
fn a_stuck_rollout_stays_within_its_limits_and_times_out() {
    let mut world = World::new(deployment(3, 1, 0, "one"));
    world.run();
    set_image(&mut world.deployment, "broken");
    for _ in 0..10 {
        world.pass();
        world.settle(0, i32::MAX);
        if world.sets.len() > 1 {
            world.settle(1, 0);
        }
    }
    assert_eq!(world.sizes(), [3, 1]);
    let view = View { desired: &world.deployment, sets: &world.sets, pods: &[], now: world.now };
    let wake = decide(&view).wake_at.expect("it looks again at the deadline");
    world.now = wake;
    world.pass();
    assert_eq!(world.reason("Progressing"), "ProgressDeadlineExceeded");
    assert_eq!(world.reason("Available"), "MinimumReplicasAvailable");
    assert!(!world.pass());
}

#[test]
fn scaling_during_a_rollout_is_shared_in_proportion() {
    let mut world = World::new(deployment(10, 3, 2, "one"));
    world.run();
    set_image(&mut world.deployment, "two");
    world.pass();
    world.settle(0, i32::MAX);
    world.pass();
    assert_eq!(world.sizes(), [8, 3].map(|n| n), "{:?}", world.sizes());
    world.settle(0, i32::MAX);
    world.pass();
    let before = world.sizes();
    world.deployment.spec.as_mut().unwrap().replicas = Some(15);
    world.pass();
    let after = world.sizes();
    assert_eq!(after.iter().sum::<i32>(), 18, "{before:?} -> {after:?}");
    assert!(after[0] > before[0] && after[1] > before[1], "{before:?} -> {after:?}");
}

#[test]
fn a_plain_scale_changes_the_only_active_replicaset() {
    let mut world = World::new(deployment(3, 1, 0, "one"));
    world.run();
    for size in [5, 0, 2] {
        world.deployment.spec.as_mut().unwrap().replicas = Some(size);
        world.run();
        assert_eq!((world.sizes(), world.revision()), (vec![size], "1"));
    }
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(deployment(3, 1, 0, "one"));
    world.run();
    world.deployment.spec.as_mut().unwrap().paused = Some(true);
    set_image(&mut world.deployment, "two");
    world.deployment.spec.as_mut().unwrap().replicas = Some(4);
    world.run();
    assert_eq!((world.sizes(), world.reason("Progressing").as_str()), (vec![4], "DeploymentPaused"));
    world.deployment.spec.as_mut().unwrap().paused = None;
    world.run();
    assert_eq!((world.sizes(), world.reason("Progressing").as_str()), (vec![0, 4], "NewReplicaSetAvailable"));
}

#[test]
fn recreate_takes_everything_down_before_anything_comes_up() {
    let mut world = World::new(deployment(3, 0, 0, "one"));
    world.deployment.spec.as_mut().unwrap().strategy.as_mut().unwrap().type_ = Some("Recreate".into());
    world.run();
    set_image(&mut world.deployment, "two");
    world.pass();
    assert_eq!(world.sizes(), [0]);
    let uid = world.sets[0].metadata.uid.clone().unwrap();
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z",
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": uid, "controller": true}]}}))
    .unwrap();
    let view = View { desired: &world.deployment, sets: &world.sets, pods: &[Arc::new(pod)], now: world.now };
    assert!(decide(&view).actions.is_empty(), "a pod of the old template still terminates");
    world.run();
    assert_eq!(world.sizes(), [0, 3]);
}

#[test]
fn old_replicasets_beyond_the_history_limit_are_deleted_oldest_first() {
    let mut world = World::new(deployment(1, 1, 0, "v0"));
    world.deployment.spec.as_mut().unwrap().revision_history_limit = Some(2);
    for version in 0..5 {
        set_image(&mut world.deployment, &format!("v{version}"));
        world.run();
    }
    let images = world.sets.iter().map(|s| {
        s.spec.as_ref().unwrap().template.as_ref().unwrap().spec.as_ref().unwrap().containers[0].image.clone().unwrap()
    });
    assert_eq!(images.collect::<Vec<_>>(), ["v2", "v3", "v4"]);
}

#[test]
fn percentages_round_surge_up_and_unavailable_down() {
    for (replicas, surge, unavailable, expected) in [
        (10, "25%", "25%", (3, 2)),
        (1, "25%", "25%", (1, 0)),
        (4, "0%", "10%", (0, 1)),
        (3, "100%", "100%", (3, 3)),
        (3, "nonsense", "0%", (0, 1)),
    ] {
        let mut d = deployment(replicas, 0, 0, "x");
        let strategy = d.spec.as_mut().unwrap().strategy.as_mut().unwrap().rolling_update.as_mut().unwrap();
        strategy.max_surge = Some(IntOrString::String(surge.into()));
        strategy.max_unavailable = Some(IntOrString::String(unavailable.into()));
        let limits = limits(&d);
        assert_eq!((limits.max_surge, limits.max_unavailable), expected, "{replicas} {surge} {unavailable}");
    }
}

#[test]
fn a_replicaset_that_nobody_controls_is_adopted_and_a_strangers_is_left_alone() {
    let mut world = World::new(deployment(1, 1, 0, "one"));
    world.run();
    let mut orphan = ReplicaSet::clone(&world.sets[0]);
    orphan.metadata.owner_references = None;
    let mut foreign = orphan.clone();
    foreign.metadata.owner_references = Some(vec![owners::reference::<Deployment>(&Default::default())]);
    let sets = [Arc::new(orphan), Arc::new(foreign)];
    let decision = decide(&View { desired: &world.deployment, sets: &sets, pods: &[], now: world.now });
    assert_eq!(decision.actions[0], Action::Adopt(sets[0].clone()));
}

proptest! {
    /// Under any order of readiness, failures and template changes: never more than the surge allows, never an old pod
    /// taken down that would leave too few available, and once everything serves, the rollout ends.
    #[test]
    fn a_rolling_update_keeps_its_promises(
        replicas in 1i32..8,
        surge in 0i32..4,
        unavailable in 0i32..4,
        steps in proptest::collection::vec((0u8..10, 0i32..10), 1..40),
    ) {
        let mut world = World::new(deployment(replicas, surge, unavailable, "v0"));
        world.run();
        let limits = limits(&world.deployment);
        let floor = limits.replicas - limits.max_unavailable;
        for (n, (kind, amount)) in steps.into_iter().enumerate() {
            if kind == 0 {
                set_image(&mut world.deployment, &format!("v{n}"));
            }
            if kind > 3 {
                // Pods only ever become available here: what goes missing is this controller's doing.
                for at in 0..world.sets.len() {
                    let before = world.sets[at].status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0);
                    world.settle(at, before + amount);
                }
            }
            world.pass();
            let total: i32 = world.sizes().iter().sum();
            prop_assert!(total <= limits.replicas + limits.max_surge, "{:?}", world.sizes());
            let serving: i32 = world.sets.iter().map(|s| {
                s.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0).min(sets::replicas(s))
            }).sum();
            prop_assert!(serving >= floor, "{} serve, {} must: {:?}", serving, floor, world.sizes());
        }
        world.run();
        prop_assert_eq!(world.sizes().iter().sum::<i32>(), replicas);
        prop_assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
    }
}
