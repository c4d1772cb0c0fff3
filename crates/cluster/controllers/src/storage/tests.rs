use super::*;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};
use std::sync::Arc;

fn claim(spec: Value) -> PersistentVolumeClaim {
    let mut full = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
        "resources": {"requests": {"storage": "1Gi"}}});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u1"}, "spec": full})).unwrap()
}

fn volume(name: &str, size: &str, change: impl FnOnce(&mut Value)) -> Arc<PersistentVolume> {
    let mut value = json!({"metadata": {"name": name}, "status": {"phase": "Available"}, "spec": {"storageClassName": "local",
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}}});
    change(&mut value);
    Arc::new(serde_json::from_value(value).unwrap())
}

struct World {
    claim: PersistentVolumeClaim,
    volumes: Vec<Arc<PersistentVolume>>,
    classes: Vec<Arc<StorageClass>>,
    nodes: Vec<Arc<Node>>,
    events: Vec<&'static str>,
}

impl World {
    fn new(claim: PersistentVolumeClaim, volumes: Vec<Arc<PersistentVolume>>) -> Self {
        let node = json!({"metadata": {"name": "one", "labels": {"kubernetes.io/hostname": "host"}}});
        let nodes = vec![Arc::new(serde_json::from_value(node).unwrap())];
        World { claim, volumes, classes: vec![Arc::new(default_class())], nodes, events: Vec::new() }
    }

    /// Passes until nothing is to be done.
    fn settle(&mut self) {
        for _ in 0..10 {
            let view = ClaimView {
                claim: &self.claim,
                volumes: &self.volumes,
                classes: &self.classes,
                nodes: &self.nodes,
                local_root: "/root/volumes/",
            };
            let decision = decide_claim(&view);
            let mut wrote = false;
            for action in decision.actions {
                match action {
                    Action::UpdateClaim(changed) => (self.claim, wrote) = (*changed, true),
                    Action::CreateVolume(made) => {
                        self.volumes.push(Arc::new(*made));
                        wrote = true;
                    }
                    Action::UpdateVolume(changed) => {
                        self.volumes.retain(|v| v.metadata.name != changed.metadata.name);
                        self.volumes.push(Arc::new(*changed));
                        wrote = true;
                    }
                    Action::Event { reason, .. } => self.events.push(reason),
                }
            }
            self.claim.status = decision.status.or(self.claim.status.take());
            if !wrote {
                return;
            }
        }
        panic!("no rest");
    }

    fn phase(&self) -> &str {
        self.claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
    }

    fn bound_to(&self) -> Option<&str> {
        self.claim.spec.as_ref().unwrap().volume_name.as_deref()
    }

    fn annotate(&mut self, key: &str, value: &str) {
        self.claim.metadata.annotations.get_or_insert_default().insert(key.into(), value.into());
    }
}

#[test]
fn a_claim_takes_the_smallest_volume_that_suits() {
    let volumes = vec![
        volume("large", "5Gi", |_| {}),
        volume("fits", "2Gi", |_| {}),
        volume("small", "500Mi", |_| {}),
        volume("other", "1Gi", |v| v["spec"]["storageClassName"] = "x".into()),
        volume("taken", "1Gi", |v| v["spec"]["claimRef"] = json!({"namespace": "n", "name": "z", "uid": "z"})),
        volume("modes", "1Gi", |v| v["spec"]["accessModes"] = json!(["ReadOnlyMany"])),
    ];
    let mut world = World::new(claim(json!({})), volumes);
    Arc::make_mut(&mut world.classes[0]).volume_binding_mode = Some("Immediate".into());
    world.settle();
    assert_eq!((world.bound_to(), world.phase()), (Some("fits"), "Bound"));
    assert!(world.claim.metadata.annotations.as_ref().unwrap().contains_key(BIND_COMPLETED));
    let capacity = world.claim.status.as_ref().unwrap().capacity.as_ref();
    assert_eq!(size_of(capacity), 2 << 30);
}

#[test]
fn a_claim_waits_for_its_first_pod_and_is_made_on_the_node_that_was_chosen() {
    let mut world = World::new(claim(json!({"storageClassName": null})), vec![]);
    world.settle();
    assert_eq!((world.phase(), &world.events[..]), ("Pending", &["WaitForFirstConsumer"][..]));
    assert_eq!(world.claim.spec.as_ref().unwrap().storage_class_name.as_deref(), Some("local"), "the default class");
    world.annotate(SELECTED_NODE, "one");
    world.settle();
    assert_eq!((world.bound_to(), world.phase()), (Some("pvc-u1"), "Bound"));
    let spec = world.volumes[0].spec.clone().unwrap();
    assert_eq!(spec.host_path.unwrap().path, "/root/volumes/pvc-u1");
    assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Delete"));
    assert!(node_affinity_allows(&world.volumes[0], &world.nodes[0]));
    let elsewhere: Node = serde_json::from_value(json!({"metadata": {"name": "two"}})).unwrap();
    assert!(!node_affinity_allows(&world.volumes[0], &elsewhere));
    assert_eq!(world.events.last(), Some(&"ProvisioningSucceeded"));
}

#[test]
fn what_cannot_be_had_is_said() {
    for (spec, reason) in [
        (json!({"storageClassName": ""}), "FailedBinding"),
        (json!({"storageClassName": "none"}), "ProvisioningFailed"),
        (json!({"storageClassName": "cloud"}), "ExternalProvisioning"),
    ] {
        let mut world = World::new(claim(spec), vec![]);
        let cloud = json!({"metadata": {"name": "cloud"}, "provisioner": "cloud.example.com"});
        world.classes.push(Arc::new(serde_json::from_value(cloud).unwrap()));
        world.settle();
        assert_eq!((world.phase(), world.events.last()), ("Pending", Some(&reason)));
    }
}

#[test]
fn a_larger_request_grows_the_volume_and_a_lost_volume_is_told_once() {
    let mut world = World::new(claim(json!({})), vec![]);
    world.annotate(SELECTED_NODE, "one");
    world.settle();
    let larger = serde_json::from_value(json!({"requests": {"storage": "3Gi"}})).unwrap();
    world.claim.spec.as_mut().unwrap().resources = Some(larger);
    world.settle();
    assert_eq!(size_of(world.claim.status.as_ref().unwrap().capacity.as_ref()), 3 << 30);
    world.volumes.clear();
    world.settle();
    world.settle();
    assert_eq!(world.phase(), "Lost");
    assert_eq!(world.events.iter().filter(|e| **e == "ClaimLost").count(), 1);
}

#[test]
fn a_volume_whose_claim_is_gone_is_kept_or_deleted_as_its_policy_says() {
    let released = |policy: &str, by: Option<&str>| {
        volume("v", "1Gi", |v| {
            v["spec"]["claimRef"] = json!({"namespace": "n", "name": "c", "uid": "u1"});
            v["spec"]["persistentVolumeReclaimPolicy"] = policy.into();
            v["metadata"]["annotations"] = json!(by.map(|by| json!({PROVISIONED_BY: by})));
        })
    };
    let phase = |actions: &[VolumeAction]| match &actions[0] {
        VolumeAction::Status(status) => status.phase.clone().unwrap(),
        other => panic!("{other:?}"),
    };
    for (policy, by, expected, deleted) in [
        ("Retain", Some(LOCAL_PROVISIONER), "Released", false),
        ("Delete", Some(LOCAL_PROVISIONER), "Released", true),
        ("Delete", Some("other"), "Released", false),
        ("Delete", None, "Failed", false),
    ] {
        let volume = released(policy, by);
        let actions = decide_volume(&volume, None);
        assert_eq!(
            (&*phase(&actions), actions.contains(&VolumeAction::Delete)),
            (expected, deleted),
            "{policy} {by:?}"
        );
        assert_eq!(phase(&decide_volume(&volume, Some(&claim(json!({}))))), "Bound");
    }
}

#[test]
fn claims_in_use_are_held_and_ephemeral_ones_are_made_for_their_pod() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "pod"}, "spec": {
        "containers": [], "volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}]}}))
    .unwrap();
    assert_eq!(claims_of(&pod), ["c", "p-b"]);
    let mut held = claim(json!({}));
    assert_eq!(claim_finalizers(&held, &[]), Some(vec![CLAIM_PROTECTION.to_owned()]));
    held.metadata.finalizers = Some(vec![CLAIM_PROTECTION.into()]);
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    held.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
    assert_eq!(claim_finalizers(&held, &[Arc::new(pod.clone())]), None);
    assert_eq!(claim_finalizers(&held, &[]), Some(vec![]));
    let made = missing_claims(&pod, |_| None).unwrap();
    assert_eq!(made[0].metadata.name.as_deref(), Some("p-b"));
    assert!(missing_claims(&pod, |_| Some(made[0].metadata.clone())).unwrap().is_empty());
    assert!(missing_claims(&pod, |_| Some(Default::default())).unwrap_err().contains("not owner"));
}
