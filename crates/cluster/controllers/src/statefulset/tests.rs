use super::*;
use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second)
}

/// A small world: a StatefulSet, and a shell that applies decisions as the real one does.
struct World {
    set: StatefulSet,
    pods: Vec<Arc<Pod>>,
    claims: Vec<Arc<PersistentVolumeClaim>>,
    revisions: Vec<Arc<ControllerRevision>>,
    clock: i64,
    made: usize,
}

impl World {
    fn new(spec: Value) -> Self {
        let mut full = json!({"replicas": 3, "serviceName": "svc", "selector": {"matchLabels": {"a": "b"}}, "template":
            {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let set = json!({"metadata": {"name": "s", "namespace": "n", "uid": "set", "generation": 1}, "spec": full});
        let set = serde_json::from_value(set).unwrap();
        World { set, pods: Vec::new(), claims: Vec::new(), revisions: Vec::new(), clock: 100, made: 0 }
    }

    fn spec(&mut self) -> &mut StatefulSetSpec {
        self.set.spec.as_mut().unwrap()
    }

    fn image(&mut self, image: &str) {
        self.spec().template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
    }

    fn pass(&mut self) -> Decision {
        let view = View {
            set: &self.set,
            pods: &self.pods,
            claims: &self.claims,
            revisions: &self.revisions,
            now: at(self.clock),
        };
        let decision = decide(&view);
        for action in &decision.actions {
            match action {
                Action::CreateClaim { claim, .. } => self.claims.push(Arc::new((**claim).clone())),
                Action::UpdateClaim(claim) => {
                    self.claims.retain(|c| c.metadata.name != claim.metadata.name);
                    self.claims.push(Arc::new((**claim).clone()));
                }
                Action::CreatePod(pod) => {
                    assert!(self.pods.iter().all(|p| p.metadata.name != pod.metadata.name), "a second pod of a number");
                    self.made += 1;
                    let mut pod = (**pod).clone();
                    pod.metadata.uid = Some(self.made.to_string());
                    self.pods.push(Arc::new(pod));
                }
                Action::DeletePod(pod) => self.pods.retain(|p| p.metadata.uid != pod.metadata.uid),
                Action::Revision(revisions::Action::Create(r)) => self.revisions.push(Arc::new((**r).clone())),
                Action::Revision(revisions::Action::Renumber(r)) => {
                    self.revisions.retain(|own| own.metadata.name != r.metadata.name);
                    self.revisions.push(Arc::new((**r).clone()));
                }
                Action::Revision(revisions::Action::Delete(r)) => {
                    self.revisions.retain(|own| own.metadata.name != r.metadata.name);
                }
                Action::Revision(revisions::Action::Adopt(_)) | Action::Adopt(_) | Action::Release(_) => {}
                Action::UpdatePod(_) | Action::Event { .. } => {}
            }
        }
        self.set.status = Some(decision.status.clone());
        decision
    }

    fn ready(&mut self, name: &str) {
        let since = at(self.clock).to_string();
        let status = json!({"phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]});
        let pod = self.pods.iter_mut().find(|p| p.metadata.name.as_deref() == Some(name)).expect(name);
        Arc::make_mut(pod).status = Some(serde_json::from_value(status).unwrap());
    }

    fn all_ready(&mut self) {
        for name in self.names() {
            self.ready(&name);
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.pods.iter().filter_map(|p| p.metadata.name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// Ready passes until nothing changes.
    fn settle(&mut self) {
        for _ in 0..40 {
            let (before, status) = (self.pods.len(), self.set.status.clone());
            // A status that changed is a reason to look again: history is cut by it.
            let quiet = self.pass().actions.is_empty() && self.set.status == status;
            let unready = self.pods.iter().any(|p| !pods::is_ready(p));
            self.all_ready();
            if quiet && !unready && before == self.pods.len() {
                return;
            }
        }
        panic!("no rest");
    }

    fn images(&self) -> Vec<&str> {
        let mut pods: Vec<&Arc<Pod>> = self.pods.iter().collect();
        pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        pods.iter().filter_map(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref()).collect()
    }
}

#[test]
fn pods_come_one_after_the_other_and_go_from_the_last() {
    let mut world = World::new(json!({}));
    world.pass();
    world.pass();
    assert_eq!(world.names(), ["s-0"], "the second waits for the first");
    world.ready("s-0");
    world.pass();
    assert_eq!(world.names(), ["s-0", "s-1"]);
    world.settle();
    let pod = world.pods.iter().find(|p| p.metadata.name.as_deref() == Some("s-2")).unwrap();
    let (spec, labels) = (pod.spec.as_ref().unwrap(), pod.metadata.labels.as_ref().unwrap());
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("s-2"), Some("svc")));
    assert_eq!(
        (&*labels["statefulset.kubernetes.io/pod-name"], &*labels["apps.kubernetes.io/pod-index"]),
        ("s-2", "2")
    );
    let status = world.set.status.clone().unwrap();
    assert_eq!((status.ready_replicas, status.updated_replicas, status.current_replicas), (Some(3), Some(3), Some(3)));
    world.spec().replicas = Some(1);
    world.pass();
    assert_eq!(world.names(), ["s-0", "s-1"]);
    world.pass();
    assert_eq!(world.names(), ["s-0"]);
}

#[test]
fn parallel_management_waits_for_nobody_and_ordinals_may_start_elsewhere() {
    let mut world = World::new(json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 5}}));
    world.pass();
    assert_eq!(world.names(), ["s-5", "s-6", "s-7"]);
    world.spec().replicas = Some(0);
    world.pass();
    assert!(world.pods.is_empty());
}

#[test]
fn an_update_goes_down_to_the_partition_and_waits_for_each_pod() {
    let mut world = World::new(json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}));
    world.settle();
    world.image("two");
    world.pass();
    assert_eq!(world.names(), ["s-0", "s-1"], "the last goes first");
    world.pass();
    world.pass();
    assert_eq!(world.images(), ["one", "one", "two"]);
    world.settle();
    assert_eq!(world.images(), ["one", "two", "two"]);
    let status = world.set.status.clone().unwrap();
    assert_ne!(status.current_revision, status.update_revision);
    // A pod below the partition comes back as it was.
    world.pods.retain(|p| p.metadata.name.as_deref() != Some("s-0"));
    world.settle();
    assert_eq!(world.images(), ["one", "two", "two"]);
    world.spec().update_strategy.as_mut().unwrap().rolling_update.as_mut().unwrap().partition = Some(0);
    world.settle();
    assert_eq!(world.images(), ["two", "two", "two"]);
    world.pass();
    let status = world.set.status.clone().unwrap();
    assert_eq!(status.current_revision, status.update_revision);
}

#[test]
fn on_delete_updates_only_what_the_user_deletes() {
    let mut world = World::new(json!({"updateStrategy": {"type": "OnDelete"}}));
    world.settle();
    world.image("two");
    world.settle();
    assert_eq!(world.images(), ["one", "one", "one"]);
    world.pods.retain(|p| p.metadata.name.as_deref() != Some("s-1"));
    world.settle();
    assert_eq!(world.images(), ["one", "two", "one"]);
}

#[test]
fn claims_are_made_before_pods_and_owned_as_the_policy_says() {
    let template = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    let policy = json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    let mut world = World::new(json!({"replicas": 2, "volumeClaimTemplates": template,
        "persistentVolumeClaimRetentionPolicy": policy}));
    let first = world.pass().actions;
    let order: Vec<bool> = first.iter().map(|a| matches!(a, Action::CreateClaim { .. })).collect();
    assert!(order.iter().position(|c| *c) < first.iter().position(|a| matches!(a, Action::CreatePod(_))));
    world.settle();
    let claim = |world: &World, name: &str| {
        world.claims.iter().find(|c| c.metadata.name.as_deref() == Some(name)).cloned().expect(name)
    };
    let owner = |claim: &PersistentVolumeClaim| claim.metadata.owner_references.clone().unwrap()[0].kind.clone();
    assert_eq!(owner(&claim(&world, "data-s-1")), "StatefulSet");
    let volumes = world.pods[0].spec.as_ref().unwrap().volumes.as_ref().unwrap();
    assert_eq!(volumes[0].persistent_volume_claim.as_ref().unwrap().claim_name, "data-s-0");
    world.spec().replicas = Some(1);
    world.pass();
    assert_eq!(owner(&claim(&world, "data-s-1")), "Pod", "its pod goes, and with it the claim");
    let mut keep = World::new(json!({"replicas": 1, "volumeClaimTemplates": template}));
    keep.settle();
    assert!(claim(&keep, "data-s-0").metadata.owner_references.is_none());
}

#[test]
fn a_pod_that_failed_is_made_anew_and_min_ready_seconds_are_waited_for() {
    let mut world = World::new(json!({"replicas": 2, "minReadySeconds": 10}));
    world.pass();
    world.ready("s-0");
    let decision = world.pass();
    assert_eq!((decision.wake_at, world.names().len()), (Some(at(110)), 1));
    world.clock = 110;
    world.pass();
    assert_eq!(world.names(), ["s-0", "s-1"]);
    let pod = Arc::make_mut(&mut world.pods[0]);
    pod.status.as_mut().unwrap().phase = Some("Failed".into());
    let decision = world.pass();
    assert!(decision.actions.iter().any(|a| matches!(a, Action::Event { reason: "RecreatingFailedPod", .. })));
    world.pass();
    assert_eq!(world.names(), ["s-0", "s-1"]);
}

proptest! {
    #[test]
    fn whatever_is_asked_numbers_stay_single_and_updates_stay_within_the_limit(
        steps in proptest::collection::vec((0..5i32, any::<bool>(), any::<bool>()), 1..20), limit in 1..3i32, parallel: bool,
    ) {
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let mut world = World::new(json!({"podManagementPolicy": policy,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": limit}}}));
        world.settle();
        for (replicas, update, settle) in steps {
            world.spec().replicas = Some(replicas);
            if update {
                let image = format!("image{}", world.made);
                world.image(&image);
            }
            let decision = world.pass();
            let taken = decision.actions.iter().filter(|a| matches!(a, Action::DeletePod(_))).count();
            prop_assert!(parallel || taken <= usize::try_from(limit).unwrap(), "one at a time, or as many as may be missing");
            if settle {
                world.settle();
                prop_assert_eq!(world.pods.len(), usize::try_from(replicas).unwrap());
            }
        }
        world.settle();
        let wanted = world.spec().template.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        prop_assert!(world.images().iter().all(|i| *i == wanted));
        prop_assert!(world.pass().actions.is_empty());
    }
}
